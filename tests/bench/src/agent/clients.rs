//! What those cost that use the agent's socket: recordings, and `dlpm top` beside htop.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Crowd, Options, Server};
use crate::{
    Programs,
    stats::{Spread, float},
};
use dlpm_tests::{
    cgroup::Cgroup,
    pty::InTerminal,
    socket::{Recording, Who},
    worker::{Worker, cpu_clock_ns},
};

/// What one more recording costs at most, as a part of what the agent with one costs.
pub const LARGEST_RATIO: f64 = 0.1;

/// CPU time of `dlpm top` as a part of htop's, at most.
pub const LARGEST_OF_HTOP: f64 = 1.0;

/// A user with recordings.
const USER: u32 = 64_101;

/// Recordings beside the first one.
const MORE: usize = 10;

/// Processes that run.
const BUSY: usize = 30;

const HTOP: &str = "/usr/bin/htop";

/// CPU time in a second, in ns.
#[derive(Clone, Copy, Debug)]
struct Cost {
    alone: f64,
    one: f64,
    many: f64,
    top: f64,
    htop: Option<f64>,
}

impl Cost {
    fn another(&self) -> f64 {
        (self.many - self.one) / float(MORE as u64) / self.one
    }
}

fn over(seconds: u64, cpu_ns: impl Fn() -> Result<f64>) -> Result<f64> {
    let begin_ns = cpu_ns()?;
    thread::sleep(Duration::from_secs(seconds));
    Ok((cpu_ns()? - begin_ns) / float(seconds))
}

/// CPU time of a program on a screen.
fn on_screen(command: Command, seconds: u64) -> f64 {
    let screen = InTerminal::start(command, 120, 40);
    // What a start costs is over.
    thread::sleep(Duration::from_secs(3));
    let begin_ns = cpu_clock_ns(screen.pid());
    thread::sleep(Duration::from_secs(seconds));
    float(cpu_clock_ns(screen.pid()) - begin_ns) / float(seconds)
}

fn measure(programs: &Programs, options: &Options) -> Result<Cost> {
    let above = Cgroup::create("bench-clients");
    let crowd = Crowd::start(programs, &above, options.tenants, options.sleepers)?;
    let busy: Vec<Worker> = busy(programs)?;
    let folder = tempfile::tempdir()?;
    let agent = Server::agent(&programs.dlpm, folder.path(), &[])?;
    let socket = folder.path().join("agent.sock");
    thread::sleep(Duration::from_secs(3));
    let record = |count: usize| -> Vec<Recording> {
        let all: Vec<Recording> = (0..count).map(|_| Who::user(USER).record(&socket, "{}")).collect();
        // What a beginning costs is over.
        thread::sleep(Duration::from_secs(2));
        all
    };
    let agent_cpu = || agent.cpu_ns();
    let alone = over(options.seconds, agent_cpu)?;
    let first = record(1);
    let one = over(options.seconds, agent_cpu)?;
    let more = record(MORE);
    let many = over(options.seconds, agent_cpu)?;
    drop((first, more));
    let mut command = Command::new(&programs.dlpm);
    command.arg("top").arg("--agent").arg(&socket);
    let top = on_screen(command, options.seconds);
    let htop = Path::new(HTOP).exists().then(|| {
        let mut command = Command::new(HTOP);
        // In tenths of a second.
        command
            .args(["-d", "10"])
            .env("HOME", folder.path())
            .stdin(Stdio::null());
        on_screen(command, options.seconds)
    });
    drop(agent);
    drop(busy);
    crowd.end();
    Ok(Cost {
        alone,
        one,
        many,
        top,
        htop,
    })
}

/// Processes that run for half a millisecond in every twenty, so that intervals have rows. They end by themselves if the
/// benchmark does not end them.
fn busy(programs: &Programs) -> Result<Vec<Worker>> {
    let program = programs
        .worker
        .to_str()
        .context("the path of dlpm-worker is not UTF-8")?;
    let start = |_| {
        let mut worker = Worker::start(program, &["bursts", "1", "500", "20000", "600000"]);
        worker.go();
        worker
    };
    Ok((0..BUSY).map(start).collect())
}

/// Measures and prints. Whether everything is within its bounds.
///
/// # Errors
///
/// Where the agent cannot run.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let mut costs = Vec::new();
    for round in 1..=options.rounds {
        let cost = measure(programs, options)?;
        eprintln!(
            "round {round}: {:.2} ms a second alone, {:.2} with a recording, {:.2} with {} more",
            cost.alone / 1e6,
            cost.one / 1e6,
            cost.many / 1e6,
            MORE
        );
        costs.push(cost);
    }
    let spread = |values: Vec<f64>| Spread::of(values).context("nothing was measured");
    let column = |value: fn(&Cost) -> f64| spread(costs.iter().map(value).collect());
    let another = column(Cost::another)?;
    println!(
        "CPU time of the agent in a second, in ms, {} tenants, {} sleeping processes",
        options.tenants, options.sleepers
    );
    for (what, value) in [
        ("without recordings", column(|cost| cost.alone)?),
        ("with one of a user", column(|cost| cost.one)?),
        ("with eleven", column(|cost| cost.many)?),
        ("dlpm top itself", column(|cost| cost.top)?),
    ] {
        println!("  {what:<22} {}", value.show(1e-6, 2));
    }
    println!(
        "one more recording, as a part of the agent with one: {}",
        another.show(1.0, 3)
    );
    let mut within = another.median <= LARGEST_RATIO;
    let htop: Option<Vec<f64>> = costs.iter().map(|cost| Some(cost.top / cost.htop?)).collect();
    match htop {
        Some(ratios) => {
            let ratio = spread(ratios)?;
            println!("dlpm top beside htop: {} of its CPU time", ratio.show(1.0, 2));
            within &= ratio.median <= LARGEST_OF_HTOP;
        }
        None => {
            println!("dlpm top was not compared: there is no htop here");
            within = false;
        }
    }
    Ok(within)
}
