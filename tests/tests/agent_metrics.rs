//! What the agent serves, as Prometheus and a strict parser of OpenMetrics see it; and the rules and the dashboard in
//! `contrib`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{collections::BTreeSet, fs, process::Command, sync::Arc};

use dlpm::{
    agent::{
        admission::Admission,
        amounts::Amounts,
        counters::{Counters, Group, Remainder, Zone},
        exposition::{Format, render},
        facts::{Facts, Snapshot},
    },
    attribution::ledger::Method,
    interval::MeterSource,
    tenants::{Kind, Label, Tenant},
};
use dlpm_tests::{
    monitors::{contrib, program, promtool, run},
    require_monitors,
};

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
