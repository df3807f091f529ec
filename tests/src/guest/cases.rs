//! Cases that only make sense in a machine of one's own.

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use dlpm::{
    interval::Identity,
    sources::cpu_time::{Config, CpuTime},
};
use rustix::{
    mount::{MountFlags, mount},
    process::{Resource, Rlimit, setrlimit},
};

use super::{BUSY, PLAN, acpi_power, commands, cores, powercap};
use crate::{trace::Trace, worker::cpu_clock_ns};

/// Runs one; it fails by panicking.
pub fn run(name: &str) -> ExitCode {
    // Some of them end the machine that they run on.
    assert!(
        Path::new(PLAN).exists(),
        "this is not a machine of `cargo xtask kernels`"
    );
    match name {
        "static-keys" => static_keys(),
        "hooks" => hooks(),
        "no-btf" => no_btf(),
        "first-process" => first_process(),
        "acpi-power" => acpi_power::meters(),
        "commands" => commands::commands(),
        "repeats" => commands::repeats(),
        "cores" => cores::cores(),
        "powercap" => powercap::counters(),
        "powercap-permissions" => powercap::permissions(),
        "powercap-errors" => powercap::errors(),
        "illegal-access" => illegal_access(),
        "kernel-panic" => fs::write("/proc/sysrq-trigger", "c").unwrap(),
        "hang" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        "power-off" => {
            let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
        }
        other => panic!("no such case: {other}"),
    }
    ExitCode::SUCCESS
}

/// The machine itself, without dlpm: the kernel changes code that the other processor is running, as it does for dlpm when
/// hooks are attached and runs are counted. An emulator that is not true to that makes it panic here.
fn static_keys() {
    const TIMES: usize = 1_000;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Each pause goes through the code that these statistics are in.
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_micros(50));
                }
            });
        }
        for value in ["1", "0"].iter().cycle().take(TIMES) {
            fs::write("/proc/sys/kernel/sched_schedstats", value).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Every program is loaded and attached, and processes are distinguished by start time.
fn hooks() {
    let cpu_time = CpuTime::start(&Config::default()).unwrap();
    for hook in cpu_time.hooks() {
        println!("{} at {}: {:?}", hook.program, hook.tracepoint, hook.state);
        assert_eq!(hook.state, Ok(()), "{}", hook.program);
    }
    assert_eq!(cpu_time.identity(), (Identity::StartTime, None));
}

/// Without the kernel's type information time is still exact, and the log can say why there are no start times.
fn no_btf() {
    // In a mount namespace of this process, so that the cases that follow have it again, whatever becomes of this one.
    // SAFETY: a plain system call.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    mount("tmpfs", "/sys/kernel/btf", "tmpfs", MountFlags::empty(), None).unwrap();
    let mut trace = Trace::start(&Config::default());
    let (identity, reason) = trace.cpu_time.identity();
    println!("{identity:?}: {reason:?}");
    assert_eq!(identity, Identity::Tgid);
    assert!(reason.unwrap().contains("/sys/kernel/btf/vmlinux"), "{reason:?}");
    trace.steps(20, Duration::from_millis(20));
    let own = std::process::id();
    assert!(
        trace
            .usage_of(own)
            .any(|usage| usage.ns > 0 && usage.process.start_ns == 0)
    );
}

/// The CPU time of the first process is its own, by the kernel's clock of it.
fn first_process() {
    fs::write(BUSY, "").unwrap();
    let clock = || cpu_clock_ns(1);
    let mut trace = Trace::start(&Config::default());
    // Each end of the traced time lies between two readings of the clock.
    let begin = (clock(), trace.step().usage.len(), clock());
    let skipped = trace.intervals.len();
    trace.steps(20, Duration::from_millis(50));
    let end = (clock(), trace.step().usage.len(), clock());
    fs::remove_file(BUSY).unwrap();
    let usage = trace.intervals[skipped..].iter().flat_map(|drained| &drained.usage);
    let traced: u64 = usage
        .filter(|usage| usage.process.tgid == 1)
        .map(|usage| usage.ns)
        .sum();
    let (least, most) = (end.0 - begin.2, end.2 - begin.0);
    println!("process 1: {traced} ns traced, {least} to {most} ns by its clock");
    assert!(least > 50_000_000, "the first process was not busy");
    // The work of the scheduler falls to the task going out here, and to the one coming in there.
    let slack = most / 10;
    assert!(traced + slack >= least && traced <= most + slack);
}

/// A program that reads beyond what it is given. Every kernel refuses it, so this case always fails.
fn illegal_access() {
    // Before 5.11 programs count as locked memory, and what the case before this one had may not yet be freed.
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited).unwrap();
    // r0 = *(u64 *)(r1 + 8192); exit: far behind the arguments of a raw tracepoint.
    let instructions: [u64; 2] = [u64::from_le_bytes([0x79, 0x10, 0x00, 0x20, 0, 0, 0, 0]), 0x95];
    let license = c"Dual MIT/GPL";
    let mut log = vec![0u8; 65_536];
    #[repr(C)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
    let load = Load {
        program_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        instruction_count: 2,
        instructions: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: 1,
        log_size: 65_536,
        log: log.as_mut_ptr().addr() as u64,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: what the attributes point at lives until the call returns, and has the lengths that they say.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    let error = io::Error::last_os_error();
    let text = String::from_utf8_lossy(&log);
    println!("{}", text.trim_end_matches('\0'));
    assert!(result >= 0, "the kernel refused a program: {error}");
}
