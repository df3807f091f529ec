//! A ledger and its JSON.

use serde_json::{Value, json};

use super::*;
use crate::sinks::testing::{all_zones, ledger};

fn exact(ledger: &Ledger) -> Value {
    serde_json::to_value(Exact::of(ledger, Identity::StartTime)).unwrap()
}

#[test]
fn the_ledger_as_it_is() {
    let line = exact(&ledger(7, all_zones()));
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys.join(" "),
        "schema seq begin_ns end_ns energy_skew_ns seal_ns interrupts identity cpus zones idle_policy smt_weight_permille \
         memory rows cgroups"
    );
    assert_eq!(
        (&line["schema"], &line["seq"], &line["identity"]),
        (&json!(1), &json!(7), &json!("start_time"))
    );
    assert_eq!(
        line["cpus"][1],
        json!({"cpu": 1, "package": 0, "interval_ns": 1_000_000_000, "busy_ns": 500_000_000,
               "idle_ns": 300_000_000, "lost_ns": 200_000_000, "smt_shared_ns": 0, "switches": 42})
    );
    let zones: Vec<&str> = line["zones"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|zone| zone["zone"].as_str())
        .collect();
    assert_eq!(
        zones,
        [
            "package-0",
            "package-0/core",
            "package-0/uncore",
            "package-0/rest",
            "psys",
            "dram-0"
        ]
    );
    assert_eq!(
        line["zones"][0],
        json!({"zone": "package-0", "role": "root", "kind": "package", "package": 0, "energy_uj": 40_000_000,
               "counter_uj": 280_123_456, "range_uj": 262_143_328_850u64, "previous_carry_uj": 0, "carry_uj": 0,
               "source": "powercap", "state": "ok", "method": "measured"})
    );
    assert_eq!(
        line["zones"][3],
        json!({"zone": "package-0/rest", "role": "leaf", "kind": "rest", "package": 0, "energy_uj": 16_000_000,
               "source": "powercap", "state": "ok", "method": "cpu_time"})
    );
    assert_eq!(
        line["rows"][0],
        json!({"row": "process", "tgid": 100, "start_ns": 7, "comm": "python3", "exec_comm": "python3",
               "cgroup": "/train.slice/a", "tenant": "slice:train.slice", "uid": 1000, "exited": false, "cpu_ns": 700_000_000,
               "by_package": {"0": {"cpu_ns": 700_000_000, "smt_shared_ns": 0}},
               "memory": {"pss_bytes": 3_000_000_000u64, "uss_bytes": 1_500_000_000, "rss_bytes": 6_000_000_000u64,
                          "age_ns": 300},
               "energy_uj": {"package-0/core": 9_333_333, "package-0/uncore": 1_866_667,
                             "package-0/rest": 7_466_667, "dram-0": 2_400_000}})
    );
    let rows: Vec<&str> = line["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["row"].as_str())
        .collect();
    assert_eq!(
        rows,
        [
            "process",
            "process",
            "process",
            "process",
            "kernel",
            "self",
            "idle",
            "unattributed"
        ]
    );
    assert_eq!(line["rows"][7]["resident_bytes"], 6_000_000_000u64);
    assert_eq!(line["cgroups"][0]["cgroup"], "/");
}

#[test]
fn an_invalid_zone_has_a_reason_and_no_energy() {
    let mut zones = all_zones();
    zones[3].energy_uj = Err("counter was reset".to_owned());
    let line = exact(&ledger(0, zones));
    let dram = &line["zones"][5];
    assert_eq!(
        (&dram["state"], &dram["reason"]),
        (&json!("invalid"), &json!("counter was reset"))
    );
    assert!(dram["energy_uj"].is_null() && dram.get("energy_uj").is_some());
    assert!(
        line["rows"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["energy_uj"].get("dram-0").is_none())
    );
}
