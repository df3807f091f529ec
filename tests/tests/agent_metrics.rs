//! What the agent serves, as Prometheus and a strict parser of OpenMetrics see it; and the rules and the dashboard in
//! `contrib`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::Arc,
};

use dlpm::{
    agent::{
        admission::Admission,
        amounts::Amounts,
        counters::{Counters, Group, Remainder, Zone},
        exposition::{Format, render},
        facts::{Facts, Pushes, Snapshot},
    },
    attribution::ledger::Method,
    interval::MeterSource,
    tenants::{Kind, Label, Tenant},
};
use dlpm_tests::{
    agent::agent,
    cgroup::Cgroup,
    monitors::{Monitor, contrib, program, promtool, run},
    powercap::{Powercap, node},
    require_dlpm, require_monitors,
    tenant::Tenant as Process,
    tenant_program,
    web::{Answer, PATIENCE, served_at, wait_for},
};
use serde_json::{Value, json};

/// Everything that can be in a snapshot: every kind, every label, names of all sorts, numbers of all sizes.
fn snapshot() -> Snapshot {
    let mut counters = Counters::default();
    let mut admission = Admission::new(1_000);
    let names = [
        "a",
        "",
        "\"",
        "\\",
        "\\n",
        "é",
        "名前",
        "a{b=\"c\"} 1",
        "# EOF",
        "\u{2028}",
        "\n",
        "a b",
        "x,y=1",
    ];
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        if kind == Kind::Unknown {
            continue;
        }
        let mut tenant = Tenant::of(kind, &format!("{number} {}", names[number % names.len()]));
        for (offset, label) in Label::ALL.into_iter().enumerate() {
            tenant
                .labels
                .insert(label, names[(number + offset) % names.len()].into());
        }
        tenant.ancestors = vec![Tenant::of(Kind::Slurm, names[number % names.len()]).node];
        counters.open(&Arc::new(tenant), 0, &mut admission);
    }
    for (number, (device, energy_uj)) in [("package-0", u64::MAX), ("dram \"0\"", 1), ("gpu-0", 0)]
        .into_iter()
        .enumerate()
    {
        let device = counters.device(device);
        let methods = Method::ALL.map(Some).into_iter().chain([None]);
        for method in methods.skip(number) {
            counters.counted_uj.insert((device, method), energy_uj);
        }
        for account in counters.accounts.values_mut() {
            Arc::make_mut(account).used.add_to_device(device, energy_uj / 3);
        }
    }
    let used = Amounts {
        cpu_ns: u64::MAX,
        energy_uj: vec![123_456_789, 1],
    };
    for row in Remainder::ALL {
        counters.remainders.insert(row, used.clone());
    }
    for name in names {
        counters.groups.insert(Group::Account(name.into()), used.clone());
        counters.groups.insert(Group::Namespace(name.into()), used.clone());
        let zone = Zone {
            energy_uj: 5,
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Powercap,
            unknown_intervals: 1,
            is_unknown: true,
        };
        counters.zones.insert(format!("zone {name}"), zone);
    }
    for uid in 0..20 {
        counters.groups.insert(Group::User(uid), used.clone());
    }
    counters.end_unix_ns = 1_800_000_000_123_456_789;
    // Two users of one name: a name is foreign, too.
    let users = [(1, "alice"), (2, "alice"), (3, "\"\n\\")].map(|(uid, name)| (uid, name.to_owned()));
    let facts = Facts {
        users: Arc::new(users.into()),
        pushes: Some(Pushes { taken: 1, failed: 2 }),
        host_name: "node".into(),
        dropped: [("nameless", 1), ("processes_full", 2)].into(),
        ..Facts::default()
    };
    Snapshot {
        counters,
        facts,
        ..Snapshot::default()
    }
}

/// Reads OpenMetrics strictly, and prints how many families and samples there are.
const STRICT: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
print(len(families), sum(len(family.samples) for family in families))
";

/// Reads the older format.
const OLDER: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
print(len(families), sum(len(family.samples) for family in families))
";

fn parsed(program_text: &str, exposition: &[u8]) -> usize {
    let mut python = Command::new(program("DLPM_OPENMETRICS_PYTHON").unwrap());
    let said = run(python.args(["-c", program_text]), exposition);
    said.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn samples(exposition: &[u8]) -> usize {
    let text = String::from_utf8_lossy(exposition).into_owned();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn both_parsers_accept_every_exposition() {
    require_monitors!();
    for snapshot in [Snapshot::default(), snapshot()] {
        let open = render(&snapshot, Format::OpenMetrics, "1.2.3");
        assert_eq!(parsed(STRICT, &open), samples(&open));
        let text = render(&snapshot, Format::Text, "1.2.3");
        assert_eq!(parsed(OLDER, &text), samples(&text));
        // It says what it does not like, and then fails.
        assert_eq!(run(&mut promtool(&["check", "metrics"]), &text), "");
    }
}

/// Reads the older format, of which the first line tells the length, and then OTLP: both have the same series.
const BOTH: &str = r"
import sys
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from prometheus_client.parser import text_string_to_metric_families
text = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
served = {}
for family in text_string_to_metric_families(text.decode()):
    for sample in family.samples:
        served[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
request = ExportMetricsServiceRequest()
request.ParseFromString(sys.stdin.buffer.read())
[node] = request.resource_metrics
resource = {pair.key: pair.value.string_value for pair in node.resource.attributes}
assert resource['service.name'] == 'dlpm' and resource['service.version'] == '1.2.3', resource
[scope] = node.scope_metrics
pushed, unknown = {}, []
for metric in scope.metrics:
    is_sum = metric.WhichOneof('data') == 'sum'
    assert is_sum == metric.name.endswith('_total'), metric
    if is_sum:
        assert metric.sum.is_monotonic
        assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    for point in (metric.sum if is_sum else metric.gauge).data_points:
        labels = tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes))
        assert (metric.name, labels) not in pushed, (metric.name, labels)
        assert point.start_time_unix_nano <= point.time_unix_nano
        value = getattr(point, point.WhichOneof('value'))
        pushed[metric.name, labels] = float(value)
for key in served.keys() | pushed.keys():
    assert served.get(key) == pushed.get(key), (key, served.get(key), pushed.get(key))
print(len(served), len(pushed))
";

#[test]
fn python_reads_in_every_push_what_it_reads_in_the_text() {
    require_monitors!();
    for snapshot in [Snapshot::default(), snapshot()] {
        let [text, otlp] = [Format::Text, Format::Otlp].map(|format| render(&snapshot, format, "1.2.3"));
        let length = format!("{}\n", text.len());
        let mut python = Command::new(program("DLPM_OPENMETRICS_PYTHON").unwrap());
        let said = run(python.args(["-c", BOTH]), &[length.as_bytes(), &text, &otlp].concat());
        let count = samples(&text).to_string();
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), [&count, &count], "{said}");
    }
}

#[test]
fn rules_and_alerts_are_tested() {
    require_monitors!();
    let path = |name: &str| contrib(&format!("prometheus/{name}")).display().to_string();
    let (rules, alerts, tests) = (path("dlpm-rules.yml"), path("dlpm-alerts.yml"), path("dlpm-tests.yml"));
    run(&mut promtool(&["check", "rules", &rules, &alerts]), b"");
    run(&mut promtool(&["test", "rules", &tests]), b"");
    let folder = contrib("prometheus");
    run(promtool(&["check", "config", "scrape.yml"]).current_dir(folder), b"");
}

#[test]
fn every_series_is_documented() {
    let documented = include_str!("../../docs/monitoring.md");
    let text = String::from_utf8(render(&snapshot(), Format::Text, "1.2.3")).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<&str> = names.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in &names {
        assert!(documented.contains(&format!("`{name}`")), "{name}");
    }
    // And nothing is documented that is not there.
    let words = documented
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("dlpm_"));
    for word in words {
        assert!(names.contains(word), "{word}");
    }
}

/// The values of a key in a YAML file, where it begins an item or stands alone.
fn values(name: &str, key: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(contrib(name)).unwrap();
    let value = |line: &str| {
        let line = line.trim().trim_start_matches("- ");
        Some(line.strip_prefix(key)?.strip_prefix(": ")?.to_owned())
    };
    text.lines().filter_map(value).collect()
}

#[test]
fn every_rule_has_a_test() {
    let tested: BTreeSet<String> = values("prometheus/dlpm-tests.yml", "expr")
        .into_iter()
        .map(|expression| expression.split('{').next().unwrap().to_owned())
        .collect();
    let recorded = values("prometheus/dlpm-rules.yml", "record");
    assert!(
        recorded.len() > 5 && recorded.is_subset(&tested),
        "{:?}",
        recorded.difference(&tested)
    );
    let tested = values("prometheus/dlpm-tests.yml", "alertname");
    let alerts = values("prometheus/dlpm-alerts.yml", "alert");
    assert!(
        alerts.len() > 5 && alerts == tested,
        "{:?}",
        alerts.symmetric_difference(&tested)
    );
}

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "11111111_2222_3333_4444_555555555555";

fn scrape(address: SocketAddr, accept: &str) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = Answer::over(stream, "GET", "/metrics", &[&format!("Accept: {accept}")]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

/// Cgroups inside each other; the deepest is the last.
fn nested(above: &Cgroup, path: &str) -> Vec<Cgroup> {
    let mut made: Vec<Cgroup> = Vec::new();
    for name in path.split('/') {
        let next = made.last().unwrap_or(above).create_inside(name);
        made.push(next);
    }
    made
}

/// All expressions of the dashboard, and the query of its variable.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(contrib("grafana/dlpm-tenants.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let filled = |query: String| {
        query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "20s")
            .replace("$__range", "10m")
    };
    let queries: Vec<String> = queries.map(filled).collect();
    assert!(
        queries.len() > 15 && queries.iter().all(|query| !query.contains('$')),
        "{queries:?}"
    );
    queries
}

#[test]
fn a_real_prometheus_has_what_the_dashboard_asks_for() {
    require_dlpm!();
    require_monitors!();
    // A job and a container of a pod, whose name is in the bundle of its runtime.
    let above = Cgroup::create("dashboard");
    let job = nested(&above, "slurmstepd.scope/job_4711/step_0/user/task_0");
    let pod = nested(
        &above,
        &format!("kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-{CONTAINER}.scope"),
    );
    let rootfs = tempfile::tempdir().unwrap();
    let bundle = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{CONTAINER}");
    let bundle = rootfs.path().join(bundle);
    fs::create_dir_all(&bundle).unwrap();
    let annotations = json!({"annotations": {
        "io.kubernetes.cri.container-name": "worker", "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-name": "trainer-0", "io.kubernetes.cri.sandbox-namespace": "ml"}});
    fs::write(bundle.join("config.json"), annotations.to_string()).unwrap();
    let processes = [&job, &pod].map(|cgroups| {
        let process = Process::named(tenant_program!(), "tenant", None, None);
        cgroups.last().unwrap().add(process.pid());
        process
    });

    let tree = Powercap::start(node());
    let state = tempfile::tempdir().unwrap();
    let mut running = agent(&tree, state.path()).arg("--rootfs").arg(rootfs.path()).start();
    let address = served_at(&mut running);
    let prometheus = Monitor::prometheus(address, 1);
    let is_there = |query: &str| (!prometheus.query(query).is_empty()).then_some(());
    for of_tenant in [
        "slurm_job_id=\"4711\"",
        "pod_name=\"trainer-0\",pod_namespace=\"ml\",container_name=\"worker\"",
    ] {
        let query = format!("increase(dlpm_tenant_energy_joules_total{{{of_tenant}}}[1m]) > 0");
        wait_for(&query, || is_there(&query));
    }

    for query in dashboard() {
        wait_for(&query, || is_there(&query));
    }
    assert!(
        is_there("dlpm_agent_info").is_some(),
        "the variable of the dashboard lists its instances"
    );

    // The queries of the rules, whichever of them Prometheus has evaluated by now.
    let rules = prometheus.api("/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().unwrap().iter();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 12, "{rules:?}");
    for rule in &rules {
        assert_ne!(rule["health"], "err", "{rule}");
        let query = rule["query"].as_str().unwrap();
        if rule["type"] == "recording" {
            // One needs the result of another one, which comes after the next evaluation.
            wait_for(query, || is_there(query));
        } else {
            assert_eq!(
                prometheus.query(query),
                [] as [Value; 0],
                "{query} would raise an alert"
            );
        }
    }

    // In every scrape the sums match; to the last digit in the text, and to that of a float here.
    let differs = "count_over_time((dlpm_agent_energy_difference_joules != 0)[10m:1s])";
    assert!(is_there(differs).is_none(), "{:?}", prometheus.query(differs));
    let sums = "sum by (device) (dlpm_tenant_energy_joules_total) + sum by (device) (dlpm_row_energy_joules_total) \
                - sum by (device) (dlpm_node_energy_joules_total)";
    let differences = prometheus.query(sums);
    assert!(differences.len() > 1, "{differences:?}");
    for difference in differences {
        let value: f64 = difference["value"][1].as_str().unwrap().parse().unwrap();
        assert!(value.abs() < 1e-5, "{difference}");
    }

    // What it really serves is accepted as well.
    let open = scrape(address, "application/openmetrics-text;version=1.0.0");
    assert_eq!(parsed(STRICT, &open), samples(&open));
    let text = scrape(address, "text/plain");
    assert_eq!(parsed(OLDER, &text), samples(&text));
    assert_eq!(run(&mut promtool(&["check", "metrics"]), &text), "");
    drop(prometheus);
    running.end_with(libc::SIGTERM).exited(0);
    drop(processes);
    for cgroups in [job, pod] {
        cgroups.last().unwrap().wait_until_empty();
        // The deepest goes first.
        cgroups.into_iter().rev().for_each(drop);
    }
}
