//! What a fleet asks of Prometheus and of VictoriaMetrics: agents are simulated, and real servers scrape them.
//!
//! What each agent serves is made by the agent's own code: intervals are attributed, counted, and written as a scrape. A
//! scrape finds [`STEP_S`] more seconds counted, whatever time has passed, so that values grow as they would.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dlpm::{
    agent::{
        admission::Admission,
        counters::Counters,
        exposition::{Format, render},
        facts::{Facts, Snapshot},
    },
    attribution::{Options as Attribution, attribute, energy_tree::Carries},
    interval::{CpuInterval, Interval, MeterSource, Process, ProcessId, Usage, ZoneKind, ZoneReading},
    tenants::{Kind, Label, Tenant},
};

/// Seconds that an agent counts from one scrape to the next: the interval of a scrape that is common.
const STEP_S: u64 = 15;

/// CPUs of a node.
const CPUS: u32 = 64;

/// Threads that answer scrapes.
const THREADS: usize = 4;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Agents
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = super::at_least_one)]
    agents: usize,
    /// Tenants of each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = super::at_least_one)]
    tenants: usize,
    /// Seconds from one scrape to the next; values grow by 15 s all the same
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// Scrapes of each agent until the first look, and from there to the second
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    scrapes: u64,
    /// Prometheus
    #[arg(long, value_name = "PATH", default_value = "prometheus")]
    prometheus: PathBuf,
    /// VictoriaMetrics
    #[arg(long, value_name = "PATH", default_value = "victoria-metrics")]
    victoria_metrics: PathBuf,
}

/// One simulated agent.
struct Agent {
    tenants: Vec<Arc<Tenant>>,
    counters: Counters,
    admission: Admission,
    carries: Carries,
    facts: Facts,
    seq: u64,
    random: u64,
}

impl Agent {
    fn new(number: usize, tenants: usize) -> Self {
        let tenant = |index: usize| {
            let id = (number * tenants + index).to_string();
            // Half are jobs, and the others are containers and units, as on a shared node.
            let (kind, id, labels) = match index % 4 {
                0 | 1 => (
                    Kind::Slurm,
                    id.clone(),
                    vec![(Label::SlurmJobId, id), (Label::User, format!("user{}", index % 20))],
                ),
                2 => (
                    Kind::Docker,
                    format!("{id:0>64}"),
                    vec![(Label::ContainerName, format!("web-{index}"))],
                ),
                _ => (
                    Kind::Unit,
                    format!("unit-{index}.service"),
                    vec![(Label::Unit, format!("unit-{index}.service"))],
                ),
            };
            let mut tenant = Tenant::of(kind, &id);
            tenant.labels = labels.into_iter().map(|(label, value)| (label, value.into())).collect();
            Arc::new(tenant)
        };
        Self {
            tenants: (0..tenants).map(tenant).collect(),
            counters: Counters::default(),
            admission: Admission::new(2000),
            carries: Carries::default(),
            facts: Facts {
                host_name: format!("node{number}").into(),
                ..Facts::default()
            },
            seq: 0,
            random: number as u64 + 1,
        }
    }

    /// The same in every run (Marsaglia, Xorshift RNGs, 2003).
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// What a scrape gets after [`STEP_S`] more seconds.
    fn scrape(&mut self, format: Format) -> Vec<u8> {
        let interval = self.interval();
        let ledger = attribute(&interval, &Attribution::default(), &self.carries);
        self.carries = self.carries.after(&ledger);
        self.counters.add(&ledger, &mut self.admission);
        self.seq += 1;
        let snapshot = Snapshot {
            counters: self.counters.clone(),
            facts: self.facts.clone(),
            ..Snapshot::default()
        };
        render(&snapshot, format, "bench")
    }

    fn interval(&mut self) -> Interval {
        let length_ns = STEP_S * 1_000_000_000;
        let (begin_ns, end_ns) = (self.seq * length_ns, (self.seq + 1) * length_ns);
        let mut zone = |name: &str, kind: ZoneKind, watts: u64| ZoneReading {
            zone: name.to_owned(),
            kind,
            package: Some(0),
            energy_uj: Ok((watts * 1_000_000 + self.below(watts * 200_000)) * STEP_S),
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Powercap,
        };
        let zones = vec![
            zone("package-0", ZoneKind::Package, 200),
            zone("package-0/core", ZoneKind::Core, 130),
            zone("dram-0", ZoneKind::Dram, 30),
        ];
        let mut interval = Interval {
            seq: self.seq,
            begin_ns,
            end_ns,
            end_unix_ns: i64::try_from(end_ns).unwrap_or(i64::MAX),
            zones,
            ..Interval::default()
        };
        let mut left_ns = length_ns * u64::from(CPUS);
        for (index, tenant) in self.tenants.clone().into_iter().enumerate() {
            // A third hardly runs.
            let most_ns = if index % 3 == 0 { 1_000_000 } else { length_ns };
            let ns = self.below(most_ns).min(left_ns);
            left_ns -= ns;
            let number = index as u64;
            let process = ProcessId {
                tgid: u32::try_from(index).unwrap_or(0) + 2,
                start_ns: number,
            };
            interval.usage.push(Usage {
                process,
                cgroup_id: number + 10,
                cpu: 0,
                ns,
                shared_ns: 0,
                counts: dlpm::interval::Counts::default(),
            });
            interval.processes.insert(process, Process::default().into());
            interval.cgroups.insert(number + 10, format!("/{number}"));
            interval.tenants.insert(format!("/{number}"), tenant);
        }
        let busy_ns: u64 = interval.usage.iter().map(|usage| usage.ns).sum();
        // One CPU that is as long as all of them.
        interval.cpus.push(CpuInterval {
            package: Some(0),
            begin_ns,
            end_ns: begin_ns + length_ns * u64::from(CPUS),
            busy_ns,
            idle_ns: length_ns * u64::from(CPUS) - busy_ns,
            ..CpuInterval::default()
        });
        interval
    }
}

/// All agents, behind one port: `/NUMBER/metrics` is one of them.
struct Site {
    agents: Vec<Mutex<Agent>>,
    scrapes: AtomicU64,
    bytes: AtomicU64,
}

impl Site {
    fn start(options: &Options) -> Result<(Arc<Self>, SocketAddr)> {
        let site = Arc::new(Self {
            agents: (0..options.agents)
                .map(|number| Mutex::new(Agent::new(number, options.tenants)))
                .collect(),
            scrapes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        // Connections are kept, one for each target; so each has a thread that waits.
        for _ in 0..THREADS {
            let (listener, site) = (listener.clone(), site.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let site = site.clone();
                    thread::spawn(move || drop(site.serve(stream)));
                }
            });
        }
        Ok((site, address))
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut output = stream.try_clone()?;
        let mut input = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if input.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut open_metrics = false;
            loop {
                let mut line = String::new();
                if input.read_line(&mut line)? == 0 || line.trim().is_empty() {
                    break;
                }
                open_metrics |= line.to_ascii_lowercase().starts_with("accept:") && line.contains("openmetrics");
            }
            let number: usize = first.split('/').nth(1).context("no number")?.parse()?;
            let format = if open_metrics {
                Format::OpenMetrics
            } else {
                Format::Text
            };
            let agent = self.agents.get(number).context("no such agent")?;
            let body = agent
                .lock()
                .map_err(|_| anyhow::anyhow!("an agent failed"))?
                .scrape(format);
            let media = match format {
                Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
                _ => "text/plain; version=0.0.4; charset=utf-8",
            };
            self.scrapes.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            output.write_all(head.as_bytes())?;
            output.write_all(&body)?;
        }
    }

    fn config(&self, address: SocketAddr, every: u64) -> String {
        let mut config = format!(
            "global: {{scrape_interval: {every}s, scrape_timeout: {every}s}}\nscrape_configs:\n- job_name: dlpm\n  \
             static_configs:\n"
        );
        for number in 0..self.agents.len() {
            let _ = writeln!(
                config,
                "  - {{targets: ['{address}'], labels: {{__metrics_path__: '/{number}/metrics', instance: 'node{number}:9942'}}}}"
            );
        }
        config
    }
}

/// A server that is killed when this is dropped.
struct Server {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(
        name: &'static str,
        program: &Path,
        folder: &Path,
        arguments: impl Fn(&str, &str) -> Vec<String>,
    ) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let data = folder.join(name);
        let child = Command::new(program)
            .args(arguments(&data.display().to_string(), &address.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let server = Self {
            name,
            child,
            address,
            data,
        };
        let until = Instant::now() + PATIENCE;
        while server.ask("GET", "/metrics").is_err() {
            ensure!(Instant::now() < until, "{name} does not answer");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Asks, and reads the whole answer.
    fn ask(&self, method: &str, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nhost: dlpm\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(
            head.contains(" 200 ") || head.contains(" 204 "),
            "{path}: {head}: {body}"
        );
        Ok(body.to_owned())
    }

    /// Its own figures: sums over labels, by name; those whose labels have `part`.
    fn figure(&self, name: &str, part: &str) -> Result<f64> {
        let text = self.ask("GET", "/metrics")?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, labels) = series.split_once('{').unwrap_or((series, ""));
            (of == name && labels.contains(part))
                .then(|| value.parse::<f64>().ok())
                .flatten()
        });
        let values: Vec<f64> = values.collect();
        ensure!(!values.is_empty(), "{} does not tell {name}", self.name);
        Ok(values.iter().sum())
    }
}

/// What a server has at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    series: f64,
    samples: f64,
    /// Of samples.
    data_bytes: f64,
    /// Of names.
    index_bytes: f64,
    resident_bytes: f64,
    cpu_s: f64,
}

fn bytes_below(folder: &Path) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            for (below, bytes) in bytes_below(&entry.path())? {
                let key = if below == "index" {
                    below
                } else {
                    format!("{name}/{below}")
                };
                *sums.entry(key).or_default() += bytes;
            }
        } else {
            *sums.entry(name).or_default() += entry.metadata()?.len();
        }
    }
    Ok(sums)
}

/// Prometheus writes what it has in memory as a block, as it does every two hours.
fn of_prometheus(server: &Server) -> Result<Look> {
    let samples = server.figure("prometheus_tsdb_head_samples_appended_total", "")?;
    let (series, resident_bytes) = (
        server.figure("prometheus_tsdb_head_series", "")?,
        server.figure("process_resident_memory_bytes", "")?,
    );
    let cpu_s = server.figure("process_cpu_seconds_total", "")?;
    let snapshots = server.data.join("snapshots");
    let _ = fs::remove_dir_all(&snapshots);
    server.ask("POST", "/api/v1/admin/tsdb/snapshot")?;
    let bytes = bytes_below(&snapshots)?;
    let of = |is: &dyn Fn(&str) -> bool| {
        bytes
            .iter()
            .filter(|(name, _)| is(name))
            .map(|(_, bytes)| *bytes as f64)
            .sum()
    };
    Ok(Look {
        series,
        samples,
        data_bytes: of(&|name| name.contains("chunks/")),
        index_bytes: of(&|name| !name.contains("chunks/")),
        resident_bytes,
        cpu_s,
    })
}

fn of_victoria_metrics(server: &Server) -> Result<Look> {
    let (resident_bytes, cpu_s) = (
        server.figure("process_resident_memory_bytes", "")?,
        server.figure("process_cpu_seconds_total", "")?,
    );
    server.ask("GET", "/internal/force_flush")?;
    server.ask("GET", "/internal/force_merge")?;
    thread::sleep(Duration::from_secs(5));
    Ok(Look {
        series: server.figure("vm_new_timeseries_created_total", "")?,
        samples: server.figure("vm_rows", "type=\"storage/")?,
        data_bytes: server.figure("vm_data_size_bytes", "type=\"storage/")?,
        index_bytes: server.figure("vm_data_size_bytes", "type=\"indexdb")?,
        resident_bytes,
        cpu_s,
    })
}

/// Lets a server scrape twice as long as it takes to the first look, and prints.
fn measure(options: &Options, site: &Site, server: &Server, look: impl Fn(&Server) -> Result<Look>) -> Result<()> {
    let wait_for = |scrapes: u64| -> Result<()> {
        let wanted = scrapes * site.agents.len() as u64;
        let until = Instant::now() + Duration::from_secs(options.every * scrapes * 3) + PATIENCE;
        while site.scrapes.load(Ordering::Relaxed) < wanted {
            if Instant::now() > until {
                bail!(
                    "{} does not scrape {} agents every {} s",
                    server.name,
                    site.agents.len(),
                    options.every
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
        // The newest answers are on their way.
        thread::sleep(Duration::from_secs(1));
        Ok(())
    };
    wait_for(options.scrapes)?;
    let (begin, first) = (Instant::now(), look(server)?);
    wait_for(2 * options.scrapes)?;
    let (passed_s, second) = (begin.elapsed().as_secs_f64(), look(server)?);
    let samples = second.samples - first.samples;
    let a_sample = (second.data_bytes - first.data_bytes) / samples;
    println!(
        "| {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.1} | {:.2} |",
        server.name,
        second.series,
        samples / passed_s,
        a_sample,
        second.index_bytes / second.series,
        second.resident_bytes / f64::from(1 << 20),
        second.resident_bytes / second.series / 1024.0,
        (second.cpu_s - first.cpu_s) / samples * 1e6,
    );
    Ok(())
}

/// Measures, and prints.
///
/// # Errors
///
/// Where a server cannot be started, or does not tell what it has.
pub fn run(options: &Options) -> Result<bool> {
    println!(
        "{}. {} agents with {} tenants each, scraped every {} s; values grow by {STEP_S} s.\n",
        super::machine()?,
        options.agents,
        options.tenants,
        options.every
    );
    println!(
        "| server | series | samples a second | bytes a sample | bytes of names a series | memory MiB | KiB a series | µs of CPU time a sample |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("scrape.yml");
    let start = || -> Result<Arc<Site>> {
        let (site, address) = Site::start(options)?;
        fs::write(&config, site.config(address, options.every))?;
        Ok(site)
    };
    let site = start()?;
    let of_config = config.display().to_string();
    let prometheus = Server::start("Prometheus", &options.prometheus, folder.path(), |data, address| {
        vec![
            format!("--config.file={of_config}"),
            format!("--storage.tsdb.path={data}"),
            format!("--web.listen-address={address}"),
            "--web.enable-admin-api".to_owned(),
        ]
    })?;
    measure(options, &site, &prometheus, of_prometheus)?;
    drop(prometheus);
    let site = start()?;
    let victoria = Server::start(
        "VictoriaMetrics",
        &options.victoria_metrics,
        folder.path(),
        |data, address| {
            vec![
                format!("-promscrape.config={of_config}"),
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
            ]
        },
    )?;
    measure(options, &site, &victoria, of_victoria_metrics)?;
    drop(victoria);
    let (scrapes, bytes) = (site.scrapes.load(Ordering::Relaxed), site.bytes.load(Ordering::Relaxed));
    let (all, twice) = (series(options.tenants)?, series(2 * options.tenants)?);
    println!(
        "\nA scrape has {all:.0} series and {:.1} KiB; one more tenant has {:.1} series.",
        bytes as f64 / scrapes as f64 / 1024.0,
        (twice - all) / options.tenants as f64
    );
    Ok(true)
}

/// Series of one scrape with so many tenants, without those that servers add.
fn series(tenants: usize) -> Result<f64> {
    let page = Agent::new(0, tenants).scrape(Format::Text);
    let text = String::from_utf8(page)?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count() as f64)
}
