//! A written log: parsed, and held line by line against both laws and against the rules of AIPowerMeter's reader.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Map, Value};

use crate::metrics;

/// Name of the log in its folder.
pub const LOG_NAME: &str = "power_metrics.json";

/// Name of the other file.
pub const METADATA_NAME: &str = "metadata.json";

/// Intervals below this repeat AIPowerMeter's fields of the one before, as power in them is the meter's step.
const SHORT_NS: u64 = 5_000_000;

const SEGMENT_END: &str = "END OF RECORDING SEGMENT";

/// A log that keeps all rules.
#[derive(Debug)]
pub struct Log {
    /// Lines with an interval, in order.
    pub samples: Vec<Sample>,
    /// `dlpm` of the lines without an interval.
    pub events: Vec<Value>,
    /// Segments.
    pub segments: usize,
    /// `metadata.json`
    pub metadata: Value,
}

/// A line with an interval.
#[derive(Clone, Debug)]
pub struct Sample {
    /// AIPowerMeter's fields.
    pub cpu: Map<String, Value>,
    /// Those of GPUs; null without a GPU.
    pub gpu: Value,
    /// The exact part.
    pub exact: Value,
}

impl Log {
    /// Reads the log of a folder.
    ///
    /// # Panics
    ///
    /// Where a law or a rule is broken.
    #[track_caller]
    pub fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
        let metadata = fs::read_to_string(folder.join(METADATA_NAME)).unwrap();
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        assert!(
            metadata["description"].is_string() && metadata["date"].is_string(),
            "{metadata}"
        );
        let mut log = Self {
            samples: Vec::new(),
            events: Vec::new(),
            segments: 0,
            metadata,
        };
        assert_eq!(dlpm::verify::files::check(folder), [""; 0]);
        assert!(text.ends_with('\n') || text.is_empty(), "the last line is not whole");
        let mut segment: Vec<(String, BTreeSet<String>)> = Vec::new();
        // The newest sample of the segment that is long enough to tell power.
        let mut tells_power: Option<(Map<String, Value>, Value)> = None;
        let mut was_dropped = false;
        for line in text.lines() {
            match serde_json::from_str(line).unwrap() {
                Value::String(end) => {
                    assert_eq!(end, SEGMENT_END);
                    check_segment(&std::mem::take(&mut segment));
                    tells_power = None;
                    log.segments += 1;
                }
                Value::Object(mut line) => {
                    let Some(Value::Object(mut metrics)) = line.remove("metrics") else {
                        panic!("no metrics: {line:?}");
                    };
                    let exact = line.remove("dlpm").unwrap();
                    assert_eq!(exact["schema"], 1);
                    let Some(cpu) = metrics.remove("cpu") else {
                        assert!(
                            metrics.is_empty() && line.is_empty(),
                            "an event with more: {line:?} {metrics:?}"
                        );
                        was_dropped |= exact["event"] == "dropped";
                        log.events.push(exact);
                        continue;
                    };
                    let Value::Object(cpu) = cpu else { panic!("{cpu}") };
                    let date = line["date"].as_str().unwrap().to_owned();
                    check_date(&date);
                    segment.push((date, cpu.keys().cloned().collect()));
                    if exact.get("event").is_some() {
                        log.events.push(exact);
                        continue;
                    }
                    let gpu = metrics.remove("gpu").unwrap_or_default();
                    let sample = Sample { cpu, gpu, exact };
                    sample.check_laws();
                    let is_short = sample.end_ns() - sample.begin_ns() < SHORT_NS;
                    match &tells_power {
                        Some(repeated) if is_short => {
                            assert_eq!((&repeated.0, &repeated.1), (&sample.cpu, &sample.gpu))
                        }
                        None if is_short && was_dropped => {}
                        _ => metrics::check(&sample),
                    }
                    if !is_short {
                        was_dropped = false;
                        tells_power = Some((sample.cpu.clone(), sample.gpu.clone()));
                    }
                    log.samples.push(sample);
                }
                other => panic!("neither an object nor a string: {other}"),
            }
        }
        assert!(segment.is_empty(), "the log does not end with the end of a segment");
        log.check_sequence();
        // `dlpm verify` finds the same, also after another JSON library has written the log anew.
        for text in [&text, &with_sorted_keys(&text)] {
            let report = dlpm::verify::verify(text.as_bytes(), 3).unwrap();
            assert!(report.failures.is_empty(), "{:?}", report.failures);
        }
        log
    }

    /// Within a trace, each interval begins where the one before it ended, and a carry is settled in the next.
    fn check_sequence(&self) {
        for pair in self.samples.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            if after.seq() != before.seq() + 1 {
                continue;
            }
            assert_eq!(before.end_ns(), after.begin_ns(), "seq {}", after.seq());
            for zone in after.zones() {
                let Some(carry) = before.zone(name(zone)).and_then(|zone| zone.get("carry_uj")) else {
                    continue;
                };
                if before.is_known(name(zone)) {
                    assert_eq!(zone["previous_carry_uj"], *carry, "seq {} {zone}", after.seq());
                }
            }
        }
    }

    /// Asserts that no interval is missing.
    #[track_caller]
    pub fn is_complete(&self) -> &Self {
        let seqs: Vec<u64> = self.samples.iter().map(Sample::seq).collect();
        let all: Vec<u64> = (0..seqs.len() as u64).collect();
        assert_eq!(seqs, all);
        self
    }

    /// Every process that is listed anywhere: tgid to the names of its rows.
    pub fn listed(&self) -> BTreeMap<u32, BTreeSet<String>> {
        let mut listed: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for row in self.rows("process") {
            let names = listed.entry(u32::try_from(number(&row["tgid"])).unwrap()).or_default();
            names.insert(row["comm"].as_str().unwrap().to_owned());
        }
        listed
    }

    /// All rows of a kind.
    pub fn rows(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.samples
            .iter()
            .flat_map(move |sample| sample.rows().iter().filter(move |row| row["row"] == kind))
    }

    /// CPU time of all rows of a kind.
    pub fn cpu_ns(&self, kind: &str) -> u64 {
        self.rows(kind).map(|row| number(&row["cpu_ns"])).sum()
    }

    /// Energy of all rows of a kind, from all leaves.
    pub fn energy_uj(&self, kind: &str) -> u64 {
        self.rows(kind)
            .flat_map(|row| row["energy_uj"].as_object().unwrap().values())
            .map(number)
            .sum()
    }
}

impl Sample {
    /// Number of the interval.
    pub fn seq(&self) -> u64 {
        number(&self.exact["seq"])
    }

    /// Where it begins, on CLOCK_MONOTONIC.
    pub fn begin_ns(&self) -> u64 {
        number(&self.exact["begin_ns"])
    }

    /// Where it ends, on CLOCK_MONOTONIC.
    pub fn end_ns(&self) -> u64 {
        number(&self.exact["end_ns"])
    }

    /// Its rows.
    pub fn rows(&self) -> &[Value] {
        self.exact["rows"].as_array().unwrap()
    }

    /// Its zones.
    pub fn zones(&self) -> &[Value] {
        self.exact["zones"].as_array().unwrap()
    }

    /// A zone.
    pub fn zone(&self, wanted: &str) -> Option<&Value> {
        self.zones().iter().find(|zone| name(zone) == wanted)
    }

    /// Its CPUs.
    pub fn cpus(&self) -> &[Value] {
        self.exact["cpus"].as_array().unwrap()
    }

    /// Sum of a field over all CPUs.
    pub fn over_cpus(&self, field: &str) -> u64 {
        self.cpus().iter().map(|cpu| number(&cpu[field])).sum()
    }

    /// What all rows got of a leaf.
    pub fn rows_uj(&self, leaf: &str) -> u64 {
        let energies = self.rows().iter().filter_map(|row| row["energy_uj"].get(leaf));
        energies.map(number).sum()
    }

    fn is_known(&self, zone: &str) -> bool {
        self.zone(zone).is_some_and(|zone| zone["state"] == "ok")
    }

    fn check_laws(&self) {
        for cpu in self.cpus() {
            let sum = number(&cpu["busy_ns"]) + number(&cpu["idle_ns"]) + number(&cpu["lost_ns"]);
            assert_eq!(sum, number(&cpu["interval_ns"]), "the time law: {cpu}");
        }
        let time_of = |wanted: fn(&str) -> bool| -> u64 {
            let rows = self.rows().iter().filter(|row| row["row"].as_str().is_some_and(wanted));
            rows.map(|row| number(&row["cpu_ns"])).sum()
        };
        assert_eq!(time_of(|row| row == "idle"), self.over_cpus("idle_ns"));
        assert_eq!(time_of(|row| row == "unattributed"), self.over_cpus("lost_ns"));
        assert_eq!(
            time_of(|row| row != "idle" && row != "unattributed"),
            self.over_cpus("busy_ns")
        );
        for row in self.rows() {
            let packages = row["by_package"].as_object().unwrap().values();
            let sum: u64 = packages.map(|part| number(&part["cpu_ns"])).sum();
            assert_eq!(sum, number(&row["cpu_ns"]), "{row}");
        }
        self.check_energy();
        self.check_cgroups();
    }

    fn check_energy(&self) {
        let known: BTreeSet<&str> = self
            .zones()
            .iter()
            .filter(|zone| zone["role"] == "leaf" && zone["state"] == "ok")
            .map(name)
            .collect();
        for row in self.rows() {
            let leaves: BTreeSet<&str> = row["energy_uj"]
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert!(leaves.is_subset(&known), "{row}");
            // Of a GPU, and of one core, only what is above 0 is written.
            let may_be_missing = |leaf: &&str| leaf.starts_with("gpu-") || leaf.contains("/core-");
            assert!(known.difference(&leaves).all(may_be_missing), "{row}");
        }
        for leaf in &known {
            let energy = &self.zone(leaf).unwrap()["energy_uj"];
            assert_eq!(
                self.rows_uj(leaf),
                number(energy),
                "the energy law: {leaf}, seq {}",
                self.seq()
            );
        }
        for zone in self.zones().iter().filter(|zone| zone["state"] != "ok") {
            assert!(zone["energy_uj"].is_null() && zone["reason"].is_string(), "{zone}");
        }
        for package in self
            .zones()
            .iter()
            .filter(|zone| zone["role"] == "root" && zone["state"] == "ok")
        {
            let prefix = format!("{}/", name(package));
            let leaves: Vec<&Value> = self
                .zones()
                .iter()
                .filter(|zone| zone["role"] == "leaf" && name(zone).starts_with(&prefix))
                .collect();
            if leaves.is_empty() || leaves.iter().any(|leaf| leaf["state"] != "ok") {
                continue;
            }
            let sum: u64 = leaves.iter().map(|leaf| number(&leaf["energy_uj"])).sum();
            let carry = |field: &str| i128::from(package.get(field).map_or(0, |carry| carry.as_i64().unwrap()));
            assert!(carry("carry_uj") <= 0, "{package}");
            let expected = i128::from(number(&package["energy_uj"])) + carry("previous_carry_uj") - carry("carry_uj");
            assert_eq!(i128::from(sum), expected, "the leaves of {package}");
        }
    }

    fn check_cgroups(&self) {
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let parts = |row: &Value| -> (u64, u64) {
            let energy = row["energy_uj"].as_object().unwrap().values().map(number).sum();
            (number(&row["cpu_ns"]), energy)
        };
        for row in self
            .rows()
            .iter()
            .filter(|row| row["row"] == "process" || row["row"] == "merged")
        {
            let (cpu_ns, energy_uj) = parts(row);
            let sum = sums.entry(row["cgroup"].as_str().unwrap()).or_default();
            *sum = (sum.0 + cpu_ns, sum.1 + energy_uj);
        }
        let written = self.exact["cgroups"].as_array().unwrap();
        let written: BTreeMap<&str, (u64, u64)> = written
            .iter()
            .map(|cgroup| (cgroup["cgroup"].as_str().unwrap(), parts(cgroup)))
            .collect();
        assert_eq!(written, sums, "cgroups of seq {}", self.seq());
    }
}

/// A segment has at least two samples, the last has every key, and dates rise.
fn check_segment(segment: &[(String, BTreeSet<String>)]) {
    assert!(segment.len() >= 2, "a segment of {} samples", segment.len());
    let last = &segment[segment.len() - 1].1;
    for (date, keys) in segment {
        assert!(
            keys.is_subset(last),
            "{date}: the last sample of the segment lacks some of {keys:?}"
        );
    }
    assert!(
        segment.is_sorted_by(|(a, _), (b, _)| a < b),
        "dates do not rise: {segment:?}"
    );
}

/// `2026-03-07 10:00:01.000000+01:00`
fn check_date(date: &str) {
    let form: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form.replace('+', "-"), "0000-00-00 00:00:00.000000-00:00", "{date}");
}

fn name(zone: &Value) -> &str {
    zone["zone"].as_str().unwrap()
}

/// The same log with the keys of every object in another order.
fn with_sorted_keys(log: &str) -> String {
    let sorted = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.sort_all_objects();
        format!("{line}\n")
    };
    log.lines().map(sorted).collect()
}

/// A number that must be there, and whole.
#[track_caller]
pub fn number(value: &Value) -> u64 {
    let Some(number) = value.as_u64() else {
        panic!("{value} is not a whole number");
    };
    number
}
