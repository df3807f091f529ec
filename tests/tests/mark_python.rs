//! Phases: borders that Python programs make.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::Write;

use dlpm_tests::{
    command::Dlpm,
    log::Log,
    phases::{SOCKET_NAME, Traced, ask, border, labels, mark, phases, python_folder},
    require_dlpm,
};
use serde_json::Value;

/// Turns of the program below.
const TURNS: u64 = 50;

/// Alternates 100 ms of spinning with 100 ms of sleep, and says what its own clock counts, in ns. It spins by that clock: on a
/// busy machine 100 ms by the wall hold little of it.
const ALTERNATE: &str = "
import os, time, dlpm
spun = slept = 0
cpu = lambda: time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)
for _ in range(50):
    with dlpm.phase('spin'):
        begun = cpu()
        while cpu() < begun + 100_000_000:
            pass
        spun += cpu() - begun
    with dlpm.phase('sleep'):
        begun = cpu()
        time.sleep(0.1)
        slept += cpu() - begun
print(os.getpid(), spun, slept)
";

/// Marks a hundred times and says how long each took, in ns, but for those that a busy machine kept for a second.
const MEASURE: &str = "
import time, dlpm
took = []
for number in range(100):
    begun = time.monotonic_ns()
    if dlpm.mark(number):
        took.append(time.monotonic_ns() - begun)
    time.sleep(0.005)
print(*took)
";

fn python(traced: &Traced, program: &str) -> Dlpm {
    let search = python_folder();
    traced
        .trace()
        .variable("PYTHONPATH", search.to_str().unwrap())
        .variable("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--", "python3", "-c", program])
}

/// Not `eprintln`, which the test harness hides when a test passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// A run of that program: what is wrong with it.
fn alternate() -> Result<(), String> {
    let traced = Traced::new();
    let output = python(&traced, ALTERNATE).run().exited(0);
    let said = numbers(&output.stdout);
    let (pid, spun, slept) = (u32::try_from(said[0]).unwrap(), said[1], said[2]);
    traced.log().is_complete();

    let phases = phases(&traced.folder);
    assert_eq!(phases.len() as u64, 2 * TURNS);
    let of = |label: &str| -> u64 {
        let wanted = phases.iter().filter(|phase| phase.label == label);
        wanted.map(|phase| phase.cpu_ns_of(pid)).sum()
    };
    let (spin, sleep) = (of("spin"), of("sleep"));
    let apart = spin as f64 / spun as f64 - 1.0;
    let share = sleep as f64 / spin as f64;
    let found = format!(
        "spin: {spin} ns in the log, {spun} by the program's own clock, {:+.3} % apart; sleep: {sleep} ns ({slept} by \
         its own clock), {:.3} % of spin",
        apart * 100.0,
        share * 100.0
    );
    say(&found);
    if apart.abs() < 0.01 && share < 0.01 {
        Ok(())
    } else {
        Err(found)
    }
}

#[test]
fn a_program_that_alternates_has_its_time_in_the_phase_that_it_spins_in() {
    require_dlpm!();
    // What a hypervisor takes away is not in the program's own clock, and comes and goes. An error of dlpm's would be
    // there in every run.
    let mut runs = (0..5).map(|_| alternate());
    assert!(runs.any(|run| run.is_ok()));
}

#[test]
fn a_mark_is_quick() {
    require_dlpm!();
    let traced = Traced::new();
    let output = python(&traced, MEASURE).run().exited(0);
    let mut took = numbers(&output.stdout);
    took.sort_unstable();
    assert!(!took.is_empty(), "{}", output.stderr);
    let count = took.len();
    // No bound: other tests may keep the machine busy.
    say(&format!(
        "{count} marks from Python: median {} µs, 90 % within {} µs, longest {} µs",
        took[count / 2] / 1000,
        took[count * 9 / 10] / 1000,
        took[count - 1] / 1000
    ));
    assert!(phases(&traced.folder).len() >= count);
    traced.log().is_complete();
}

#[test]
fn a_trace_that_hangs_does_not_hang_the_program() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let socket = traced.folder.join(SOCKET_NAME);
    let program = "
import time, dlpm
begun = time.monotonic()
said = [dlpm.begin('late'), dlpm.mark('x'), dlpm.begin('x'), dlpm.end('late')]
assert said == [None, False, False, None], said
print(time.monotonic() - begun)
";
    dlpm.signal(libc::SIGSTOP);
    let output = std::process::Command::new("python3")
        .args(["-c", program])
        .env("PYTHONPATH", python_folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DLPM_SOCKET", &socket)
        .output()
        .unwrap();
    mark(&traced.folder, &["y"])
        .run()
        .fails(1, &["has not answered for 2 s"]);
    dlpm.signal(libc::SIGCONT);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("does not answer").count(), 2, "{stderr}");
    let seconds: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(seconds > 1.9, "{seconds}");
    border(&ask(&traced.folder, b"end y\n"));
    dlpm.end_with(libc::SIGINT).exited(0);
    // What was asked for is done, late, in its order.
    let mut ended = phases(&traced.folder);
    ended.sort_by(|a, b| a.label.cmp(&b.label));
    assert_eq!(labels(&ended), ["late", "y"]);
    traced.log();
}

#[test]
fn python_does_nothing_without_a_trace() {
    require_dlpm!();
    let run = |socket: Option<&str>| {
        let program = "
import dlpm
with dlpm.phase('x'):
    pass
@dlpm.phase('y')
def f():
    return 7
assert f() == 7
try:
    with dlpm.phase('z'):
        raise KeyError
except KeyError:
    pass
print(dlpm.mark('m'), dlpm.begin('b'), dlpm.end('e'))
";
        let mut command = std::process::Command::new("python3");
        command
            .args(["-W", "error", "-B", "-c", program])
            .env("PYTHONPATH", python_folder());
        match socket {
            Some(socket) => command.env("DLPM_SOCKET", socket),
            None => command.env_remove("DLPM_SOCKET"),
        };
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let nothing = (true, "False False False\n".to_owned(), String::new());
    assert_eq!(run(None), nothing);
    assert_eq!(run(Some("/nowhere/at/all")), nothing);
}

#[test]
fn the_documented_python_snippet_works() {
    require_dlpm!();
    let traced = Traced::new();
    let documented = include_str!("../../docs/phases.md");
    let (_, rest) = documented.split_once("```python\nimport os, socket\n").unwrap();
    let (snippet, _) = rest.split_once("```").unwrap();
    let output = traced
        .trace()
        .args(["--", "python3", "-c", &format!("import os, socket\n{snippet}")])
        .run()
        .exited(0);
    assert_eq!(output.stdout, "");
    assert_eq!(labels(&phases(&traced.folder)), ["epoch 3"]);
    traced.log();
}

#[test]
fn refusals_reach_python_as_warnings_only() {
    require_dlpm!();
    let traced = Traced::new();
    let program = "
import dlpm
print(dlpm.end('x'), dlpm.mark('a\\nb'), dlpm.mark(''), dlpm.mark('good'), dlpm.end('good'))
";
    let output = python(&traced, program).run().exited(0);
    assert_eq!(output.stdout, "False False False True True\n");
    assert!(output.stderr.contains("no phase `x` is open"), "{}", output.stderr);
    let seen: Vec<Value> = Log::read(&traced.folder).events;
    assert_eq!(seen.len(), 2);
}
