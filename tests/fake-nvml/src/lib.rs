//! A fake of NVIDIA's management library: the C interface of the real one, playing a [`Scenario`].
//!
//! The scenario is the file `scenario.json` in the directory that the library itself was loaded from, read at each
//! first `nvmlInit`. So a test copies the library beside its scenario, and no two tests share one.
//!
//! The structures are those of nvml-wrapper-sys, and [`same_interface`] makes the compiler compare every function
//! with the one of that name there. What the functions do follows NVIDIA's reference manual of NVML.
//!
//! [`Scenario`]: scenario::Scenario

pub mod account;
mod interface;
pub mod scenario;
mod state;

use nvml_wrapper_sys::bindings::NvmlLib;

/// Never called: it compiles only if each function here has the type of its namesake in nvml-wrapper-sys.
pub fn same_interface(real: &NvmlLib) {
    fn same<T, E>(_real: &Result<T, E>, _fake: T) {}
    macro_rules! compare {
        ($($name:ident)*) => { $( same(&real.$name, interface::$name); )* };
    }
    compare! {
        nvmlInit_v2 nvmlInitWithFlags nvmlShutdown nvmlErrorString
        nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion
        nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByUUID
        nvmlDeviceGetHandleByPciBusId_v2 nvmlDeviceGetPowerManagementLimitConstraints
        nvmlDeviceGetIndex nvmlDeviceGetUUID nvmlDeviceGetName nvmlDeviceGetPciInfo_v3
        nvmlDeviceGetTotalEnergyConsumption nvmlDeviceGetPowerUsage nvmlDeviceGetUtilizationRates
        nvmlDeviceGetMemoryInfo nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetProcessUtilization
        nvmlDeviceGetComputeRunningProcesses_v2 nvmlDeviceGetComputeRunningProcesses_v3
        nvmlDeviceGetGraphicsRunningProcesses_v2 nvmlDeviceGetGraphicsRunningProcesses_v3
        nvmlDeviceGetMigMode nvmlDeviceGetMaxMigDeviceCount nvmlDeviceGetMigDeviceHandleByIndex
    }
}
