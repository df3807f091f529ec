//! What Prometheus and VictoriaMetrics have of an agent is what its meter counted: over tenants that live for less than a
//! scrape, a scrape that is missed, a kill and restarts.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process, thread,
    time::{Duration, Instant},
};

use dlpm_tests::{
    agent::{ByDevice, Kept, agent, energy_of, finished, wait_for},
    cgroup::Cgroup,
    command::Running,
    monitors::Monitor,
    powercap::{Powercap, node},
    require_dlpm, require_monitors,
    tenant::Tenant,
    tenant_program,
};
use serde_json::Value;

/// Tenants that come and go.
const SHORT: u32 = 200;

/// Tenants that stay.
const LONG: u32 = 20;

/// Seconds between two scrapes.
const SCRAPE: u64 = 5;

struct Container {
    /// Before its cgroup, which has to be empty to be removed.
    process: Option<Tenant>,
    cgroup: Cgroup,
    node: String,
    ends: Instant,
}

impl Container {
    fn start(above: &Cgroup, number: u32, lives: Duration) -> Self {
        let id = format!("{:032x}{number:032x}", process::id());
        let cgroup = above.create_inside(&format!("docker-{id}.scope"));
        let process = Tenant::named(tenant_program!(), "tenant", None, None);
        cgroup.add(process.pid());
        Self {
            cgroup,
            process: Some(process),
            node: format!("docker:{id}"),
            ends: Instant::now() + lives,
        }
    }

    fn end(mut self) -> String {
        self.process = None;
        self.cgroup.wait_until_empty();
        self.node.clone()
    }
}

/// The value of a series, in µJ.
fn micro(series: &Value) -> u64 {
    let joules: f64 = series["value"][1].as_str().unwrap().parse().unwrap();
    let micro = (joules * 1e6).round();
    // Far below 2^53 µJ, so that a float has each of them.
    assert!(
        (0.0..9e15).contains(&micro) && (micro / 1e6 - joules).abs() < 1e-9,
        "{series}"
    );
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let micro = micro as u64;
    micro
}

fn by_device(series: &[Value]) -> ByDevice {
    let mut sums = ByDevice::new();
    for series in series {
        let device = series["metric"]["device"].as_str().unwrap();
        *sums.entry(device.to_owned()).or_default() += micro(series);
    }
    sums
}

fn restart(running: Running, signal: libc::c_int, start: impl FnOnce() -> Running) -> Running {
    if signal == libc::SIGKILL {
        running.killed();
    } else {
        running.end_with(signal).exited(0);
    }
    // What lives and ends while there is no agent is nobody's: here every tenant has one for a while.
    let mut running = start();
    running.wait_for_message("the counters are served");
    running
}

#[test]
fn what_servers_have_is_what_the_meter_counted() {
    require_dlpm!();
    require_monitors!();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = Powercap::start(node());
    let target: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = || {
        agent(&tree, folder.path())
            .arg("--listen")
            .arg(target.to_string())
            .start()
    };
    let mut running = start();
    let first = wait_for(&mut running, folder.path(), "a first interval", |_| true);
    let begin_uj: ByDevice = first
        .counters
        .iter()
        .map(|(zone, uj)| (zone.clone(), uj - first.zones[zone]))
        .collect();
    let servers = [
        Monitor::prometheus(target, SCRAPE),
        Monitor::victoria_metrics(target, SCRAPE),
    ];
    let above = Cgroup::create("agent-sum");
    let mut stay: Vec<Container> = (0..LONG)
        .map(|number| Container::start(&above, number, Duration::MAX / 4))
        .collect();
    let mut living: Vec<Container> = Vec::new();
    let mut ended = Vec::new();
    for number in 0..SHORT {
        // From 0.2 s to 3 s, in another order than they begin.
        let lives = Duration::from_millis(200 + u64::from(number * 37 % SHORT) * 14);
        living.push(Container::start(&above, LONG + number, lives));
        thread::sleep(Duration::from_millis(100));
        let (gone, rest): (Vec<_>, Vec<_>) = living.into_iter().partition(|one| one.ends <= Instant::now());
        living = rest;
        ended.extend(gone.into_iter().map(Container::end));
        match number {
            60 => running = restart(running, libc::SIGKILL, start),
            // One server misses a scrape.
            90 => servers[0].signal(libc::SIGSTOP),
            110 | 150 => running = restart(running, libc::SIGTERM, start),
            _ => {}
        }
    }
    servers[0].signal(libc::SIGCONT);
    for container in living.into_iter().chain(stay.drain(..LONG as usize / 2)) {
        thread::sleep(
            container
                .ends
                .min(Instant::now() + Duration::from_millis(10))
                .saturating_duration_since(Instant::now()),
        );
        ended.push(container.end());
    }
    let in_file = |node: &String| {
        let lines = finished(folder.path());
        lines.iter().any(|line| line["tenant"] == node.as_str())
    };
    running.wait_until("a line for each", || ended.iter().all(in_file));
    thread::sleep(Duration::from_secs(2 * SCRAPE + 2));

    let mut lines: BTreeMap<String, ByDevice> = BTreeMap::new();
    for line in finished(folder.path()) {
        let tenant = line["tenant"].as_str().unwrap().to_owned();
        assert!(
            lines.insert(tenant.clone(), energy_of(&line)).is_none(),
            "{tenant} twice"
        );
    }
    for server in &servers {
        // One moment for all.
        let now = server.query("timestamp(dlpm_node_cpu_seconds_total)")[0]["value"][1]
            .as_str()
            .unwrap()
            .to_owned();
        let at = |query: &str| server.query_at(query, &now);
        let tenants = at("max_over_time(dlpm_tenant_energy_joules_total[30m])");
        let rows = by_device(&at("dlpm_row_energy_joules_total"));
        let counted = by_device(&at("sum without (method) (dlpm_node_energy_joules_total)"));
        let mut everyone = by_device(&tenants);
        for (device, energy_uj) in &rows {
            *everyone.entry(device.clone()).or_default() += energy_uj;
        }
        assert_eq!(everyone, counted);
        for query in ["max_over_time", "min_over_time"] {
            for series in at(&format!("{query}(dlpm_agent_energy_difference_joules[30m])")) {
                assert_eq!(micro(&series), 0, "{series}");
            }
        }
        let mut of_tenant: BTreeMap<String, ByDevice> = BTreeMap::new();
        for series in &tenants {
            let of = |label: &str| series["metric"][label].as_str().unwrap().to_owned();
            let tenant = of_tenant.entry(format!("{}:{}", of("kind"), of("tenant"))).or_default();
            assert!(
                tenant.insert(of("device"), micro(series)).is_none(),
                "one series: {series}"
            );
        }
        for node in &ended {
            assert_eq!(of_tenant[node], lines[node], "{node}");
            assert!(lines[node].values().sum::<u64>() > 0, "{node} used nothing");
        }
    }
    running.end_with(libc::SIGTERM).exited(0);
    let end = Kept::read(folder.path()).unwrap();
    end.adds_up();
    for (zone, begin_uj) in &begin_uj {
        assert_eq!(end.zones[zone], end.counters[zone] - begin_uj, "{zone}");
    }
    assert!(end.row_uj("unobserved") > 0);
}
