//! Phases: borders that are made at the moment of a mark, from the command line, a socket and Python.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::clock::monotonic_ns;
use dlpm_tests::{
    command::{Dlpm, Running},
    log::{Log, number},
    phases::{SOCKET_NAME, ask, border, connect, labels, mark, phases, python_folder},
    powercap::{Powercap, node},
    require_dlpm,
};
use serde_json::Value;
use tempfile::TempDir;

/// Turns of the issue's program.
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

struct Traced {
    _directory: TempDir,
    folder: PathBuf,
    tree: Powercap,
}

impl Traced {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            folder: directory.path().join("log"),
            _directory: directory,
            tree: Powercap::start(node()),
        }
    }

    fn trace(&self) -> Dlpm {
        Dlpm::trace(&self.folder).arg("--sysfs").arg(self.tree.sysfs())
    }

    /// A trace that has written lines.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut dlpm = self.trace().args(arguments).start();
        dlpm.wait_for_lines(&self.folder, 2);
        dlpm
    }

    fn log(&self) -> Log {
        let log = Log::read(&self.folder);
        assert!(!self.folder.join(SOCKET_NAME).exists(), "the socket was left");
        log
    }
}

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

/// A run of the issue's program: what is wrong with it.
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
fn the_border_lies_between_question_and_answer() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let mut borders = Vec::new();
    for number in 0..20 {
        let before_ns = monotonic_ns();
        let (seq, at_ns) = border(&ask(&traced.folder, format!("mark {number}\n").as_bytes()));
        assert!((before_ns..=monotonic_ns()).contains(&at_ns));
        borders.push((seq, at_ns));
    }
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = traced.log();
    log.is_complete();
    assert!(borders.is_sorted_by(|before, after| before.0 < after.0), "{borders:?}");
    for border in &borders {
        let sample = log.samples.iter().find(|sample| sample.seq() == border.0).unwrap();
        assert_eq!(sample.begin_ns(), border.1);
    }
    let phases = phases(&traced.folder);
    assert_eq!(phases.len(), 20);
    for (phase, border) in phases.iter().zip(&borders) {
        assert_eq!((phase.begin_seq, phase.begin_ns), *border);
    }
}

#[test]
fn phases_from_the_command_line_nest_and_overlap() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let folder = &traced.folder;
    for arguments in [
        &["epoch 1"][..],
        &["begin", "a"],
        &["begin", "b"],
        &["begin", "a"],
        &["end", "a"],
        &["epoch 2"],
        &["end", "a"],
        &["end", "epoch 2"],
    ] {
        let output = mark(folder, arguments).run().exited(0);
        assert_eq!((output.stdout, output.stderr), (String::new(), String::new()));
    }
    mark(folder, &["end", "a"])
        .run()
        .fails(1, &["no phase `a` is open", "open are `b`"]);
    mark(folder, &["begin", " a"])
        .run()
        .says(&["begins or ends with a space"]);
    dlpm.end_with(libc::SIGTERM).exited(0);
    let log = traced.log();
    log.is_complete();
    let phases = phases(folder);
    assert_eq!(labels(&phases), ["epoch 1", "a", "epoch 2", "b"]);
    // The one that nobody ended ends with the trace.
    assert_eq!(phases[3].end_seq, log.samples.len() as u64);
    assert_eq!(phases[0].end_seq, phases[2].begin_seq, "one border");
    assert!(phases[1].begin_seq < phases[3].begin_seq && phases[1].end_seq < phases[3].end_seq);
}

#[test]
fn clients_that_say_nothing_or_nonsense_hold_up_nobody() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let folder = &traced.folder;
    let silent: Vec<_> = (0..50).map(|_| connect(folder)).collect();
    let mut slow = connect(folder);
    slow.write_all(b"mark half").unwrap();
    drop(connect(folder));
    for (request, says) in [
        (&b"hello\n"[..], "write `mark LABEL`"),
        (b"\n", "write `mark LABEL`"),
        (b"mark \n", "it is empty"),
        (b"end x\n", "no phase `x` is open"),
        (b"mark \xff\n", "UTF-8"),
        (b"begin a\x1bb\n", "control character"),
        (&[b'x'; 100_000], "bytes at most"),
    ] {
        let answer = ask(folder, request);
        assert!(answer.starts_with("error ") && answer.contains(says), "{answer}");
    }
    border(&ask(folder, b"mark x\nmark y\n"));
    // Many at once: each has a border.
    let answers: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|number| scope.spawn(move || ask(folder, format!("begin {number}\n").as_bytes())))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for answer in &answers {
        border(answer);
    }
    let begun = Instant::now();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut slow, &mut answer).unwrap();
    assert!(
        answer.contains("no request came"),
        "{answer} after {:?}",
        begun.elapsed()
    );
    drop(silent);
    dlpm.end_with(libc::SIGINT).exited(0);
    traced.log().is_complete();
    let phases = phases(folder);
    assert_eq!(phases.len(), 101);
    assert!(phases.iter().all(|phase| phase.begin_seq < phase.end_seq));
}

#[test]
fn a_burst_of_marks_spoils_no_meter() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&["--idle-policy", "capacity"]);
    for number in 0..120 {
        border(&ask(&traced.folder, format!("mark {number}\n").as_bytes()));
    }
    thread::sleep(Duration::from_millis(200));
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = traced.log();
    log.is_complete();
    assert_eq!(
        log.segments,
        1,
        "{:?}",
        log.events.iter().find(|event| event["event"] == "zones_changed")
    );
    let lengths = || log.samples.iter().map(|sample| sample.end_ns() - sample.begin_ns());
    let short = lengths().filter(|length_ns| *length_ns < 5_000_000).count();
    assert!(short > 0, "no short interval");
    assert!(lengths().all(|length_ns| length_ns > 0));
    // What its reader sees: no power that no interval has.
    let watts: Vec<f64> = log
        .samples
        .iter()
        .map(|sample| sample.cpu["intel_power"].as_f64().unwrap())
        .collect();
    let highest = watts.iter().copied().fold(0.0, f64::max);
    assert!(highest < 1_000.0, "{highest} W of a package that draws 90 W");
    // And every joule is there.
    let root_uj = |sample: &dlpm_tests::log::Sample| number(&sample.zone("package-0").unwrap()["energy_uj"]);
    let history = traced.tree.history("package-0");
    let at = |sample: &dlpm_tests::log::Sample| {
        history.total_at(
            number(&sample.zone("package-0").unwrap()["counter_uj"]),
            sample.end_ns(),
        )
    };
    let (first, last) = (&log.samples[0], &log.samples[log.samples.len() - 1]);
    assert_eq!(log.samples[1..].iter().map(root_uj).sum::<u64>(), at(last) - at(first));
}

#[test]
fn a_command_finds_its_trace_and_scripts_run_without_one() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = std::env::var("DLPM_BIN").unwrap();
    let script = format!("{dlpm} mark load; sleep 0.1; {dlpm} mark begin train; echo $DLPM_SOCKET");
    let output = traced.trace().args(["--", "sh", "-c", &script]).run().exited(0);
    let socket = traced.folder.join(SOCKET_NAME);
    assert_eq!(Path::new(output.stdout.trim()), socket);
    assert_eq!(labels(&phases(&traced.folder)), ["train", "load"]);
    traced.log();

    // After its end.
    mark(&traced.folder, &["x"])
        .run()
        .fails(1, &["no trace writes into", "--dir"]);
    mark(&traced.folder, &["x", "--if-running"]).run().exited(0);
    let gone = Dlpm::new(["mark", "x"]).variable("DLPM_SOCKET", socket.to_str().unwrap());
    gone.run().fails(1, &["no trace listens at", "--dir"]);
    let empty = tempfile::tempdir().unwrap();
    Dlpm::new(["mark", "x"])
        .variable("DLPM_SOCKET", "")
        .inside(empty.path())
        .run()
        .fails(1, &["no trace writes into", "--dir"]);
    mark(&empty.path().join("none"), &["x"])
        .run()
        .fails(1, &["there is no folder"]);
}

#[test]
fn the_trace_in_the_current_directory_is_found() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let tree = Powercap::start(node());
    let start = |name: &str| {
        let folder = directory.path().join(name);
        let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
        dlpm.wait_for_lines(&folder, 1);
        dlpm
    };
    let here = || {
        Dlpm::new(["mark", "x"])
            .variable("DLPM_SOCKET", "")
            .inside(directory.path())
    };
    // One that was killed is none.
    start("killed").killed();
    assert!(directory.path().join("killed").join(SOCKET_NAME).exists());
    here().run().fails(1, &["no trace writes into"]);
    let first = start("first");
    here().run().exited(0);
    let second = start("second");
    here().run().fails(1, &["several traces", "first", "second", "--dir"]);
    Dlpm::new(["mark", "x"])
        .variable("DLPM_SOCKET", "")
        .inside(&directory.path().join("second"))
        .run()
        .exited(0);
    for dlpm in [first, second] {
        dlpm.end_with(libc::SIGINT).exited(0);
    }
    for name in ["first", "second"] {
        assert_eq!(labels(&phases(&directory.path().join(name))), ["x"], "{name}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_has_it_under_run() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("a".repeat(60)).join("b".repeat(60));
    let mut dlpm = Dlpm::trace(&folder).start();
    dlpm.wait_for_lines(&folder, 2);
    assert!(!folder.join(SOCKET_NAME).exists());
    let status = fs::metadata(&folder).unwrap();
    let socket = PathBuf::from(format!("/run/dlpm/{:x}-{:x}.sock", status.dev(), status.ino()));
    let status = fs::metadata(&socket).unwrap();
    assert!(status.file_type().is_socket());
    assert_eq!((status.mode() & 0o777, status.uid()), (0o600, 0));
    mark(&folder, &["x"]).run().exited(0);
    dlpm.end_with(libc::SIGINT).exited(0);
    assert!(!socket.exists());
    assert_eq!(labels(&phases(&folder)), ["x"]);
    Log::read(&folder).is_complete();
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
