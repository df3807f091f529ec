use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    agent::{admission::Admission, facts::Facts},
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
    for format in Format::ALL {
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
    for format in Format::ALL {
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
