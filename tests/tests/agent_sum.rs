//! What Prometheus and VictoriaMetrics have of an agent is what its meter counted: over tenants that live for less than a
//! scrape, a scrape that is missed, a kill and restarts.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use dlpm_tests::{
    agent::{ByDevice, Container, Kept, agent, begin, energy_of, finished, folder},
    cgroup::Cgroup,
    command::Running,
    monitors::Monitor,
    powercap::{Powercap, node},
    require_dlpm, require_monitors, tenant_program,
};
use serde_json::Value;

/// Tenants that come and go.
const SHORT: u32 = 200;

/// Tenants that stay.
const LONG: u32 = 20;

/// Seconds between two scrapes.
const SCRAPE: u64 = 5;

/// What ended in so long before a kill may not be written: more than ten intervals.
const JUST_BEFORE: Duration = Duration::from_secs(3);

/// A container, and when it is to end.
type Ending = (Container, Instant);

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
    let folder = folder();
    let tree = Powercap::start(node());
    let target: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = || {
        agent(&tree, folder.path())
            .arg("--listen")
            .arg(target.to_string())
            .start()
    };
    let mut running = start();
    let begin_uj = begin(&mut running, folder.path());
    let servers = [
        Monitor::prometheus(target, SCRAPE),
        Monitor::victoria_metrics(target, SCRAPE),
    ];
    let above = Cgroup::create("agent-sum");
    let start_one = |number| Container::start(tenant_program!(), &above, number);
    let mut stay: Vec<Container> = (0..LONG).map(start_one).collect();
    let mut living: Vec<Ending> = Vec::new();
    let (mut ended, mut ends, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..SHORT {
        // From 0.2 s to 3 s, in another order than they begin.
        let lives = Duration::from_millis(200 + u64::from(number * 37 % SHORT) * 14);
        living.push((start_one(LONG + number), Instant::now() + lives));
        thread::sleep(Duration::from_millis(100));
        let (gone, rest): (Vec<_>, Vec<_>) = living.into_iter().partition(|(_, ends)| *ends <= Instant::now());
        living = rest;
        for (container, _) in gone {
            ended.push(container.end());
            ends.push(Instant::now());
        }
        match number {
            60 => {
                // Of what ended just before, the agent may have written nothing yet.
                let just_before = ends.partition_point(|end| end.elapsed() > JUST_BEFORE);
                unseen.extend(ended[just_before..].iter().cloned());
                running = restart(running, libc::SIGKILL, start);
            }
            // One server misses a scrape.
            90 => servers[0].signal(libc::SIGSTOP),
            110 | 150 => running = restart(running, libc::SIGTERM, start),
            _ => {}
        }
    }
    servers[0].signal(libc::SIGCONT);
    let last = living.into_iter().map(|(container, _)| container);
    ended.extend(last.chain(stay.drain(..LONG as usize / 2)).map(Container::end));
    let in_file = |node: &String| {
        let lines = finished(folder.path());
        lines.iter().any(|line| line["tenant"] == node.as_str())
    };
    running.wait_until("a line for each", || {
        let kept = Kept::read(folder.path()).unwrap_or_default();
        let is_unknown = |node: &String| unseen.contains(node) && !kept.tenants.contains_key(node);
        ended.iter().all(|node| in_file(node) || is_unknown(node))
    });
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
            // What no line has was not served either.
            assert_eq!(of_tenant.get(node), lines.get(node), "{node}");
            let used_uj = lines.get(node).map(|line| line.values().sum::<u64>());
            assert!(used_uj.map_or(unseen.contains(node), |used_uj| used_uj > 0), "{node}");
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
