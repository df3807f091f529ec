//! What a run of the program at the context switch costs, by the kernel's own count.
//!
//! Counting costs every eBPF program of the machine some ten nanoseconds a run, so it ends soon.

use std::{
    fs,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use aya::sys::{Stats, enable_stats};

use crate::{interval::SwitchCost, sources::clock::monotonic_ns};

/// Counted in steps of this length.
const STEP: Duration = Duration::from_millis(100);

/// Steps at most.
const STEPS: u32 = 10;

/// Runs whose mean is good enough.
const ENOUGH_RUNS: u64 = 1_000;

/// A measurement that goes on by itself, and ends with this value.
pub(super) struct CostMeter {
    result: Arc<OnceLock<Result<SwitchCost, String>>>,
    /// Ends the measurement when it is dropped.
    _running: Option<Sender<()>>,
}

impl CostMeter {
    /// Lets the kernel count runs of `program` for a while.
    pub(super) fn start(program: Result<BorrowedFd<'_>, String>) -> Self {
        let result = Arc::new(OnceLock::new());
        let started = program.and_then(|program| {
            let program = program.try_clone_to_owned().map_err(|error| error.to_string())?;
            let counting = enable_stats(Stats::RunTime)
                .map_err(|error| format!("the kernel does not count it: {} ({error})", error.io_error))?;
            let (running, ended) = mpsc::channel::<()>();
            let result = Arc::clone(&result);
            thread::Builder::new()
                .name("dlpm-cost".to_owned())
                .spawn(move || {
                    let _ = result.set(count(&program, counting, &ended));
                })
                .map_err(|error| format!("no thread can be started: {error}"))?;
            Ok(running)
        });
        let running = started.inspect_err(|reason| drop(result.set(Err(reason.clone())))).ok();
        Self {
            result,
            _running: running,
        }
    }

    /// What it came to, as soon as it is known.
    pub(super) fn result(&self) -> Option<&Result<SwitchCost, String>> {
        self.result.get()
    }
}

/// Counts as long as `counting` lives.
fn count(program: &OwnedFd, counting: OwnedFd, ended: &mpsc::Receiver<()>) -> Result<SwitchCost, String> {
    let begin_ns = monotonic_ns();
    let mut counted = (0, 0);
    for _ in 0..STEPS {
        let is_over = ended.recv_timeout(STEP) == Err(RecvTimeoutError::Disconnected);
        // Its first runs: the count began at 0 with the program, and only this descriptor lets it go on.
        counted = runs(program.as_raw_fd()).ok_or("the kernel does not show it")?;
        if is_over || counted.1 >= ENOUGH_RUNS {
            break;
        }
    }
    drop(counting);
    let (ns, runs) = counted;
    // Rounded, since it is an estimate of what comes later.
    let run_ns = (ns + runs / 2).checked_div(runs).ok_or("there was no context switch")?;
    Ok(SwitchCost {
        run_ns,
        runs,
        measured_ns: monotonic_ns().saturating_sub(begin_ns),
    })
}

/// Nanoseconds in runs of a program, and runs, that the kernel has counted.
fn runs(program: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(info_of(program)).ok()?;
    Some((field(&text, "run_time_ns:")?, field(&text, "run_cnt:")?))
}

/// Where the kernel says what it knows of the program that this descriptor is.
pub(super) fn info_of(program: i32) -> String {
    format!("/proc/self/fdinfo/{program}")
}

/// A number in what `fdinfo` says of a program.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
