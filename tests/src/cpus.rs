//! CPUs: which there are, running on one of them, and taking one away.

use std::{fs, path::PathBuf};

use rustix::thread::{CpuSet, sched_setaffinity};

/// CPUs that are online.
pub fn online() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u32>().unwrap()..=last.parse().unwrap());
    }
    cpus
}

/// Binds the calling thread to a CPU.
pub fn pin(cpu: u32) {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    sched_setaffinity(None, &set).unwrap();
}

/// Lets a thread run before whatever else there is; 0 is the calling one. Where that is refused, it stays as it was.
pub fn make_real_time(tid: u32) {
    // The kernel's `sched_param`. musl has the function and always refuses, so the kernel itself is asked.
    let priority: libc::c_int = 1;
    // SAFETY: the number lives until the call returns.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, tid, libc::SCHED_FIFO, &raw const priority) };
}

/// A CPU that is taken offline, and comes back when this is dropped.
#[derive(Debug)]
pub struct Hotplug {
    switch: PathBuf,
}

impl Hotplug {
    /// A CPU that can be taken offline, or why there is none.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn of(cpu: u32) -> Result<Self, String> {
        let switch = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
        let hotplug = Self { switch };
        // Writing what stands there already tells whether the machine allows it.
        hotplug
            .write("1")
            .map_err(|error| format!("CPU {cpu} cannot be taken offline ({error})"))?;
        Ok(hotplug)
    }

    fn write(&self, state: &str) -> std::io::Result<()> {
        // Not `fs::write`, which would create the file.
        let mut file = fs::OpenOptions::new().write(true).open(&self.switch)?;
        std::io::Write::write_all(&mut file, state.as_bytes())
    }

    /// Takes the CPU away.
    pub fn take_offline(&self) {
        self.write("0").unwrap();
    }

    /// Brings it back.
    pub fn bring_back(&self) {
        self.write("1").unwrap();
    }
}

impl Drop for Hotplug {
    fn drop(&mut self) {
        if let Err(error) = self.write("1") {
            eprintln!("{} could not be set to 1 again: {error}", self.switch.display());
        }
    }
}
