//! The functions of NVML, with its names, types and return codes.

use std::ffi::{CStr, c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t,
    nvmlProcessInfo_t, nvmlProcessInfo_v2_t, nvmlProcessUtilizationSample_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as ARGUMENT_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT, nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlUtilization_t,
};

use crate::{
    account,
    scenario::{Device, Process},
    state::{self, At},
};

/// NVML's word for a number that it does not have.
const NOT_AVAILABLE_U32: c_uint = c_uint::MAX;
const NOT_AVAILABLE_U64: c_ulonglong = c_ulonglong::MAX;

/// What a function of NVML returns for `body`, whose CPU time is that of a call.
fn code(body: impl FnOnce() -> Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    account::call(body).err().unwrap_or(SUCCESS)
}

/// Stores `value`, where the caller gave a place for it.
///
/// # Safety
///
/// `place` is null or valid for a write.
unsafe fn store<T>(place: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: it is not null, so the caller says that it is valid.
    unsafe { place.write(value) };
    Ok(())
}

/// Stores `text` with its NUL.
///
/// # Safety
///
/// `place` is null or valid for writes of `length` bytes.
unsafe fn store_text(place: *mut c_char, length: c_uint, text: &str) -> Result<(), nvmlReturn_t> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its NUL fit into what the caller says is valid.
    unsafe {
        place.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        place.add(text.len()).write(0);
    }
    Ok(())
}

/// NVML's way to return a list: the caller says how much fits, and learns how much there is.
///
/// # Safety
///
/// `count` is null or valid; `place` is null or valid for writes of `*count` entries.
unsafe fn store_list<T: Copy>(place: *mut T, count: *mut c_uint, list: &[T]) -> Result<(), nvmlReturn_t> {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null.
    let room = unsafe { count.read() } as usize;
    let length = c_uint::try_from(list.len()).map_err(|_| INVALID_ARGUMENT)?;
    // SAFETY: not null.
    unsafe { count.write(length) };
    if room < list.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    if !place.is_null() {
        // SAFETY: the list fits into what the caller says is valid.
        unsafe { place.copy_from_nonoverlapping(list.as_ptr(), list.len()) };
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    code(state::init)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    code(state::init)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    code(state::shutdown)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(_result: nvmlReturn_t) -> *const c_char {
    const TEXT: &CStr = c"an error of the fake library";
    TEXT.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlSystemGetDriverVersion")?;
        // SAFETY: what the caller of NVML promises.
        unsafe { store_text(version, length, "575.0.0-fake") }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlSystemGetNVMLVersion")?;
        // SAFETY: what the caller of NVML promises.
        unsafe { store_text(version, length, "12.575.0-fake") }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlDeviceGetCount_v2").and_then(|state| {
            let devices = c_uint::try_from(state.scenario.devices.len()).map_err(|_| INVALID_ARGUMENT)?;
            // SAFETY: what the caller of NVML promises.
            unsafe { store(count, devices) }
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlDeviceGetHandleByIndex_v2").and_then(|state| {
            let at = At::reach(state, index as usize, None)?;
            // SAFETY: what the caller of NVML promises.
            unsafe { store(device, at.handle(None)) }
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlDeviceGetHandleByUUID").and_then(|state| {
            if uuid.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: the caller of NVML promises a string.
            let wanted = unsafe { CStr::from_ptr(uuid) }.to_str().map_err(|_| INVALID_ARGUMENT)?;
            let index = state.scenario.devices.iter().position(|device| device.uuid == wanted);
            let at = At::reach(state, index.ok_or(NOT_FOUND)?, None)?;
            // SAFETY: what the caller of NVML promises.
            unsafe { store(device, at.handle(None)) }
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    address: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    code(|| {
        state::state("nvmlDeviceGetHandleByPciBusId_v2").and_then(|state| {
            if address.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: the caller of NVML promises a string.
            let wanted = unsafe { CStr::from_ptr(address) }
                .to_str()
                .map_err(|_| INVALID_ARGUMENT)?;
            let tail = wanted.trim_start_matches('0');
            let is_wanted = |device: &Device| device.pci.trim_start_matches('0').eq_ignore_ascii_case(tail);
            let index = state.scenario.devices.iter().position(is_wanted);
            let at = At::reach(state, index.ok_or(NOT_FOUND)?, None)?;
            // SAFETY: what the caller of NVML promises.
            unsafe { store(device, at.handle(None)) }
        })
    })
}

/// The functions that ask one thing of a device: the arguments are stored by the body.
macro_rules! device_functions {
    ($(fn $name:ident($at:ident $(, $argument:ident: $type:ty)*) $body:block)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t $(, $argument: $type)*) -> nvmlReturn_t {
            code(|| At::enter(stringify!($name), device).and_then(|$at| $body))
        }
    )* };
}

device_functions! {
    fn nvmlDeviceGetIndex(at, index: *mut c_uint) {
        let number = c_uint::try_from(at.index()).map_err(|_| INVALID_ARGUMENT)?;
        // SAFETY: what the caller of NVML promises.
        unsafe { store(index, number) }
    }

    fn nvmlDeviceGetUUID(at, uuid: *mut c_char, length: c_uint) {
        let instances = at.device().mig.as_deref().unwrap_or_default();
        let of_instance = at.instance.and_then(|instance| instances.get(instance));
        let text = of_instance.map_or(&at.device().uuid, |instance| &instance.uuid);
        // SAFETY: what the caller of NVML promises.
        unsafe { store_text(uuid, length, text) }
    }

    fn nvmlDeviceGetName(at, name: *mut c_char, length: c_uint) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store_text(name, length, &at.device().name) }
    }

    fn nvmlDeviceGetPciInfo_v3(at, pci: *mut nvmlPciInfo_t) {
        // SAFETY: integers and arrays of integers.
        let mut info: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        let text = &at.device().pci;
        // SAFETY: the array has that many bytes.
        unsafe { store_text(info.busId.as_mut_ptr(), 32, text) }?;
        // SAFETY: what the caller of NVML promises.
        unsafe { store(pci, info) }
    }

    fn nvmlDeviceGetTotalEnergyConsumption(at, energy: *mut c_ulonglong) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store(energy, counter_mj(&at)) }
    }

    fn nvmlDeviceGetPowerUsage(at, power: *mut c_uint) {
        let drawn_mw = || at.device().power_mw(at.now_ns);
        let mw = c_uint::try_from(at.control.power_mw.unwrap_or_else(drawn_mw)).unwrap_or(c_uint::MAX);
        // SAFETY: what the caller of NVML promises.
        unsafe { store(power, mw) }
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(at, least: *mut c_uint, most: *mut c_uint) {
        let limit_mw = at.device().power_limit_mw.ok_or(NOT_SUPPORTED)?;
        let limit_mw = c_uint::try_from(limit_mw).map_err(|_| INVALID_ARGUMENT)?;
        // SAFETY: what the caller of NVML promises.
        unsafe { store(least, limit_mw / 4).and_then(|()| store(most, limit_mw)) }
    }

    fn nvmlDeviceGetUtilizationRates(at, utilization: *mut nvmlUtilization_t) {
        if at.device().mig.is_some() {
            return Err(NOT_SUPPORTED);
        }
        let gpu = at.device().processes_at(at.now_ns).map(|process| process.sm).sum::<u32>().min(100);
        // SAFETY: what the caller of NVML promises.
        unsafe { store(utilization, nvmlUtilization_t { gpu, memory: gpu / 2 }) }
    }

    fn nvmlDeviceGetMemoryInfo(at, memory: *mut nvmlMemory_t) {
        let (total, used) = memory_of(&at);
        // SAFETY: what the caller of NVML promises.
        unsafe { store(memory, nvmlMemory_t { total, free: total - used, used }) }
    }

    fn nvmlDeviceGetMemoryInfo_v2(at, memory: *mut nvmlMemory_v2_t) {
        let version = c_uint::try_from(size_of::<nvmlMemory_v2_t>()).unwrap_or(0) | 2 << 24;
        // SAFETY: the caller of NVML promises a structure whose version is set.
        if memory.is_null() || unsafe { (*memory).version } != version {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = memory_of(&at);
        // SAFETY: what the caller of NVML promises.
        unsafe { store(memory, nvmlMemory_v2_t { version, total, reserved: 0, free: total - used, used }) }
    }

    fn nvmlDeviceGetProcessUtilization(
        at, samples: *mut nvmlProcessUtilizationSample_t, count: *mut c_uint, last_seen_us: c_ulonglong
    ) {
        if at.device().mig.is_some() {
            return Err(NOT_SUPPORTED);
        }
        let list = samples_of(&at, last_seen_us);
        if list.is_empty() {
            return Err(NOT_FOUND);
        }
        // SAFETY: what the caller of NVML promises.
        unsafe { store_list(samples, count, &list) }
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(at, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store_list(infos, count, &processes_of(&at, |process| !process.no_compute)) }
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(at, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store_list(infos, count, &processes_of(&at, |process| !process.no_compute)) }
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v2(at, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store_list(infos, count, &processes_of(&at, |process| process.graphics)) }
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(at, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
        // SAFETY: what the caller of NVML promises.
        unsafe { store_list(infos, count, &processes_of(&at, |process| process.graphics)) }
    }

    fn nvmlDeviceGetMigMode(at, current: *mut c_uint, pending: *mut c_uint) {
        let mode = match at.device().mig {
            Some(_) => NVML_DEVICE_MIG_ENABLE,
            None => NVML_DEVICE_MIG_DISABLE,
        };
        // SAFETY: what the caller of NVML promises.
        unsafe { store(current, mode).and_then(|()| store(pending, mode)) }
    }

    fn nvmlDeviceGetMaxMigDeviceCount(at, count: *mut c_uint) {
        let most = if at.device().mig.is_some() { 7 } else { 0 };
        // SAFETY: what the caller of NVML promises.
        unsafe { store(count, most) }
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(at, index: c_uint, instance: *mut nvmlDevice_t) {
        let instances = at.device().mig.as_deref().unwrap_or_default();
        let position = index as usize;
        if position >= instances.len() {
            return Err(NOT_FOUND);
        }
        // SAFETY: what the caller of NVML promises.
        unsafe { store(instance, at.handle(Some(position))) }
    }
}

/// The counter, unless a test makes it stand still.
fn counter_mj(at: &At) -> u64 {
    let counted_mj = || at.device().counter_mj(at.now_ns, at.control.counter_reset_ns);
    at.control.counter_mj.unwrap_or_else(counted_mj)
}

/// All memory, and what is used of it.
fn memory_of(at: &At) -> (u64, u64) {
    let total = at.device().memory_total_bytes;
    let used = at
        .device()
        .processes_at(at.now_ns)
        .filter_map(|process| process.memory_bytes);
    (total, used.sum::<u64>().min(total))
}

fn processes_of(at: &At, listed: impl Fn(&Process) -> bool) -> Vec<nvmlProcessInfo_t> {
    let here = |process: &&Process| at.instance.is_none() || process.instance == at.instance;
    let instance = |process: &Process| {
        let position = process.instance.filter(|_| at.device().mig.is_some());
        position.map_or(NOT_AVAILABLE_U32, |position| {
            c_uint::try_from(position).unwrap_or(0) + 1
        })
    };
    at.device()
        .processes_at(at.now_ns)
        .filter(|process| listed(process))
        .filter(here)
        .map(|process| nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.memory_bytes.unwrap_or(NOT_AVAILABLE_U64),
            gpuInstanceId: instance(process),
            computeInstanceId: if process.instance.is_some() {
                0
            } else {
                NOT_AVAILABLE_U32
            },
        })
        .collect()
}

/// The samples newer than `last_seen_us`, where 0 asks for the whole buffer.
fn samples_of(at: &At, last_seen_us: u64) -> Vec<nvmlProcessUtilizationSample_t> {
    let start_us = at.state.start_unix_us;
    let after_us = (last_seen_us > 0).then(|| last_seen_us.saturating_sub(start_us));
    let device: &Device = at.device();
    let mut samples: Vec<_> = device
        .samples(at.now_ns, after_us)
        .into_iter()
        .map(|(at_us, pid, sm)| sample(pid, start_us + at_us, sm))
        .collect();
    if device.junk_samples && !samples.is_empty() {
        samples.insert(0, sample(0, 0, 3_000_000_000));
        let newest_us = samples.last().map_or(0, |sample| sample.timeStamp);
        samples.push(sample(samples[1].pid, newest_us, 4_000));
    }
    samples
}

fn sample(pid: u32, at_us: u64, sm: u32) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid,
        timeStamp: at_us,
        smUtil: sm,
        // Half of it, wherever a test looks.
        memUtil: sm / 2,
        encUtil: 0,
        decUtil: 0,
    }
}
