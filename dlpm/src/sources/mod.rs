//! Everything that reads the machine.

pub mod calibration;
pub mod cgroups;
pub mod clock;
pub mod conditions;
pub mod cpu_model;
pub mod cpu_time;
pub mod drm;
pub mod energy;
pub mod events;
pub mod gpu;
pub mod gpu_owners;
pub mod host;
pub mod hwmon;
pub mod machine;
pub mod memory;
pub mod memory_watch;
pub mod perf_event;
pub mod proc_fs;
pub mod processes;
pub mod suspend;
pub mod tenant_memory;
pub mod tenants;
pub mod timezone;
pub mod topology;
