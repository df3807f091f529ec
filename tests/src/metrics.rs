//! AIPowerMeter's fields of a line, computed again from its exact part.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::log::{Sample, number};

/// One figure for each listed pid.
type ByPid = BTreeMap<String, f64>;

/// Asserts that every key is there that belongs to the zones of the line, with its definition, and no other.
#[track_caller]
pub fn check(sample: &Sample) {
    let mut expected: BTreeMap<&str, Figure> = BTreeMap::new();
    let used_ns = sample.over_cpus("busy_ns") + sample.over_cpus("lost_ns");
    let cpu_ns = per_pid(sample, |row| Some(number(&row["cpu_ns"])));
    expected.insert("absolute_cpu_time_per_pid", Figure::Map(scaled(&cpu_ns, 1e-9)));
    expected.insert(
        "per_process_cpu_uses",
        Figure::Map(scaled(&cpu_ns, 1.0 / float(used_ns.max(1)))),
    );
    expect_memory(sample, &mut expected);
    expect_power(sample, &mut expected);
    for (alias, key) in [
        ("cpu_uses", "per_process_cpu_uses"),
        ("mem_use_abs", "per_process_mem_use_abs"),
        ("mem_use_percent", "per_process_mem_use_percent"),
        ("mem_use_uss", "per_process_mem_use_uss"),
    ] {
        if sample.cpu.contains_key("cpu_uses") {
            expected.insert(alias, expected[key].clone());
        }
    }
    let first = sample.cpu.keys().next().unwrap();
    assert_eq!(first, "per_process_cpu_uses", "the first key must never be missing");
    let keys: Vec<&str> = expected.keys().copied().collect();
    let mut written: Vec<&str> = sample.cpu.keys().map(String::as_str).collect();
    written.sort_unstable();
    assert_eq!(written, keys, "seq {}", sample.seq());
    for (key, figure) in expected {
        figure.check(key, &sample.cpu[key]);
    }
}

#[derive(Clone, Debug)]
enum Figure {
    Scalar(f64),
    Map(ByPid),
}

impl Figure {
    #[track_caller]
    fn check(&self, key: &str, written: &Value) {
        match self {
            Self::Scalar(expected) => close(key, *expected, written),
            Self::Map(expected) => {
                let map = written.as_object().unwrap();
                let pids: Vec<&String> = expected.keys().collect();
                let mut written: Vec<&String> = map.keys().collect();
                written.sort_unstable();
                assert_eq!(written, pids, "{key}");
                for (pid, expected) in expected {
                    close(key, *expected, &map[pid]);
                }
            }
        }
    }
}

/// Both sides are made from the same integers by a few operations on doubles: 1e-12 allows thousands of roundings.
#[track_caller]
fn close(key: &str, expected: f64, written: &Value) {
    let written = written.as_f64().unwrap();
    assert!(
        (written - expected).abs() <= 1e-12 * expected.abs(),
        "{key}: {written} is not {expected}"
    );
}

fn expect_memory(sample: &Sample, expected: &mut BTreeMap<&str, Figure>) {
    let memory = &sample.exact["memory"];
    let used = number(&memory["total_bytes"]) - number(&memory["available_bytes"]);
    let field = |row: &Value, field: &str| row.get("memory")?.get(field).map(number);
    let bytes = per_pid(sample, |row| {
        field(row, "pss_bytes").or_else(|| field(row, "rss_bytes"))
    });
    expected.insert(
        "per_process_mem_use_percent",
        Figure::Map(scaled(&bytes, 1.0 / float(used))),
    );
    expected.insert("per_process_mem_use_abs", Figure::Map(scaled(&bytes, 1.0)));
    let uss = per_pid(sample, |row| field(row, "uss_bytes"));
    expected.insert("per_process_mem_use_uss", Figure::Map(scaled(&uss, 1.0)));
    expected.insert("total_mem_use", Figure::Scalar(float(number(&memory["used_bytes"]))));
}

fn expect_power(sample: &Sample, expected: &mut BTreeMap<&str, Figure>) {
    // A microjoule a nanosecond is a kilowatt.
    let watts = 1000.0 / float(sample.end_ns() - sample.begin_ns());
    for (total, per_process, counted, split) in [
        (
            "intel_power",
            Some("rel_intel_power"),
            &["package", "machine"][..],
            &["core", "one_core", "uncore", "rest", "whole"][..],
        ),
        ("total_cpu_power", Some("per_process_cpu_power"), &["core"], &["core"]),
        ("total_dram_power", Some("per_process_dram_power"), &["dram"], &["dram"]),
        ("uncore_power", None, &["uncore"], &[]),
        ("psys_power", None, &["psys"], &[]),
    ] {
        let of_kinds = |kinds: &[&str]| -> Vec<&Value> {
            let is_one = |zone: &&Value| kinds.iter().any(|kind| zone["kind"] == *kind);
            sample.zones().iter().filter(is_one).collect()
        };
        let zones = of_kinds(counted);
        let known = |zones: &[&Value]| !zones.is_empty() && zones.iter().all(|zone| zone["state"] == "ok");
        if known(&zones) {
            let energy_uj: u64 = zones.iter().map(|zone| number(&zone["energy_uj"])).sum();
            expected.insert(total, Figure::Scalar(float(energy_uj) * watts));
        }
        // A part that is shown and not split is nobody's.
        let (leaves, shown): (Vec<&Value>, Vec<&Value>) =
            of_kinds(split).into_iter().partition(|zone| zone["role"] == "leaf");
        let all_are_split = counted == ["package", "machine"] || shown.is_empty();
        if let Some(per_process) = per_process
            && known(&leaves)
            && all_are_split
        {
            let energy = per_pid(sample, |row| {
                let parts = leaves.iter().filter_map(|leaf| leaf["zone"].as_str());
                // Of a core only what is above 0 is written.
                let has = |leaf: &&str| !leaf.contains("/core-") || row["energy_uj"].get(leaf).is_some();
                Some(parts.filter(has).map(|leaf| number(&row["energy_uj"][leaf])).sum())
            });
            expected.insert(per_process, Figure::Map(scaled(&energy, watts)));
        }
    }
}

/// Sums over the rows of each listed process; a process without a figure is left out.
fn per_pid(sample: &Sample, figure: impl Fn(&Value) -> Option<u64>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for row in sample.rows().iter().filter(|row| row["row"] == "process") {
        if let Some(figure) = figure(row) {
            *sums.entry(number(&row["tgid"]).to_string()).or_default() += figure;
        }
    }
    sums
}

fn scaled(sums: &BTreeMap<String, u64>, factor: f64) -> ByPid {
    sums.iter()
        .map(|(pid, sum)| (pid.clone(), float(*sum) * factor))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "the log's own figures are doubles")]
fn float(value: u64) -> f64 {
    value as f64
}
