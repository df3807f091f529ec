//! The package for Python: what it measures through the agent, as a user without root.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dlpm_tests::{
    agent::{SOCKET, agent, folder, wait_for_intervals},
    command::{NOBODY, Running, world_readable},
    kernel,
    powercap::{Powercap, node},
    python::{PRELUDE, package, said},
    require_dlpm, require_program,
};
use tempfile::TempDir;

/// Names the wheel; `cargo xtask test` makes one.
const WHEEL: &str = "DLPM_WHEEL";

/// An agent, and a place from which everybody can import the package.
struct Measured {
    _tree: Powercap,
    state: TempDir,
    package: TempDir,
    agent: Running,
}

impl Measured {
    fn start() -> Self {
        let (state, tree) = (folder(), Powercap::start(node()));
        let mut agent = agent(&tree, state.path()).start();
        wait_for_intervals(&mut agent, state.path(), 2);
        Self {
            _tree: tree,
            state,
            package: package(),
            agent,
        }
    }

    fn socket(&self) -> PathBuf {
        self.state.path().join(SOCKET)
    }

    fn python(&self, program: &str) -> Command {
        python(&self.package, &self.socket(), program)
    }

    /// Runs a program: what it printed. It must not have warned.
    #[track_caller]
    fn says(&self, program: &str) -> String {
        let (stdout, stderr) = said(&mut self.python(program));
        assert_eq!(stderr, "", "{stdout}");
        stdout
    }
}

/// A program of a user without root. Warnings of Python itself are errors.
fn python(package: &TempDir, socket: &Path, program: &str) -> Command {
    // One that this user can reach, as root's own need not be.
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-B", "-W", "error", "-c", &format!("{PRELUDE}{program}")])
        .env("PYTHONPATH", package.path())
        .env("DLPM_AGENT", socket)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    python
}

#[test]
fn cpu_time_agrees_with_the_clock_of_the_process() {
    require_dlpm!();
    let measured = Measured::start();
    let program = "
begun = cpu_ns()
with dlpm.measure() as m:
    spin(1)
spun = cpu_ns() - begun
assert m.complete and m.cpu_seconds == m.cpu_ns / 1e9 and m.seconds == m.length_ns / 1e9, m
assert m.cpu_joules > 0 and m.is_estimate is False and m.gpu_joules is None, m
assert set(m.energy_uj) | set(m.without) == {'package-0/core', 'package-0/uncore', 'package-0/rest', 'dram-0'}, m.energy_uj
assert m.methods['package-0/core'] == 'cpu_time' and m.kinds['package-0/rest'] == 'rest', m.methods
assert abs(m.joules - sum(m.energy_uj.values()) / 1e6) < 1e-9
assert ' J' in str(m) and '<table>' in m._repr_html_(), m
print(m.cpu_ns / spun - 1)
";
    // What a hypervisor takes away is not in the program's own clock, and comes and goes. An error of dlpm's would be
    // there in every run.
    let mut apart: Vec<f64> = Vec::new();
    while apart.len() < 10 && apart.iter().all(|apart| apart.abs() >= 0.01) {
        apart.push(measured.says(program).trim().parse().unwrap());
    }
    let _ = writeln!(std::io::stderr(), "\napart: {apart:?}");
    assert!(apart.iter().any(|apart| apart.abs() < 0.01), "{apart:?}");
}

#[test]
fn entering_and_leaving_are_quick() {
    require_dlpm!();
    let measured = Measured::start();
    let program = "
took = []
for _ in range(50):
    begun = time.monotonic_ns()
    with dlpm.measure() as m:
        pass
    took.append(time.monotonic_ns() - begun)
    assert m.complete
print(*sorted(took))
";
    let stdout = measured.says(program);
    let took: Vec<u64> = stdout.split_whitespace().map(|ns| ns.parse().unwrap()).collect();
    // No bound: other tests may keep the machine busy, and dlpm is not optimised here.
    let _ = writeln!(
        std::io::stderr(),
        "\nentering and leaving: median {} µs, shortest {} µs",
        took[25] / 1000,
        took[0] / 1000
    );
}

#[test]
fn measurements_nest_and_run_in_threads() {
    require_dlpm!();
    let program = "
with dlpm.measure() as outer:
    spin(0.1)
    with dlpm.measure() as inner:
        spin(0.2)
assert 0.19 < inner.cpu_seconds < outer.cpu_seconds and outer.cpu_seconds > 0.29, (inner, outer)
for name, part in inner.energy_uj.items():
    assert part <= outer.energy_uj[name], (inner, outer)

# Each thread measures the whole process.
together = threading.Barrier(3)
measured = []
def run():
    together.wait()
    with dlpm.measure() as m:
        together.wait()
        spin(0.1)
        together.wait()
    measured.append(m)
threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(measured) == 3 and all(m.complete and m.cpu_seconds > 0.09 for m in measured), measured

# The same measurement again, nested in itself, and ended too often.
again = dlpm.Measurement()
for seconds in (0.05, 0.02):
    with again:
        with again:
            spin(seconds)
        assert again.joules is None
    again.end()
    assert again.complete and seconds * 0.9 < again.cpu_seconds < 0.049 + seconds, again
try:
    with dlpm.measure() as failed:
        raise KeyError
except KeyError:
    pass
assert failed.complete
";
    Measured::start().says(program);
}

#[test]
fn functions_are_measured_call_by_call() {
    require_dlpm!();
    let program = "
import asyncio
@dlpm.measured
def work(seconds):
    'Spins.'
    spin(seconds)
    return seconds
assert work.__doc__ == 'Spins.' and work.energy.count == 0
nothing(work.energy)
# One after another, without a pause: none takes the processes of the next one away.
calls = []
for _ in range(20):
    assert work(0.01) == 0.01
    calls.append(work.energy.last)
assert work.energy.count == 20 and work.energy.complete and work.energy.cpu_seconds > 0.19, work.energy
assert all(call.cpu_ns >= 9_000_000 for call in calls), [call.cpu_ns for call in calls]
assert 0.009 < work.energy.last.cpu_seconds < work.energy.cpu_seconds / 10, work.energy.last
@dlpm.measured()
async def wait():
    spin(0.05)
    await asyncio.sleep(0.01)
    return 'waited'
assert asyncio.run(wait()) == 'waited' and wait.energy.cpu_seconds > 0.049 and wait.energy.seconds > 0.059
@dlpm.measured
def count():
    for number in range(3):
        spin(0.02)
        yield number
assert list(count()) == [0, 1, 2] and count.energy.cpu_seconds > 0.059, count.energy
@dlpm.measured
def fails():
    raise KeyError
try:
    fails()
except KeyError:
    pass
assert fails.energy.count == 1 and fails.energy.complete
";
    Measured::start().says(program);
}

#[test]
fn processes_that_are_forked_are_measured_and_measure() {
    require_dlpm!();
    let program = "
import multiprocessing, pickle
def child(seconds):
    with dlpm.measure() as m:
        spin(seconds)
    return m
with dlpm.measure() as m:
    ended = dlpm.measure()
    with ended:
        spin(0.02)
    with multiprocessing.get_context('fork').Pool(2) as pool:
        parts = pool.map(child, [0.1, 0.2])
    # Its figures were not read before the fork, and the children have not taken them away.
    assert ended.complete and ended.cpu_seconds > 0.019, ended
assert m.complete and all(part.complete for part in parts), (m, parts)
assert 0.09 < parts[0].cpu_seconds < 0.19 < parts[1].cpu_seconds < 0.29, parts
assert m.cpu_seconds > 0.31, m
# A child that leaves what its parent entered does not end it there.
with dlpm.measure() as m:
    if os.fork() == 0:
        m.end()
        nothing(m)
        os._exit(0)
    assert os.wait()[1] == 0
    spin(0.05)
assert m.complete and m.cpu_seconds > 0.049, m
again = pickle.loads(pickle.dumps(m))
assert (again.energy_uj, again.cpu_ns, str(again)) == (m.energy_uj, m.cpu_ns, str(m))
# One process by its pid, without this one.
other = os.fork()
if other == 0:
    spin(30)
    os._exit(0)
with dlpm.measure(pid=other) as m:
    time.sleep(0.3)
os.kill(other, 9)
os.wait()
spent = m.cpu_ns
assert m.complete and spent > 0, m
";
    Measured::start().says(program);
}

#[test]
fn refusals_are_one_warning_and_no_figures() {
    require_dlpm!();
    let measured = Measured::start();
    for (pid, reason) in [("1", "no process 1 of yours"), ("'x'", "WARNING dlpm not measured")] {
        let program =
            format!("for _ in range(3):\n    with dlpm.measure(pid={pid}) as m:\n        pass\n    nothing(m)");
        let (_, stderr) = said(&mut measured.python(&program));
        assert!(stderr.contains(reason) && stderr.lines().count() == 1, "{stderr}");
    }
    // More at once than a user may have.
    let program = "
import contextlib
with contextlib.ExitStack() as stack:
    all_of_them = [stack.enter_context(dlpm.measure()) for _ in range(20)]
assert sum(m.complete for m in all_of_them) == 16
nothing(all_of_them[-1])
";
    let (_, stderr) = said(&mut measured.python(program));
    assert!(
        stderr.contains("which is the maximum") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn an_agent_that_goes_away_is_one_warning() {
    require_dlpm!();
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let measured = Measured::start();
        let program = "
@dlpm.measured
def function():
    pass
function()
with dlpm.measure() as outer:
    with dlpm.measure() as inner:
        print('ready', flush=True)
        sys.stdin.readline()
nothing(inner)
nothing(outer)
assert function.energy.complete
";
        let mut child = measured
            .python(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        measured.agent.end_with(signal);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(
            stderr.contains("the agent stopped") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

#[test]
fn an_agent_that_hangs_is_left_alone() {
    require_dlpm!();
    let measured = Measured::start();
    measured.agent.signal(libc::SIGSTOP);
    let program = "
begun = time.monotonic()
for _ in range(100):
    with dlpm.measure() as m:
        pass
    nothing(m)
# 5 s for the first, and no time for the others.
assert time.monotonic() - begun < 100
";
    let (_, stderr) = said(&mut measured.python(program));
    measured.agent.signal(libc::SIGCONT);
    assert!(
        stderr.contains("does not answer") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn without_an_agent_nothing_is_measured_with_one_warning() {
    require_program!();
    let program = "
for _ in range(3):
    with dlpm.measure() as m:
        pass
    nothing(m)
@dlpm.measured
def function():
    return 7
assert function() == 7
nothing(function.energy)
";
    let (package, place) = (package(), tempfile::tempdir().unwrap());
    let socket = world_readable(&place).path().join("agent.sock");
    let mut is_refused = false;
    for _ in 0..2 {
        let (_, stderr) = said(&mut python(&package, &socket, program));
        assert!(
            stderr.contains("DLPM_AGENT") && stderr.lines().count() == 1,
            "{is_refused}: {stderr}"
        );
        // And again with what a killed agent leaves.
        if !is_refused {
            drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
            is_refused = true;
        }
    }
}

#[test]
fn the_examples_in_its_docstrings_are_right() {
    require_dlpm!();
    let program = "
import doctest, importlib, pkgutil
for module in pkgutil.iter_modules(dlpm.__path__):
    if module.name == 'keras':
        continue  # It needs Keras.
    result = doctest.testmod(importlib.import_module('dlpm.' + module.name))
    assert result.failed == 0, module
    print(module.name, result.attempted)
";
    let stdout = Measured::start().says(program);
    for module in ["figures", "measuring", "reading"] {
        assert!(
            stdout.contains(module) && !stdout.contains(&format!("{module} 0")),
            "{stdout}"
        );
    }
}

#[test]
fn the_wheel_installs_and_the_examples_run() {
    require_dlpm!();
    let Some(wheel) = env::var_os(WHEEL) else {
        return kernel::skip("DLPM_WHEEL names no wheel; `cargo xtask test` sets it");
    };
    let environment = tempfile::tempdir().unwrap();
    said(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(world_readable(&environment).path()),
    );
    let bin = environment.path().join("bin");
    said(
        Command::new(bin.join("pip"))
            .args(["--disable-pip-version-check", "install", "--quiet", "--no-index"])
            .arg(wheel),
    );
    let measured = Measured::start();
    let example = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let run = |program: &str| {
        let mut command = Command::new(bin.join("python3"));
        command.env("DLPM_AGENT", measured.socket()).current_dir("/").arg("-B");
        let (stdout, stderr) = said(
            command
                .arg(example(program))
                .args(["--points", "2000", "--epochs", "1"]),
        );
        assert_eq!(stderr, "", "{stdout}");
        stdout
    };
    assert!(run("train.py").contains("epoch 1"));
    let stdout = run("measure.py");
    assert!(stdout.contains(" J ") && stdout.contains("epoch 1"), "{stdout}");
    let (installed, _) = said(
        Command::new(bin.join("python3"))
            .args(["-c", "import dlpm; print(dlpm.__file__)"])
            .current_dir("/"),
    );
    assert!(installed.contains("site-packages"), "{installed}");
}
