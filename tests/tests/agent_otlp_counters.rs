//! The counters of a whole agent, as a collector of OpenTelemetry gets them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{collections::BTreeMap, fs, net::TcpStream};

use dlpm::agent::exposition::proto::{Any, Data, KeyValue, Number, Request};
use dlpm_tests::{
    agent::{Container, agent, energy_of, finished, folder, wait_for as wait_for_state},
    cgroup::Cgroup,
    collector::{Collector, Push, Reply},
    command::Dlpm,
    powercap::{Powercap, node},
    require_dlpm, tenant_program,
    web::{Answer, PATIENCE, served_at, wait_for},
};
use prost::Message;

/// A value of a push.
#[derive(Clone, Debug)]
struct Point {
    labels: BTreeMap<String, String>,
    value: f64,
    begun_ns: u64,
    time_ns: u64,
}

/// The points of a push by the names of their metrics.
#[derive(Debug)]
struct Decoded {
    resource: BTreeMap<String, String>,
    metrics: BTreeMap<String, Vec<Point>>,
}

fn texts(labels: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |label: &KeyValue| match label.value.clone().unwrap().value.unwrap() {
        Any::Text(text) => (label.key.clone(), text),
    };
    labels.iter().map(text).collect()
}

impl Decoded {
    fn of(push: &Push) -> Self {
        let request = Request::decode(&push.unpacked()[..]).unwrap();
        assert_eq!(request.resource_metrics.len(), 1);
        let of_node = &request.resource_metrics[0];
        let mut metrics = BTreeMap::new();
        for metric in &of_node.scope_metrics[0].metrics {
            let points = match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => &sum.data_points,
                Data::Gauge(gauge) => &gauge.data_points,
            };
            let points = points.iter().map(|point| Point {
                labels: texts(&point.attributes),
                #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
                value: match point.value.unwrap() {
                    Number::AsDouble(value) => value,
                    Number::AsInt(value) => value as f64,
                },
                begun_ns: point.start_time_unix_nano,
                time_ns: point.time_unix_nano,
            });
            metrics.insert(metric.name.clone(), points.collect());
        }
        Self {
            resource: texts(&of_node.resource.as_ref().unwrap().attributes),
            metrics,
        }
    }

    fn of_label(&self, metric: &str, label: &str, value: &str) -> Vec<&Point> {
        let points = self.metrics.get(metric).map_or(&[][..], Vec::as_slice);
        let has = |point: &&Point| point.labels.get(label).is_some_and(|found| found == value);
        points.iter().filter(has).collect()
    }

    fn sum(&self, metric: &str, device: &str) -> f64 {
        self.of_label(metric, "device", device)
            .iter()
            .map(|point| point.value)
            .sum()
    }
}

#[test]
fn a_collector_has_what_the_meter_counted_and_ends_of_tenants() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let above = Cgroup::create("otlp");
    let collector = Collector::start(Reply::status("503 Service Unavailable", &[], b""));
    let mut running = agent(&tree, folder.path())
        .args(["--keep-ended", "1s", "--otlp-interval", "1s", "--otlp"])
        .arg(collector.url())
        .start();
    let address = served_at(&mut running);
    let failures = || wait_for("two failed pushes", || (collector.count() > 1).then_some(()));
    failures();
    let short = Container::start(tenant_program!(), &above, 1);
    let id = short.node.split(':').nth(1).unwrap().to_owned();
    wait_for_state(&mut running, folder.path(), "energy of the tenant", |kept| {
        kept.tenants
            .get(&short.node)
            .is_some_and(|used| used.values().sum::<u64>() > 0)
    });
    collector.replies(Reply::taken());
    let of_tenant = |push: &Push| {
        let points = Decoded::of(push);
        let energy = points.of_label("dlpm_tenant_energy_joules_total", "tenant", &id);
        energy.into_iter().cloned().collect::<Vec<Point>>()
    };
    let newest = || collector.pushes().pop();
    wait_for("the tenant", || newest().filter(|push| !of_tenant(push).is_empty()));
    let node = short.end();
    // The collector is the only one that fetches, so what it has twice is no longer shown.
    wait_for("its end", || newest().filter(|push| of_tenant(push).is_empty()));
    let line = wait_for("its line", || {
        let lines = finished(folder.path());
        lines.into_iter().find(|line| line["tenant"] == node.as_str())
    });
    running.wait_for_message("takes the counters again");

    let pushes = collector.pushes();
    let last: Vec<Vec<Point>> = pushes
        .iter()
        .map(&of_tenant)
        .filter(|points| !points.is_empty())
        .collect();
    let whole = |points: &Vec<Point>| {
        energy_of(&line).iter().all(|(device, energy_uj)| {
            let point = points.iter().find(|point| &point.labels["device"] == device);
            // The number nearest to the same decimal.
            let joules: f64 = format!("{energy_uj}e-6").parse().unwrap();
            point.is_some_and(|point| point.value.to_bits() == joules.to_bits())
        })
    };
    let final_ones: Vec<&Vec<Point>> = last.iter().filter(|points| whole(points)).collect();
    assert!(final_ones.len() >= 2, "{line}: {last:?}");
    assert!(final_ones[0][0].time_ns < final_ones[1][0].time_ns);

    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut before: BTreeMap<(String, BTreeMap<String, String>), Point> = BTreeMap::new();
    for push in &pushes {
        let read = Decoded::of(push);
        assert_eq!(read.resource["service.name"], "dlpm");
        assert_eq!(
            (&read.resource["host.name"], &read.resource["service.instance.id"]),
            (&host, &host)
        );
        let devices = &read.metrics["dlpm_node_energy_joules_total"];
        assert!(devices.len() > 1);
        for device in devices.iter().map(|point| point.labels["device"].as_str()) {
            let everyone =
                read.sum("dlpm_tenant_energy_joules_total", device) + read.sum("dlpm_row_energy_joules_total", device);
            let counted = read.sum("dlpm_node_energy_joules_total", device);
            // To the last digits of a float.
            assert!((everyone - counted).abs() < 1e-6, "{device}: {everyone} {counted}");
        }
        for (name, points) in read.metrics.into_iter().filter(|(name, _)| name.ends_with("_total")) {
            for point in points {
                assert!(
                    0 < point.begun_ns && point.begun_ns <= point.time_ns,
                    "{name} {point:?}"
                );
                let old = before.insert((name.clone(), point.labels.clone()), point.clone());
                if let Some(old) = old {
                    assert!(
                        point.value >= old.value && point.begun_ns == old.begun_ns,
                        "{name} {old:?} {point:?}"
                    );
                }
            }
        }
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let served = Answer::over(stream, "GET", "/metrics", &[]).unwrap().text();
    let value = |name: &str| -> f64 {
        let line = served
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("dlpm_agent_otlp_pushes_total") >= 2.0);
    assert!(value("dlpm_agent_otlp_push_failures_total") >= 2.0);
    let said = running.end_with(libc::SIGTERM).exited(0).stderr.clone();
    for once in ["did not take the counters: it answered 503", "takes the counters again"] {
        assert_eq!(said.matches(once).count(), 1, "{said}");
    }
}

#[test]
fn each_failure_is_told_with_what_to_do() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let collector = Collector::start(Reply::taken());
    let [headers, config] = ["headers", "agent.toml"].map(|name| folder.path().join(name));
    fs::write(&headers, "Authorization: Bearer secret\n").unwrap();
    let text = format!(
        "otlp = \"{}/x\"\notlp_interval = \"1s\"\notlp_headers = {headers:?}\n",
        collector.url()
    );
    fs::write(&config, text).unwrap();
    let mut running = agent(&tree, folder.path()).arg("--config").arg(config).start();
    running.wait_for_message(&format!(
        "the counters are pushed to {}/x/v1/metrics every 1s",
        collector.url()
    ));
    for (reply, said) in [
        (
            Reply::status("401 Unauthorized", &[], b""),
            "it answered 401 Unauthorized (otlp_headers",
        ),
        (
            Reply::status("404 Not Found", &[], b""),
            "the counters go to /x/v1/metrics: is that",
        ),
        (Reply::status("301 Moved", &[], b""), "follows no redirection"),
        (
            Reply::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            "it does not speak HTTP",
        ),
        (Reply::Say(Vec::new()), "it does not speak HTTP"),
        (Reply::Silence, "it did not answer within 10 s"),
    ] {
        let count = collector.count();
        collector.replies(Reply::taken());
        wait_for("a push that is taken", || (collector.count() > count + 1).then_some(()));
        collector.replies(reply);
        running.wait_for_message(said);
    }
    fs::write(&headers, "Authorization\n").unwrap();
    running.signal(libc::SIGHUP);
    running.wait_for_message("what otlp_headers and otlp_ca name stay as they were");
    let said = running.end_with(libc::SIGTERM).exited(0).stderr.clone();
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn what_cannot_be_pushed_to_is_told_before_anything_starts() {
    require_dlpm!();
    let folder = folder();
    let check = |arguments: &[&str]| {
        Dlpm::new(["agent", "--check", "--state-dir"])
            .arg(folder.path())
            .args(arguments)
            .run()
    };
    for (url, said) in [
        ("localhost:4318", "does not begin with http://"),
        ("grpc://localhost:4317", "over HTTP"),
        ("http://host:99999", "not from 1 to 65535"),
        ("http://host/v1/metrics", "leave it out"),
    ] {
        check(&["--otlp", url]).exited(2).says(&[said]);
    }
    check(&["--otlp", "http://c", "--otlp-interval", "10ms"])
        .exited(2)
        .says(&["from 1s to 1h"]);
    check(&["--otlp-headers", "/nowhere"]).fails(1, &["give otlp as well"]);
    check(&["--otlp-ca", "/nowhere"]).fails(1, &["give otlp as well"]);
    check(&["--otlp", "http://c", "--otlp-headers", "/nowhere"]).fails(1, &["/nowhere cannot be read"]);
    check(&["--otlp", "http://c", "--otlp-headers", "/dev/zero"]).fails(1, &["a device"]);
    check(&["--otlp", "https://c", "--otlp-ca", "/etc/hostname"]).fails(1, &["no certificate in it"]);
    let config = folder.path().join("agent.toml");
    fs::write(&config, "otlp = \"ftp://x\"\n").unwrap();
    check(&["--config", config.to_str().unwrap()]).fails(1, &["otlp:", "neither http:// nor https://"]);
    fs::write(&config, "otpl = \"http://x\"\n").unwrap();
    check(&["--config", config.to_str().unwrap()]).fails(1, &["is `otlp` meant?"]);
    check(&["--otlp", "http://127.0.0.1:9"]).exited(0);
}
