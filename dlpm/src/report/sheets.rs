//! The tables of a report as records: the same for JSON and CSV.

use crate::{
    report::{
        collect::Collected,
        foreign::ForeignZone,
        model::{Model, joules_per_inference},
        sheet::{Cell, Record},
    },
    totals::{Amount, Peak, Share, Totals, Usage, ZoneTotal, gpus::GpuUsage, phases::PhaseTotal},
};

/// What tables are made of.
pub struct Sheets<'a> {
    /// The sums.
    pub collected: &'a Collected,
    /// Rows of a table at most; the rest is one row.
    pub top: usize,
    /// The model, if there is one.
    pub model: Option<&'a Model>,
    /// Inferences in the window.
    pub inferences: Option<u64>,
}

impl Sheets<'_> {
    fn totals(&self) -> &Totals {
        &self.collected.totals
    }

    /// Zones, with who got what of them.
    pub fn zones(&self) -> Vec<Record> {
        self.totals().zones.iter().map(zone).collect()
    }

    /// Listed processes by cgroup, then the rows that are none.
    pub fn processes(&self) -> Vec<Record> {
        let entries = self.totals().processes.iter();
        let named = entries.map(|((id, cgroup), total)| {
            let names = Record::default()
                .with("row", "process")
                .with("tgid", id.tgid)
                .with("start_ns", id.start_ns)
                .with("comm", &*total.comm)
                .with("cgroup", &**cgroup);
            let usage = Usage {
                amount: total.amount,
                peak: total.peak,
            };
            (names, usage)
        });
        let mut records = self.largest(named.collect(), &|word| {
            let mut names = Record::default().with("row", word);
            for name in ["tgid", "start_ns", "comm", "cgroup"] {
                names = names.with(name, Cell::Missing);
            }
            names
        });
        for share in Share::FIXED {
            if let Some(usage) = self.totals().shares.get(&share) {
                let names = ["tgid", "start_ns", "comm", "cgroup"];
                let names = names
                    .iter()
                    .fold(Record::default().with("row", share.as_str()), |names, name| {
                        names.with(name, Cell::Missing)
                    });
                records.push(names.and(self.usage(usage.amount, Some(usage.peak))));
            }
        }
        records
    }

    /// Listed processes, summed by cgroup.
    pub fn cgroups(&self) -> Vec<Record> {
        let entries = self.totals().cgroups.iter();
        let named = entries.map(|(cgroup, usage)| {
            let names = Record::default().with("row", "cgroup").with("cgroup", cgroup.as_str());
            (names, *usage)
        });
        self.largest(named.collect(), &|word| {
            Record::default().with("row", word).with("cgroup", Cell::Missing)
        })
    }

    /// Listed processes, summed by their names.
    pub fn comms(&self) -> Vec<Record> {
        let entries = self.collected.comms.totals.iter();
        let named = entries.map(|(comm, total)| {
            let names = Record::default()
                .with("row", "comm")
                .with("comm", comm.as_str())
                .with("processes", total.processes);
            (names, total.usage)
        });
        self.largest(named.collect(), &|word| {
            Record::default()
                .with("row", word)
                .with("comm", Cell::Missing)
                .with("processes", Cell::Missing)
        })
    }

    /// The largest groups, and a row for what else the listed processes used.
    fn largest(&self, mut groups: Vec<(Record, Usage)>, unnamed: &dyn Fn(&str) -> Record) -> Vec<Record> {
        let size = |usage: &Usage| (usage.amount.energy_uj, usage.amount.cpu_ns);
        let name = |record: &Record| format!("{record:?}");
        groups.sort_by(|(names_a, a), (names_b, b)| {
            size(b).cmp(&size(a)).then_with(|| name(names_a).cmp(&name(names_b)))
        });
        let mut rest = self.totals().listed().amount;
        let mut records = Vec::new();
        for (names, usage) in groups.into_iter().take(self.top) {
            rest = rest.without(usage.amount);
            records.push(names.and(self.usage(usage.amount, Some(usage.peak))));
        }
        if !rest.is_nothing() {
            records.push(unnamed("smaller").and(self.usage(rest, None)));
        }
        records
    }

    fn usage(&self, amount: Amount, peak: Option<Peak>) -> Record {
        let totals = self.totals();
        let record = Record::default()
            .with("cpu_ns", amount.cpu_ns)
            .with("cpu_s", amount.cpu_ns as f64 / 1e9);
        if !totals.has_energy() {
            return record;
        }
        record
            .with("energy_uj", amount.energy())
            .with("cpu_uj", amount.cpu())
            .with("dram_uj", amount.dram())
            .with("gpu_uj", amount.gpu())
            .with("joules", amount.energy().map(joules))
            .with("average_w", amount.energy().and_then(|uj| watts(uj, totals.known_ns)))
            .with("peak_w", peak.and_then(peak_watts))
            .with(
                "energy_share",
                amount.energy().and_then(|uj| share(uj, totals.energy_uj())),
            )
            .with("unknown_intervals", amount.unknown_intervals)
    }

    /// GPUs: a row for each listed process, and one for each kind of row beside them.
    pub fn gpus(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (zone, gpu) in &self.collected.gpus.totals {
            let names = |row: &str| {
                Record::default()
                    .with("zone", zone.as_str())
                    .with("index", gpu.index)
                    .with("name", gpu.name.as_str())
                    .with("row", row)
            };
            let mut processes: Vec<_> = gpu.processes.iter().collect();
            processes.sort_by(|(id_a, a), (id_b, b)| b.usage.energy_uj.cmp(&a.usage.energy_uj).then(id_a.cmp(id_b)));
            let mut rest = gpu.other_processes;
            for (position, (id, process)) in processes.into_iter().enumerate() {
                if position >= self.top {
                    rest.add_all(process.usage);
                    continue;
                }
                let names = names("process")
                    .with("tgid", id.tgid)
                    .with("start_ns", id.start_ns)
                    .with("comm", &*process.comm);
                records.push(names.and(gpu_usage(process.usage)));
            }
            let unnamed = |row: &str| {
                let nobody = ["tgid", "start_ns", "comm"].iter();
                nobody.fold(names(row), |names, name| names.with(name, Cell::Missing))
            };
            if rest != GpuUsage::default() {
                records.push(unnamed("smaller").and(gpu_usage(rest)));
            }
            let shares = self.totals().zones.iter().find(|total| total.zone == *zone);
            for share in Share::FIXED {
                let energy_uj = shares.and_then(|total| total.shares_uj.get(&share));
                if let Some(energy_uj) = energy_uj.filter(|energy_uj| **energy_uj > 0) {
                    let usage = Record::default()
                        .with("sm_percent_us", Cell::Missing)
                        .with("sm_s", Cell::Missing)
                        .with("energy_uj", *energy_uj)
                        .with("joules", joules(*energy_uj));
                    records.push(unnamed(share.as_str()).and(usage));
                }
            }
        }
        records
    }

    /// Phases, and what is in none.
    pub fn phases(&self) -> Vec<Record> {
        let phases = self.collected.phases.in_order();
        let mut records: Vec<Record> = phases
            .into_iter()
            .filter(|(_, total)| total.totals.intervals > 0)
            .map(|(label, total)| self.phase(Some(label), total))
            .collect();
        let without = &self.collected.phases.without;
        if !records.is_empty() && without.totals.intervals > 0 {
            records.push(self.phase(None, without));
        }
        records
    }

    fn phase(&self, label: Option<&str>, total: &PhaseTotal) -> Record {
        let totals = &total.totals;
        let listed = totals.listed();
        let zones = totals
            .zones
            .iter()
            .fold(Record::default(), |zones, zone| zones.with(&zone.zone, zone.energy()));
        let record = Record::default()
            .with("phase", label)
            .with("count", label.map(|_| total.count))
            .with("intervals", totals.intervals)
            .with("duration_ns", totals.duration_ns)
            .with("duration_s", totals.duration_ns as f64 / 1e9)
            .with("cpu_ns", totals.used_ns())
            .with("listed_cpu_ns", listed.amount.cpu_ns)
            .with("listed_cpu_s", listed.amount.cpu_ns as f64 / 1e9)
            .with("idle_time_share", share(totals.cpu.idle_ns, totals.cpu.interval_ns));
        if !totals.has_energy() {
            return record;
        }
        let record = record
            .with("energy_uj", totals.energy())
            .with("listed_uj", listed.amount.energy())
            .with("listed_joules", listed.amount.energy().map(joules))
            .with("average_w", totals.energy().and_then(|uj| watts(uj, totals.known_ns)))
            .with("peak_w", peak_watts(totals.peak))
            .with("zones_uj", zones);
        let unknown_intervals = listed.amount.unknown_intervals;
        let record = record.with("unknown_intervals", unknown_intervals);
        record.and(self.inference(listed.amount.energy()))
    }

    /// Energy by inference and multiply-add, of the listed processes.
    pub fn inference(&self, listed_uj: Option<u128>) -> Record {
        let Some(inferences) = self.inferences else {
            return Record::default();
        };
        Record::default()
            .with(
                "joules_per_inference",
                listed_uj.map(|listed_uj| joules_per_inference(listed_uj, inferences)),
            )
            .with(
                "pj_per_mac",
                self.model
                    .zip(listed_uj)
                    .and_then(|(model, listed_uj)| model.picojoules(listed_uj, inferences)),
            )
    }

    /// Processes of a log that AIPowerMeter wrote.
    pub fn foreign_processes(&self) -> Vec<Record> {
        let foreign = &self.collected.foreign;
        let mut processes: Vec<_> = foreign.processes.iter().collect();
        processes.sort_by(|(_, a), (_, b)| {
            let size = |joules: Option<f64>| joules.unwrap_or(0.0);
            size(b.package_joules.or(b.core_joules)).total_cmp(&size(a.package_joules.or(a.core_joules)))
        });
        let records = processes.into_iter().map(|(pid, process)| {
            Record::default()
                .with("tgid", pid.as_str())
                .with("cpu_s", process.cpu_s)
                .with("package_joules", process.package_joules)
                .with("core_joules", process.core_joules)
                .with("dram_joules", process.dram_joules)
        });
        records.take(self.top).collect()
    }

    /// Zones of a log that AIPowerMeter wrote.
    pub fn foreign_zones(&self) -> Vec<Record> {
        let zones = self.collected.foreign.zones.iter();
        zones.map(|(name, zone)| foreign_zone(name, zone)).collect()
    }
}

fn foreign_zone(name: &str, zone: &ForeignZone) -> Record {
    let average = (zone.known_s > 0.0).then(|| zone.joules / zone.known_s);
    Record::default()
        .with("zone", name)
        .with("joules", zone.joules)
        .with("known_s", zone.known_s)
        .with("average_w", average)
        .with("peak_w", zone.peak_w)
}

fn zone(zone: &ZoneTotal) -> Record {
    let shares = Share::ALL.iter().filter_map(|share| {
        zone.shares_uj.get(share)?;
        Some((share.as_str(), zone.share(*share)))
    });
    let shares = shares.fold(Record::default(), |record, (word, energy_uj)| {
        record.with(word, energy_uj)
    });
    Record::default()
        .with("zone", zone.zone.as_str())
        .with("role", if zone.leaf { "leaf" } else { "root" })
        .with("kind", zone.kind.as_str())
        .with("methods", words(zone.methods.iter().map(|method| method.as_str())))
        .with("energy_uj", zone.energy())
        .with("joules", zone.energy().map(joules))
        .with("known_intervals", zone.known)
        .with("known_ns", zone.known_ns)
        .with("average_w", zone.energy().and_then(|uj| watts(uj, zone.known_ns)))
        .with("peak_w", peak_watts(zone.peak))
        .with("invalid_intervals", zone.invalid)
        .with("reason", zone.reason.as_deref())
        .with("one_leaf_intervals", zone.one_leaf)
        .with("one_leaf", zone.one_leaf_reason.as_deref())
        .with("shares_uj", shares)
        .with(
            "difference_uj",
            (zone.has_parts() && zone.known > 0).then_some(zone.difference_uj),
        )
}

fn gpu_usage(usage: GpuUsage) -> Record {
    Record::default()
        .with("sm_percent_us", usage.sm_percent_us)
        .with("sm_s", usage.sm_percent_us as f64 / 1e8)
        .with("energy_uj", usage.energy())
        .with("joules", usage.energy().map(joules))
}

/// A list of words.
pub fn words<'a>(words: impl Iterator<Item = &'a str>) -> Cell {
    Cell::List(words.map(Cell::from).collect())
}

/// µJ in J.
pub fn joules(energy_uj: u128) -> f64 {
    energy_uj as f64 / 1e6
}

/// Average power in W; `None` over no time.
pub fn watts(energy_uj: u128, duration_ns: u128) -> Option<f64> {
    (duration_ns > 0).then(|| energy_uj as f64 / duration_ns as f64 * 1000.0)
}

/// Highest power in W.
pub fn peak_watts(peak: Peak) -> Option<f64> {
    let (energy_uj, length_ns) = peak.interval()?;
    watts(energy_uj, length_ns.into())
}

/// A part of a whole, from 0 to 1.
pub fn share(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
