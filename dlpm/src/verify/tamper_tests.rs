//! One digit, or one microjoule, at random places.

use serde_json::Value;

use super::{
    test_logs::{Random, counted, logs},
    tests::report,
};

/// Fields that nothing in a log can prove; `docs/log-format.md` lists them.
const NOT_COVERED: [&str; 4] = ["energy_skew_ns", "seal_ns", "age_ns", "start_ns"];

/// Floats are compared to 14 digits.
const PRECISION: f64 = 1e-14;

/// Pointers to the numbers in `value` that are energies, times or shares.
fn figures(value: &Value, path: &str, wanted: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let named = key.ends_with("_ns") || key.ends_with("_uj") || key.ends_with("_mw") || key == "cpu";
                let is_metric = path == "/metrics" && key == "cpu";
                let wanted = (wanted || (named && key != "cpu") || is_metric) && !NOT_COVERED.contains(&key.as_str());
                let key = key.replace('~', "~0").replace('/', "~1");
                figures(value, &format!("{path}/{key}"), wanted, found);
            }
        }
        Value::Array(values) => {
            for (position, value) in values.iter().enumerate() {
                figures(value, &format!("{path}/{position}"), wanted, found);
            }
        }
        Value::Number(_) if wanted => found.push(path.to_owned()),
        _ => {}
    }
}

/// Changes one digit of a number; `None` if that is not a change that a reader of the log could see.
fn other_digit(number: &Value, random: &mut Random) -> Option<Value> {
    let text = number.to_string();
    let digits: Vec<usize> = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_digit())
        .map(|(at, _)| at)
        .collect();
    let at = digits[random.index(digits.len())];
    let digit = char::from(b'0' + u8::try_from(random.below(10)).unwrap());
    let mut changed = text.clone();
    changed.replace_range(at..=at, &digit.to_string());
    let changed: Value = serde_json::from_str(&changed).ok()?;
    let (before, after) = (number.as_f64()?, changed.as_f64()?);
    let is_float = number.is_f64();
    let differs = if is_float {
        (before - after).abs() > before.abs() * 2.0 * PRECISION
    } else {
        *number != changed
    };
    differs.then_some(changed)
}

/// Pointers to all that was counted and weighed. Of a failed reading nothing but that it failed is said.
fn counted_figures(value: &Value, path: &str, wanted: bool, found: &mut Vec<String>) {
    let inner = |key: &str| wanted || matches!(key, "counts" | "counters" | "model");
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| *key != "failed") {
                counted_figures(value, &format!("{path}/{key}"), inner(key), found);
            }
        }
        Value::Array(values) => {
            for (position, value) in values.iter().enumerate() {
                counted_figures(value, &format!("{path}/{position}"), wanted, found);
            }
        }
        Value::Number(_) if wanted => found.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn a_digit_of_what_was_counted_or_weighed_is_found() {
    let (log, mut random) = (counted(), Random(17));
    let whole = report(&log);
    assert_eq!(whole.failed_lines, 0, "{:?}", whole.failures);
    // Both methods, and both reasons for the lesser one, are in it.
    for word in ["\"counters\"", "\"cpu_time\"", "could not be read", "from the meter"] {
        assert!(log.contains(word), "no {word}");
    }
    digits_are_missed_by_nobody(&[log], &mut random, 1000, |line, paths| {
        counted_figures(&line["dlpm"], "/dlpm", false, paths);
    });
}

/// Changes so many digits, each of a figure among those that `figures` finds in a line of one of the logs.
fn digits_are_missed_by_nobody(
    logs: &[String],
    random: &mut Random,
    tries: usize,
    figures: impl Fn(&Value, &mut Vec<String>),
) {
    let mut tried = 0;
    while tried < tries {
        let (lines, samples) = samples(&logs[random.index(logs.len())]);
        let number = samples[random.index(samples.len())];
        let mut line: Value = serde_json::from_str(&lines[number]).unwrap();
        let mut paths = Vec::new();
        figures(&line, &mut paths);
        let path = paths.swap_remove(random.index(paths.len()));
        let place = line.pointer_mut(&path).unwrap();
        let Some(changed) = other_digit(place, random) else {
            continue;
        };
        let before = std::mem::replace(place, changed.clone());
        tried += 1;
        let report = report(&with_line(&lines, number, &line));
        assert!(
            report.failed_lines > 0,
            "{path} of line {number}: {before} became {changed} unseen"
        );
    }
}

fn samples(log: &str) -> (Vec<String>, Vec<usize>) {
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    let samples = (0..lines.len())
        .filter(|number| lines[*number].contains("\"rows\""))
        .collect();
    (lines, samples)
}

fn with_line(lines: &[String], number: usize, value: &Value) -> String {
    let mut lines = lines.to_vec();
    lines[number] = value.to_string();
    lines.join("\n") + "\n"
}

#[test]
fn a_digit_that_changed_is_found_wherever_it_is() {
    digits_are_missed_by_nobody(&logs(), &mut Random(2026), 1200, |line, paths| {
        figures(line, "", false, paths);
    });
}

#[test]
fn a_microjoule_that_moved_is_found_even_if_every_sum_still_closes() {
    let (logs, mut random) = (logs(), Random(777));
    let mut tried = 0;
    while tried < 400 {
        let (lines, samples) = samples(&logs[random.index(logs.len())]);
        let number = samples[random.index(samples.len())];
        let mut line: Value = serde_json::from_str(&lines[number]).unwrap();
        let rows = line["dlpm"]["rows"].as_array().unwrap().len();
        let (from, to) = (random.index(rows), random.index(rows));
        let leaves: Vec<String> = line["dlpm"]["rows"][from]["energy_uj"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let leaf = &leaves[random.index(leaves.len())];
        if from == to || line["dlpm"]["rows"][from]["energy_uj"][leaf] == 0 {
            continue;
        }
        tried += 1;
        for (row, by) in [(from, -1), (to, 1)] {
            let cgroup = line["dlpm"]["rows"][row]["cgroup"].clone();
            add(&mut line["dlpm"]["rows"][row]["energy_uj"][leaf], by);
            let sums = line["dlpm"]["cgroups"].as_array_mut().unwrap();
            for sum in sums.iter_mut().filter(|sum| sum["cgroup"] == cgroup) {
                add(&mut sum["energy_uj"][leaf], by);
            }
        }
        // So that the split alone can tell.
        line["metrics"]["cpu"] = metrics_of(&line);
        let report = report(&with_line(&lines, number, &line));
        assert!(
            report.failed_lines > 0,
            "1 µJ of {leaf} from row {from} to {to} of line {number} unseen"
        );
        let failures = &report.failures[0].what;
        assert!(failures.iter().all(|what| what.contains("split again")), "{failures:?}");
    }
}

fn add(number: &mut Value, by: i64) {
    *number = (number.as_i64().unwrap() + by).into();
}

/// The metrics that the changed exact part gives.
fn metrics_of(line: &Value) -> Value {
    let recorded = crate::log::exact::Exact::read(&line["dlpm"]).unwrap();
    let ledger = recorded.ledger(0).unwrap();
    let aliases = line["metrics"]["cpu"].get("cpu_uses").is_some();
    let metrics = crate::aipowermeter::cpu::CpuMetrics::of(&ledger, ledger.machine_memory, aliases);
    serde_json::to_value(metrics).unwrap()
}
