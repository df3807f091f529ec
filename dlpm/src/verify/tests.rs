//! Logs that hold, and what must not hold.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Map, Value, json};

use super::{
    Report,
    test_logs::{ahead, eventful, logs, parts_outside, with_cgroup_memory, with_switch_cost},
    verify,
};
use crate::attribution::selection::Selection;

pub fn report(log: &str) -> Report {
    verify(log.as_bytes(), 20).unwrap()
}

#[track_caller]
pub fn accepted(log: &str) -> Report {
    let report = report(log);
    assert_eq!(report.failures, [], "in:\n{log}");
    report
}

#[track_caller]
pub fn refused(log: &str, says: &str) {
    let report = report(log);
    let found = report
        .failures
        .iter()
        .flat_map(|failure| &failure.what)
        .any(|what| what.contains(says));
    assert!(
        found && report.failed_lines > 0,
        "not `{says}` but {:#?}",
        report.failures
    );
}

#[test]
fn what_the_sinks_write_is_accepted() {
    let logs = logs();
    assert_eq!(logs.len(), 10);
    for log in &logs {
        let report = accepted(log);
        assert_eq!((report.segments, report.traces), (1, 1));
    }
    let all = logs.concat();
    assert!(
        [
            "\"merged\"",
            "\"others\"",
            "\"cgroup_memory\"",
            "\"carry_uj\":-",
            "\"idle_floor_mw\"",
            "capacity",
            "estimate"
        ]
        .iter()
        .all(|what| all.contains(what)),
        "the logs do not hold all that can be in one"
    );
    let report = accepted(&eventful());
    assert_eq!((report.traces, report.intervals), (2, 17));
    accepted("");
}

#[test]
fn another_librarys_spelling_is_the_same_log() {
    for log in logs().iter().chain([&eventful()]) {
        let rewritten: String = log
            .lines()
            .map(|line| {
                let mut value: Value = serde_json::from_str(line).unwrap();
                value.sort_all_objects();
                format!(" {} \n", spelled(&value))
            })
            .collect();
        assert_ne!(rewritten, *log);
        accepted(&rewritten);
    }
}

/// With floats of 15 digits in scientific notation, whole ones as integers, and text in ASCII.
fn spelled(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap();
            if float.fract() == 0.0 {
                format!("{float:.0}")
            } else {
                format!("{float:.14e}")
            }
        }
        Value::String(text) => {
            let quoted = Value::String(text.clone()).to_string();
            quoted.replace('ü', "\\u00fc").replace('/', "\\/")
        }
        Value::Array(values) => format!("[{}]", values.iter().map(spelled).collect::<Vec<_>>().join(" , ")),
        Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{} : {}", Value::String(key.clone()), spelled(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn python_may_write_the_log_anew() {
    const SCRIPT: &str = "import sys, json\nfor l in sys.stdin: print(json.dumps(json.loads(l), sort_keys=True))";
    let python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("SKIPPED: there is no python3");
        return;
    };
    let log = logs().swap_remove(0) + &eventful();
    let mut input = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(log.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let report = accepted(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report.traces, 3);
}

/// The line of `log` at `number`, changed.
fn changed(log: &str, number: usize, change: impl FnOnce(&mut Value)) -> String {
    let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
    let mut value: Value = serde_json::from_str(&lines[number]).unwrap();
    change(&mut value);
    lines[number] = value.to_string();
    lines.join("\n") + "\n"
}

#[test]
fn each_law_is_named_when_it_is_broken() {
    let log = logs().swap_remove(0);
    let put = |path: &'static str, with: Value| changed(&log, 1, |line| *line.pointer_mut(path).unwrap() = with);
    let number = |path: &str| {
        let line: Value = serde_json::from_str(log.lines().nth(1).unwrap()).unwrap();
        line.pointer(path).unwrap().as_u64().unwrap()
    };
    let more = |path: &'static str| put(path, json!(number(path) + 1));
    refused(&more("/dlpm/cpus/0/idle_ns"), "time law");
    refused(&more("/dlpm/cpus/0/interval_ns"), "time law");
    refused(&more("/dlpm/zones/1/energy_uj"), "energy law");
    refused(&more("/dlpm/zones/0/energy_uj"), "of package-0");
    refused(&more("/dlpm/rows/0/energy_uj/dram-0"), "split again");
    refused(&more("/dlpm/rows/0/cpu_ns"), "against its packages");
    refused(&more("/dlpm/cgroups/0/cpu_ns"), "against its rows");
    refused(&more("/dlpm/cpus/3/smt_shared_ns"), "busy sibling");
    refused(&more("/dlpm/begin_ns"), "begin_ns against the end");
    refused(&more("/dlpm/zones/0/counter_uj"), "the counter went from");
    refused(&put("/dlpm/smt_weight_permille", json!(551)), "split again");
    refused(&put("/dlpm/idle_policy", json!("capacity")), "split again");
    refused(&put("/dlpm/idle_policy", json!("separate")), "idle_floor_mw");
    refused(&put("/dlpm/idle_policy", json!("fair")), "unknown");
    refused(&put("/dlpm/seq", json!(5)), "missing");
    refused(&put("/metrics/cpu/intel_power", json!(1.0)), "intel_power: expected");
    refused(&put("/metrics/cpu/cpu_uses/1", json!(0.5)), "cpu_uses of 1");
    refused(&put("/date", json!("2026-01-01T00:00:00Z")), "date");
    refused(
        &put("/date", json!("2026-01-01 00:00:00.000000+00:00")),
        "within a segment it goes with",
    );
    refused(&put("/dlpm/schema", json!(2)), "schema");
    refused(
        &changed(&log, 1, |line| {
            drop(line["dlpm"].as_object_mut().unwrap().remove("cpus"))
        }),
        "`cpus`",
    );
    refused(
        &changed(&log, 1, |line| drop(line["dlpm"]["rows"].as_array_mut().unwrap().pop())),
        "row unattributed",
    );
    refused(
        &changed(&log, 1, |line| line["dlpm"]["rows"].as_array_mut().unwrap().swap(0, 1)),
        "not in order",
    );
}

#[test]
fn the_estimate_of_the_switches_is_their_number_times_the_cost_of_one() {
    let log = with_switch_cost();
    accepted(&log);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own = |line: &Value| {
        let rows = line["dlpm"]["rows"].as_array().unwrap();
        rows.iter().position(|row| row["row"] == "self").unwrap()
    };
    let number = |line: &Value| line["dlpm"]["rows"][own(line)]["in_switches"].clone();
    let samples: Vec<usize> = (0..lines.len())
        .filter(|n| lines[*n]["dlpm"].get("rows").is_some())
        .collect();
    assert_eq!(number(&lines[samples[0]]), Value::Null);
    let last = samples[2];
    let rows = lines[last]["dlpm"]["rows"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row.get("in_switches").is_some()).count(), 1);
    let cpus = lines[last]["dlpm"]["cpus"].as_array().unwrap();
    let switches: u64 = cpus.iter().map(|cpu| cpu["switches"].as_u64().unwrap()).sum();
    assert_eq!(
        number(&lines[last]),
        json!({"switches": switches, "ns_per_switch": 113, "estimate_ns": switches * 113})
    );
    for (field, says) in [
        ("switches", "switches of row self"),
        ("ns_per_switch", "estimate_ns of row self"),
        ("estimate_ns", "estimate_ns of row self"),
    ] {
        let more = changed(&log, last, |line| {
            let row = own(line);
            let place = &mut line["dlpm"]["rows"][row]["in_switches"][field];
            *place = json!(place.as_u64().unwrap() + 1);
        });
        refused(&more, says);
    }
}

#[test]
fn lines_and_segments_that_are_missing_are_seen() {
    let log = logs().swap_remove(0);
    let lines: Vec<&str> = log.lines().collect();
    let without = |number: usize| {
        let mut lines = lines.clone();
        lines.remove(number);
        lines.join("\n") + "\n"
    };
    refused(&without(1), "are missing");
    refused(&without(0), "seq of the first interval");
    refused(&without(4), "does not end with the end of a segment");
    refused(log.trim_end(), "is not whole");
    refused(&format!("{log}{}\n", lines[4]), "a segment of 0 samples");
    refused(&format!("\n{log}"), "not JSON");
    refused(&format!("12\n{log}"), "neither an object");
    refused(&format!("{{\"date\":\"x\"}}\n{log}"), "no `metrics`");
    refused(&log.replacen("\"psys_power\":", "\"psys\":", 1), "lacks psys_power");

    let eventful = eventful();
    let lines: Vec<&str> = eventful
        .lines()
        .filter(|line| !line.contains("\"event\":\"gap\""))
        .collect();
    refused(&(lines.join("\n") + "\n"), "no event says so");
    refused(
        &eventful.replace("\"event\":\"gap\",\"from_seq\":9", "\"event\":\"gap\",\"from_seq\":8"),
        "event gap",
    );
    refused(
        &eventful.replace("\"step_ns\":-3600", "\"step_ns\":-3500"),
        "event clock_step",
    );
    refused(
        &eventful.replace(
            "{\"zone\":\"psys\",\"state\":\"invalid\"",
            "{\"zone\":\"psys\",\"state\":\"ok\"",
        ),
        "zones_changed",
    );
    refused(
        &eventful.replace("\"event\":\"repeat\",\"seq\":3", "\"event\":\"repeat\",\"seq\":2"),
        "repeated",
    );
}

#[test]
fn parts_that_are_outside_their_package_are_known_by_what_was_carried() {
    // By 10 J at once, by 1 J a second after six of them.
    for (core_w, believed) in [(50, 0), (41, 5)] {
        let log = parts_outside(core_w);
        assert_eq!(accepted(&log).intervals, 36);
        assert_eq!(
            log.matches("\"parts_outside\":true").count(),
            36 - believed,
            "{core_w} W"
        );
        assert_eq!(
            log.matches("\"zone\":\"package-0/whole\"").count(),
            36 - believed + usize::from(believed > 0)
        );
        refused(
            &log.replacen("\"parts_outside\":true,", "", 1),
            "parts_outside of package-0: expected true, found false",
        );
        refused(
            &log.replacen("are not inside it", "may be inside it", 1),
            "one_leaf of package-0",
        );
    }
    let early = parts_outside(41).replacen(
        "\"carry_uj\":-1000000",
        "\"carry_uj\":-1000000,\"parts_outside\":true",
        1,
    );
    refused(
        &early,
        "one_leaf of package-0: expected the parts of package-0 counted more",
    );
}

#[test]
fn leaves_exceed_their_package_by_what_reading_late_explains_and_no_more() {
    for skew_ns in [900_000_000, 400_000_000, 50_000_000] {
        let log = ahead(skew_ns);
        accepted(&log);
        assert!(log.contains("\"carry_uj\":-10000000"), "{skew_ns}");
        let soon = log.replace(&format!("\"energy_skew_ns\":{skew_ns}"), "\"energy_skew_ns\":20000");
        refused(
            &soon,
            "the leaves of package-0 exceed it by 10000000 µJ: expected at most 6002000",
        );
    }
    assert!(
        ahead(20_000).contains("\"parts_outside\":true"),
        "it is one leaf instead"
    );
}

#[test]
fn an_empty_log_proves_nothing() {
    for nothing in ["", "\n", "\u{feff}"] {
        let report = verify(nothing.as_bytes(), 9).unwrap();
        assert_eq!(report.intervals, 0, "{nothing:?}");
        assert!(report.proves_nothing(), "{nothing:?}");
    }
    assert!(!verify(logs()[0].as_bytes(), 9).unwrap().proves_nothing());
}

#[test]
fn the_first_failures_are_kept_and_all_are_counted() {
    let log = logs().swap_remove(0);
    let broken = log.replace("\"lost_ns\":0", "\"lost_ns\":1");
    let report = verify(broken.as_bytes(), 2).unwrap();
    assert_eq!((report.failures.len(), report.failed_lines), (2, 4), "{report:?}");
    assert_eq!(report.failures[0].line, 1);
    assert!(report.failures[0].what.len() <= 4 && report.failures[0].more > 0);
}

/// `value` with a key that this version does not know: a later one may add some.
#[test]
fn keys_may_be_added_to_the_exact_part() {
    let log = logs().swap_remove(0);
    let later = changed(&log, 1, |line| {
        let add = |map: &mut Map<String, Value>| drop(map.insert("later".to_owned(), json!({"a": 1.5})));
        add(line["dlpm"].as_object_mut().unwrap());
        add(line["dlpm"]["rows"][0].as_object_mut().unwrap());
    });
    accepted(&later);
}

#[test]
fn memory_of_cgroups_is_proved() {
    let log = with_cgroup_memory(Selection::default());
    accepted(&log);
    let of_a = Selection {
        cgroups: vec!["/a".to_owned()],
        ..Selection::default()
    };
    accepted(&with_cgroup_memory(of_a));
    // Of the processes in those cgroups readings are shown, and weigh nothing.
    let covered = changed(&log, 1, |line| {
        let rows = line["dlpm"]["rows"].as_array_mut().unwrap();
        let row = rows
            .iter_mut()
            .find(|row| row["row"] == "process" && row["resident_bytes"] == 0);
        row.unwrap().as_object_mut().unwrap().remove("resident_bytes");
    });
    refused(&covered, "of dram-0, split again");
    let other_method = log.replace("\"cgroup_memory\"", "\"memory\"");
    refused(&other_method, "method of dram");
    let free = log.replace("\"free_bytes\":30000000000", "\"free_bytes\":30000000001");
    refused(&free, "resident_bytes of row unattributed against the memory in use");
    let nested = log.replace(
        "\"row\":\"memory\",\"cgroup\":\"/a/b\"",
        "\"row\":\"memory\",\"cgroup\":\"/0\"",
    );
    refused(&nested, "rows are not in order");
}
