use std::{collections::BTreeSet, sync::Arc};

use prost::Message as _;

use super::{
    proto::{Any, Data, KeyValue, Number, Request},
    *,
};
use crate::{
    agent::{
        admission::Admission,
        facts::{Facts, Pushes},
    },
    attribution::{Options, attribute, energy_tree::Carries},
    sinks::testing::{all_zones, interval},
    tenants::{Kind, Tenant},
};

fn tenant(kind: Kind, id: &str, known: &[(Label, &str)]) -> Tenant {
    let mut tenant = Tenant::of(kind, id);
    tenant.labels = known.iter().map(|(label, value)| (*label, Arc::from(*value))).collect();
    tenant
}

/// Three intervals of the tests' machine, with a job and a container.
fn snapshot() -> Snapshot {
    let mut counters = Counters::default();
    let mut admission = Admission::new(100);
    let job = tenant(
        Kind::Slurm,
        "4711",
        &[(Label::SlurmJobId, "4711"), (Label::Account, "physics")],
    );
    let mut container = tenant(
        Kind::Kubernetes,
        "abc",
        &[
            (Label::PodName, "web \"1\"\\"),
            (Label::PodNamespace, "prod"),
            (Label::Image, "nginx"),
        ],
    );
    container.ancestors = vec![Tenant::of(Kind::Pod, "uid").node];
    for seq in 0..3 {
        let mut interval = interval(seq, all_zones());
        interval.tenants.clear();
        let mut paths: Vec<String> = interval.cgroups.values().cloned().collect();
        paths.sort();
        for (path, tenant) in paths.into_iter().zip([&job, &container]) {
            interval.tenants.insert(path, Arc::new(tenant.clone()));
        }
        counters.add(
            &attribute(&interval, &Options::default(), &Carries::default()),
            &mut admission,
        );
    }
    let facts = Facts {
        cap: 100,
        users: Arc::new([(1000, "alice".to_owned())].into()),
        dropped: [("nameless", 2)].into(),
        ..Facts::default()
    };
    Snapshot {
        counters,
        facts,
        ..Snapshot::default()
    }
}

fn text(snapshot: &Snapshot, format: Format) -> String {
    String::from_utf8(render(snapshot, format, "1.2.3")).unwrap()
}

/// The µJ of all series of a family whose labels hold `part`.
fn sum_uj(text: &str, family: &str, part: &str) -> u128 {
    let of_family = text
        .lines()
        .filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(part));
    of_family
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap();
            let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
            format!("{whole}{fraction:0<6}").parse::<u128>().unwrap()
        })
        .sum()
}

#[test]
fn tenants_and_rows_add_up_to_the_meters_to_the_last_digit() {
    let snapshot = snapshot();
    assert!(snapshot.counters.devices.len() > 2);
    for format in Format::TEXTS {
        let text = text(&snapshot, format);
        for device in &snapshot.counters.devices {
            let of = |family: &str| sum_uj(&text, family, &format!("device=\"{device}\""));
            let node = of("dlpm_node_energy_joules_total");
            assert!(node > 0, "{device}");
            assert_eq!(
                of("dlpm_tenant_energy_joules_total") + of("dlpm_row_energy_joules_total"),
                node,
                "{device}"
            );
            assert!(text.contains(&format!(
                "dlpm_agent_energy_difference_joules{{device=\"{device}\"}} 0\n"
            )));
        }
        assert!(sum_uj(&text, "dlpm_tenant_energy_joules_total", "") > 0);
        assert!(text.contains("\ndlpm_agent_cpu_difference_seconds 0\n"));
    }
}

#[test]
fn a_difference_is_shown() {
    let mut snapshot = snapshot();
    let first = snapshot.counters.remainders.values_mut().next().unwrap();
    first.add_to_device(0, 1_500_000);
    let text = text(&snapshot, Format::Text);
    let device = &snapshot.counters.devices[0];
    assert!(text.contains(&format!(
        "dlpm_agent_energy_difference_joules{{device=\"{device}\"}} -1.5\n"
    )));
}

#[test]
fn series_have_the_labels_that_sites_join_on_and_the_info_has_all() {
    let text = text(&snapshot(), Format::OpenMetrics);
    let of_container = "kind=\"kubernetes\",tenant=\"abc\",pod_name=\"web \\\"1\\\"\\\\\",pod_namespace=\"prod\"}";
    assert!(
        text.contains(&format!("dlpm_tenant_cpu_seconds_total{{{of_container} ")),
        "{text}"
    );
    assert!(text.contains("kind=\"slurm\",tenant=\"4711\",slurm_job_id=\"4711\"}"));
    let info = text
        .lines()
        .find(|line| line.starts_with("dlpm_tenant_info{kind=\"kubernetes\""))
        .unwrap();
    assert!(
        info.contains("inside=\"pod:uid\"") && info.contains("image=\"nginx\""),
        "{info}"
    );
    for user in [
        "user=\"alice\",uid=\"1000\"",
        "account=\"physics\"",
        "pod_namespace=\"prod\"",
    ] {
        assert!(text.contains(user), "{user}");
    }
}

#[test]
fn every_row_is_there_from_the_beginning() {
    let empty = text(&Snapshot::default(), Format::Text);
    for row in Remainder::ALL {
        assert!(empty.contains(&format!("dlpm_row_cpu_seconds_total{{row=\"{}\"}} 0\n", row.as_str())));
    }
}

#[test]
fn an_estimate_is_called_one() {
    let mut snapshot = snapshot();
    let first = *snapshot.counters.counted_uj.keys().next().unwrap();
    let energy_uj = snapshot.counters.counted_uj.remove(&first).unwrap();
    snapshot
        .counters
        .counted_uj
        .insert((first.0, Some(Method::Estimate)), energy_uj);
    let text = text(&snapshot, Format::Text);
    let device = &snapshot.counters.devices[first.0];
    let labelled = format!("device=\"{device}\",method=\"estimate\"");
    for family in ["node", "tenant", "row", "user"] {
        let mut series = text
            .lines()
            .filter(|line| line.starts_with(&format!("dlpm_{family}_energy_joules_total{{")));
        assert!(series.any(|line| line.contains(&labelled)), "{family}");
    }
}

#[test]
fn families_are_whole_and_series_appear_once() {
    for format in Format::TEXTS {
        let text = text(&snapshot(), format);
        let (mut seen, mut families, mut series) = (String::new(), BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                seen = rest.split(' ').next().unwrap().to_owned();
                assert!(families.insert(seen.clone()), "{seen} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&seen), "{line} in {seen}");
                let labels = line.rsplit_once(' ').unwrap().0;
                assert!(series.insert(labels.to_owned()), "{line} twice");
            }
        }
        assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        assert_eq!(text.contains("# UNIT "), format == Format::OpenMetrics);
    }
}

/// Name and labels of a series.
type Key = (String, BTreeMap<String, String>);

/// Every series of the older text format, with its escapes undone.
fn series_of_text(text: &str) -> BTreeMap<Key, f64> {
    let series = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, mut rest) = name.split_once('{').unwrap_or((name, "}"));
        let mut labels = BTreeMap::new();
        while rest != "}" {
            let (label, quoted) = rest.split_once("=\"").unwrap();
            let (mut shown, mut end, mut characters) = (String::new(), 0, quoted.char_indices());
            while let Some((at, character)) = characters.next() {
                end = at + 1;
                match character {
                    '"' => break,
                    '\\' => match characters.next().unwrap().1 {
                        'n' => shown.push('\n'),
                        escaped => shown.push(escaped),
                    },
                    character => shown.push(character),
                }
            }
            labels.insert(label.trim_start_matches(',').to_owned(), shown);
            rest = &quoted[end..];
        }
        ((name.to_owned(), labels), value.parse().unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(series).collect()
}

/// The same of OTLP, with when each sum was 0; `None` for gauges.
fn series_of_otlp(snapshot: &Snapshot) -> BTreeMap<Key, (Number, Option<u64>)> {
    let request = Request::decode(&render(snapshot, Format::Otlp, "1.2.3")[..]).unwrap();
    let mut series = BTreeMap::new();
    for metric in &request.resource_metrics[0].scope_metrics[0].metrics {
        let (points, is_sum) = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == proto::CUMULATIVE);
                (&sum.data_points, true)
            }
            Data::Gauge(gauge) => (&gauge.data_points, false),
        };
        assert!(!points.is_empty() && !metric.description.is_empty());
        assert_eq!(metric.name.ends_with("_total"), is_sum, "{}", metric.name);
        let unit = ["joules", "seconds"]
            .into_iter()
            .find(|unit| metric.name.contains(unit));
        assert_eq!(
            metric.unit,
            unit.map_or("", |unit| if unit == "joules" { "J" } else { "s" })
        );
        for point in points {
            assert_eq!(
                i64::try_from(point.time_unix_nano).unwrap(),
                snapshot.counters.end_unix_ns
            );
            let key = (metric.name.clone(), texts(&point.attributes));
            let since = is_sum.then_some(point.start_time_unix_nano);
            let before = series.insert(key.clone(), (point.value.unwrap(), since));
            assert!(before.is_none(), "{key:?} twice");
        }
    }
    series
}

fn texts(labels: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |label: &KeyValue| {
        let Some(Any::Text(text)) = label.value.clone().and_then(|value| value.value) else {
            panic!("{label:?} is not a text");
        };
        (label.key.clone(), text)
    };
    let texts: BTreeMap<String, String> = labels.iter().map(text).collect();
    assert_eq!(texts.len(), labels.len(), "a label twice");
    texts
}

#[test]
#[expect(clippy::float_cmp, reason = "both are the number nearest to the same decimal")]
fn otlp_has_every_series_of_the_text_with_its_value() {
    let mut snapshot = snapshot();
    snapshot.facts.pushes = Some(Pushes { taken: 7, failed: 8 });
    // Beyond what a signed number holds, beyond what a float holds exactly, and below 0.
    snapshot.counters.intervals = u64::MAX;
    snapshot.counters.refused_count = i64::MAX.unsigned_abs();
    snapshot.counters.counted_ns = (1 << 60) + 1;
    snapshot.counters.zones.values_mut().next().unwrap().energy_uj = u64::MAX;
    let read = series_of_text(&text(&snapshot, Format::Text));
    let pushed = series_of_otlp(&snapshot);
    assert!(read.len() > 60);
    assert_eq!(read.keys().collect::<Vec<_>>(), pushed.keys().collect::<Vec<_>>());
    for (key, (number, _)) in &pushed {
        match number {
            #[expect(clippy::cast_precision_loss, reason = "the text is read as a float as well")]
            Number::AsInt(number) => assert_eq!(*number as f64, read[key], "{key:?}"),
            Number::AsDouble(number) => assert_eq!(*number, read[key], "{key:?}"),
        }
        let is_count = !key.0.contains("joules") && !key.0.contains("seconds");
        let is_whole = matches!(number, Number::AsInt(_));
        assert_eq!(is_whole, is_count && key.0 != "dlpm_agent_intervals_total", "{key:?}");
    }
}

#[test]
fn a_sum_of_otlp_says_since_when_it_counts() {
    let mut snapshot = snapshot();
    let counters = &mut snapshot.counters;
    (counters.begun_unix_ns, counters.end_unix_ns) = (1_000, 9_000);
    snapshot.facts.started_unix_ns = 3_000;
    let since = [0, 5_000];
    for (account, since) in counters.accounts.values_mut().zip(since) {
        Arc::make_mut(account).since_unix_ns = since;
    }
    let told = |snapshot: &Snapshot, family: &str| -> Vec<Option<u64>> {
        let series = series_of_otlp(snapshot).into_iter();
        let of_family = series.filter(|((name, _), _)| name == family);
        of_family
            .map(|(_, (_, since))| since)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    assert_eq!(told(&snapshot, "dlpm_node_energy_joules_total"), [Some(1_000)]);
    let of_tenants = told(&snapshot, "dlpm_tenant_energy_joules_total");
    assert_eq!(
        of_tenants,
        [Some(1_000), Some(5_000)],
        "the first is as old as all counters"
    );
    assert_eq!(told(&snapshot, "dlpm_tenant_cpu_seconds_total"), of_tenants);
    assert_eq!(told(&snapshot, "dlpm_agent_late_intervals_total"), [Some(3_000)]);
    assert_eq!(told(&snapshot, "dlpm_agent_dropped_total"), [Some(3_000)]);
    assert_eq!(told(&snapshot, "dlpm_tenant_info"), [None]);
    // The clock went back: nothing begins after its end.
    snapshot.counters.end_unix_ns = 2_000;
    assert_eq!(told(&snapshot, "dlpm_agent_late_intervals_total"), [Some(2_000)]);
}

#[test]
fn a_node_is_named_in_otlp() {
    let mut snapshot = snapshot();
    snapshot.facts.host_name = "node\u{1b}1".into();
    let request = Request::decode(&render(&snapshot, Format::Otlp, "1.2.3")[..]).unwrap();
    assert_eq!(request.resource_metrics.len(), 1);
    let resource = texts(&request.resource_metrics[0].resource.as_ref().unwrap().attributes);
    let expected = [
        ("host.name", "node?1"),
        ("service.instance.id", "node?1"),
        ("service.name", "dlpm"),
        ("service.version", "1.2.3"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(resource, expected.into());
    let scope = request.resource_metrics[0].scope_metrics[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("dlpm", "1.2.3"));
}
