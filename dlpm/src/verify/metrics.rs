//! AIPowerMeter's fields against the exact part: each is made again by its formula.

use serde_json::{Map, Value};

use super::sequence::Machine;
use crate::{
    aipowermeter::{cpu::CpuMetrics, fields, gpu::GpuMetrics},
    attribution::ledger::Ledger,
    log::differs,
};

/// Two floats that differ by less than this part of them are one: JSON libraries that write 15 significant digits
/// change a float by up to 5e-15 of it.
const PRECISION: f64 = 1e-14;

/// Keys that need the memory of the machine.
const OF_MACHINE_MEMORY: [&str; 5] = [
    fields::PER_PROCESS_MEM_USE_PERCENT.name,
    fields::MEM_USE_PERCENT.name,
    fields::TOTAL_MEM_USE.name,
    fields::TOTAL_DRAM_POWER.name,
    fields::PER_PROCESS_DRAM_POWER.name,
];

/// What in `found` (`metrics.cpu`) is not what the exact part gives, a sentence each.
pub fn check(found: &Value, ledger: &Ledger, machine: Machine) -> Vec<String> {
    let Some(found) = found.as_object() else {
        // The rules of the reader say so.
        return Vec::new();
    };
    let newest = match machine {
        Machine::Known(memory) => memory,
        // With some memory, so that every key is made; those that need it are not compared.
        Machine::Unknown => Some(ledger.machine_memory.unwrap_or_default()),
    };
    let metrics = CpuMetrics::of(ledger, newest, found.contains_key(fields::CPU_USES.name));
    let Ok(Value::Object(expected)) = serde_json::to_value(&metrics) else {
        return vec!["its metrics cannot be made from its exact part".to_owned()];
    };
    let compared = |key: &str| machine != Machine::Unknown || !OF_MACHINE_MEMORY.contains(&key);
    let mut failures = Vec::new();
    for (key, expected) in expected.iter().filter(|(key, _)| compared(key)) {
        match found.get(key) {
            Some(found) => compare(key, expected, found, &mut failures),
            None => failures.push(format!("metrics.cpu lacks {key}")),
        }
    }
    for key in found.keys().filter(|key| compared(key) && !expected.contains_key(*key)) {
        failures.push(format!(
            "{key} is in metrics.cpu, and nothing in the exact part that it could be made of"
        ));
    }
    failures
}

/// What in `found` (`metrics.gpu`) is not what the exact part gives, a sentence each.
pub fn check_gpu(found: Option<&Value>, ledger: &Ledger) -> Vec<String> {
    let expected = serde_json::to_value(GpuMetrics::of(ledger)).unwrap_or_default();
    let mut failures = Vec::new();
    match (expected, found) {
        (Value::Object(expected), Some(Value::Object(found))) => {
            compare_maps("metrics.gpu", &expected, found, &mut failures);
        }
        (Value::Null, None) => {}
        (Value::Null, Some(_)) => failures.push("metrics.gpu is there, and no GPU whose energy is known".to_owned()),
        _ => failures.push("metrics.gpu is missing, or no object".to_owned()),
    }
    failures
}

/// Compares numbers, and maps of numbers; a sentence for each that differs.
pub fn compare(key: &str, expected: &Value, found: &Value, failures: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => compare_maps(key, expected, found, failures),
        _ => {
            let same = match (expected.as_f64(), found.as_f64()) {
                (Some(expected), Some(found)) => is_same(expected, found),
                _ => expected == found,
            };
            if !same {
                failures.push(differs(key, expected, found));
            }
        }
    }
}

fn compare_maps(key: &str, expected: &Map<String, Value>, found: &Map<String, Value>, failures: &mut Vec<String>) {
    for (entry, expected) in expected {
        let name = format!("{key} of {entry}");
        match found.get(entry) {
            Some(found) => compare(&name, expected, found, failures),
            None => failures.push(differs(&name, expected, "nothing")),
        }
    }
    for (entry, value) in found.iter().filter(|(entry, _)| !expected.contains_key(*entry)) {
        failures.push(differs(&format!("{key} of {entry}"), "nothing", value));
    }
}

fn is_same(expected: f64, found: f64) -> bool {
    (expected - found).abs() <= expected.abs() * PRECISION
}
