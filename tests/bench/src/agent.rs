//! What the agent costs with many tenants, beside a scanner of `/proc` and node_exporter; and a week of it.

mod clients;
mod week;

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Programs,
    stats::{Spread, float},
};
use dlpm_tests::{
    cgroup::Cgroup,
    worker::{Worker, cpu_clock_ns},
};

pub use clients::run as clients;
pub use week::run as week;

/// CPU time of the agent in a second, in thousandths of a core, at most.
pub const LARGEST_PERMILLE: f64 = 2.0;

/// Memory of the agent and its network process at their peak, at most, in KiB.
pub const LARGEST_KIB: u64 = 40 << 10;

/// With five times the processes that sleep, at most.
pub const LARGEST_RATIO: f64 = 1.2;

/// node_exporter of Debian.
const NODE_EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = super::at_least_one)]
    pub rounds: usize,
    /// Tenants with a cgroup each
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1900))]
    pub tenants: u32,
    /// Sleeping processes in them; the agent also with five times as many
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sleepers: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
}

/// CPU time in ns.
#[derive(Clone, Copy, Debug)]
struct Cost {
    agent_second_ns: f64,
    agent_scrape_ns: f64,
    scanner_second_ns: f64,
    exporter_scrape_ns: Option<f64>,
    agent_kib: u64,
    series: usize,
}

/// Tenants with processes that sleep.
struct Crowd {
    worker: Worker,
    _cgroups: Vec<Cgroup>,
}

impl Crowd {
    fn start(programs: &Programs, above: &Cgroup, tenants: u32, sleepers: u32) -> Result<Self> {
        let program = programs
            .worker
            .to_str()
            .context("the path of dlpm-worker is not UTF-8")?;
        let cgroups: Vec<Cgroup> = (0..tenants)
            .map(|number| above.create_inside(&format!("docker-{number:064x}.scope")))
            .collect();
        let mut worker = Worker::start(program, &["sleepers", &sleepers.to_string()]);
        worker.go();
        ensure!(worker.line() == "sleeping", "the sleepers could not be started");
        for (pid, cgroup) in children(worker.pid())?.iter().zip(cgroups.iter().cycle()) {
            cgroup.add(*pid);
        }
        Ok(Self {
            worker,
            _cgroups: cgroups,
        })
    }

    fn end(self) {
        self.worker.finish();
    }
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
}

/// A server of metrics that is killed when this is dropped.
pub(super) struct Server {
    child: Child,
    port: u16,
    _stderr: Option<BufReader<ChildStderr>>,
}

impl Server {
    /// dlpm's agent with these further options, on estimated energy, with its state in a folder.
    pub(super) fn agent(dlpm: &Path, folder: &Path, options: &[&str]) -> Result<Self> {
        let mut child = Command::new(dlpm)
            .args([
                "agent",
                "--estimate",
                "idle=40,busy=12",
                "--gpu",
                "none",
                "--listen",
                "127.0.0.1:0",
            ])
            .arg("--state-dir")
            .arg(folder)
            .arg("--socket")
            .arg(folder.join("agent.sock"))
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", dlpm.display()))?;
        let mut stderr = BufReader::new(child.stderr.take().context("no standard error")?);
        loop {
            let mut line = String::new();
            if stderr.read_line(&mut line)? == 0 {
                bail!("the agent ended at its start: {}", child.wait()?);
            }
            if let Some((_, port)) = line
                .trim_end()
                .trim_end_matches("/metrics")
                .rsplit_once("http://127.0.0.1:")
            {
                let port = port.parse().with_context(|| line.clone())?;
                return Ok(Self {
                    child,
                    port,
                    _stderr: Some(stderr),
                });
            }
        }
    }

    fn node_exporter() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(NODE_EXPORTER)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("node_exporter cannot be started")?;
        let server = Self {
            child,
            port,
            _stderr: None,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while server.scrape().is_err() {
            ensure!(Instant::now() < end, "node_exporter does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// Its processes.
    fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = children(self.child.id())?;
        pids.push(self.child.id());
        Ok(pids)
    }

    fn cpu_ns(&self) -> Result<f64> {
        Ok(self.pids()?.into_iter().map(|pid| float(cpu_clock_ns(pid))).sum())
    }

    fn peak_kib(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in self.pids()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line
                .context("no VmHWM")?
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()?;
            sum += kib;
        }
        Ok(sum)
    }

    fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(
            text.starts_with("HTTP/1.1 200"),
            "no answer: {}",
            text.lines().next().unwrap_or("")
        );
        Ok(text)
    }

    /// CPU time over some seconds, with a scrape in each or without.
    fn over(&self, seconds: u64, scrapes: bool) -> Result<f64> {
        let begin_ns = self.cpu_ns()?;
        let begin = Instant::now();
        for second in 1..=seconds {
            if scrapes {
                self.scrape()?;
            }
            let next = begin + Duration::from_secs(second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(self.cpu_ns()? - begin_ns)
    }
}

impl Server {
    /// Asks it to end, and waits until it has.
    pub(super) fn end(mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("a server cannot be ended")?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a tool does that reads `/proc` once a second: usage and cgroup of every process.
fn scan() -> Result<f64> {
    let begin_ns = cpu_clock_ns(std::process::id());
    let mut bytes = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            for file in ["stat", "cgroup"] {
                bytes += fs::read(entry.path().join(file)).map_or(0, |text| text.len());
            }
        }
    }
    ensure!(bytes > 0, "/proc is empty");
    Ok(float(cpu_clock_ns(std::process::id()) - begin_ns))
}

fn measure(programs: &Programs, options: &Options, sleepers: u32) -> Result<Cost> {
    let above = Cgroup::create("bench-agent");
    let crowd = Crowd::start(programs, &above, options.tenants, sleepers)?;
    let folder = tempfile::tempdir()?;
    let agent = Server::agent(&programs.dlpm, folder.path(), &[])?;
    // Every tenant has its series, and what a start costs is over.
    let wanted = usize::try_from(options.tenants)?;
    let end = Instant::now() + Duration::from_secs(60);
    let series = loop {
        let text = agent.scrape()?;
        let tenants = text
            .lines()
            .filter(|line| line.starts_with("dlpm_tenant_cpu_seconds_total{"))
            .count();
        if tenants >= wanted {
            break text.lines().filter(|line| !line.starts_with('#')).count();
        }
        ensure!(Instant::now() < end, "{tenants} of {wanted} tenants have a series");
        thread::sleep(Duration::from_millis(200));
    };
    thread::sleep(Duration::from_secs(3));
    let seconds = float(options.seconds);
    let alone_ns = agent.over(options.seconds, false)?;
    let scraped_ns = agent.over(options.seconds, true)?;
    let agent_kib = agent.peak_kib()?;
    drop(agent);
    let scanner_second_ns = scan()?;
    let exporter_scrape_ns = match Path::new(NODE_EXPORTER).exists() {
        true => Some(Server::node_exporter()?.over(options.seconds, true)? / seconds),
        false => None,
    };
    crowd.end();
    Ok(Cost {
        agent_second_ns: alone_ns / seconds,
        agent_scrape_ns: (scraped_ns - alone_ns) / seconds,
        scanner_second_ns,
        exporter_scrape_ns,
        agent_kib,
        series,
    })
}

/// Measures and prints. Whether everything is within its bounds.
///
/// # Errors
///
/// Where the agent cannot run.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let counts = [options.sleepers, options.sleepers * 5];
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for (sleepers, costs) in counts.iter().zip(&mut costs) {
            let cost = measure(programs, options, *sleepers)?;
            eprintln!(
                "round {round}, {sleepers} processes: {:.2} ms a second, {:.2} ms a scrape",
                cost.agent_second_ns / 1e6,
                cost.agent_scrape_ns / 1e6
            );
            costs.push(cost);
        }
    }
    let spread = |values: Vec<f64>| Spread::of(values).context("nothing was measured");
    let column = |costs: &[Cost], value: fn(&Cost) -> f64| spread(costs.iter().map(value).collect());
    let mut table = String::from(
        "| processes asleep | agent, ms of CPU time a second | agent, ms a scrape | scanner of /proc, ms a second | \
         node_exporter, ms a scrape |\n|---|---|---|---|---|\n",
    );
    let mut spreads = Vec::new();
    let mut cheaper = Some(true);
    for (sleepers, costs) in counts.iter().zip(&costs) {
        let second = column(costs, |cost| cost.agent_second_ns)?;
        let scrape = column(costs, |cost| cost.agent_scrape_ns)?;
        let scanner = column(costs, |cost| cost.scanner_second_ns)?;
        let exporter: Vec<f64> = costs.iter().filter_map(|cost| cost.exporter_scrape_ns).collect();
        let exporter = Spread::of(exporter);
        cheaper = cheaper
            .zip(exporter.as_ref())
            .map(|(so_far, exporter)| so_far && scrape.median <= exporter.median);
        let _ = writeln!(
            table,
            "| {sleepers} | {} | {} | {} | {} |",
            second.show(1e-6, 2),
            scrape.show(1e-6, 2),
            scanner.show(1e-6, 2),
            exporter.map_or_else(|| "not installed".to_owned(), |exporter| exporter.show(1e-6, 2)),
        );
        spreads.push((second, scrape));
    }
    let all = || costs.iter().flatten();
    let peak_kib = all().map(|cost| cost.agent_kib).max().unwrap_or(0);
    let series = all().map(|cost| cost.series).max().unwrap_or(0);
    println!(
        "{}. {} tenants with {series} series, intervals of 1 s, {} s each, median (smallest to largest) of {} rounds.\n\n\
         {table}",
        super::machine()?,
        options.tenants,
        options.seconds,
        options.rounds
    );
    let [(few_second, few_scrape), (many_second, many_scrape)] = spreads.as_slice() else {
        bail!("two columns are expected");
    };
    let permille = few_second.median / 1e6;
    // What else the machine does only adds to a round, so the smallest ones tell what grows.
    let grows = (many_second.min / few_second.min, many_scrape.min / few_scrape.min);
    println!(
        "The agent uses {:.2} % of a core (bound {:.2} %), and {} MiB at its peak with its network process (bound {} MiB). \
         With five times the processes, the smallest of the rounds: {:.2} of that a second and {:.2} a scrape (bound \
         {LARGEST_RATIO} each).",
        permille / 10.0,
        LARGEST_PERMILLE / 10.0,
        peak_kib >> 10,
        LARGEST_KIB >> 10,
        grows.0,
        grows.1,
    );
    match cheaper {
        Some(cheaper) => println!(
            "A scrape costs {} than one of node_exporter.",
            if cheaper { "less" } else { "more" }
        ),
        None => println!("node_exporter is not installed, so a scrape is compared with nothing."),
    }
    Ok(permille <= LARGEST_PERMILLE
        && peak_kib <= LARGEST_KIB
        && grows.0 <= LARGEST_RATIO
        && grows.1 <= LARGEST_RATIO
        && cheaper == Some(true))
}
