//! What holds within one line: the time law, the energy law, and every figure that follows from others.

mod cores;
mod counts;

use std::{collections::BTreeSet, fmt::Display};

use crate::{
    attribution::{
        cgroup_memory::{self, Charged},
        cgroup_sums, counters,
        energy_tree::{self, Carries, Span},
        gpus,
        ledger::{IdlePolicy, LeafZone, Ledger, Method, RootZone, Row, RowKey},
        share::{Rules, remainder_row, share},
    },
    interval::{CgroupMemory, MeterSource, ZoneKind},
    log::{
        differs,
        exact::{Exact, name},
    },
};

/// Weights of shared time, in thousandths, that dlpm writes.
const SMT_WEIGHTS: std::ops::RangeInclusive<u32> = 500..=1000;

/// What does not hold in `ledger`, a sentence each. `recorded` has the sums that a ledger does not store.
pub fn check(recorded: &Exact, ledger: &Ledger) -> Vec<String> {
    let mut checker = Checker {
        ledger,
        failures: Vec::new(),
    };
    checker.interval();
    checker.cpus();
    checker.rows(recorded);
    checker.times();
    checker.counts();
    if let Some(intervals) = ledger.rollup {
        checker.rollup(intervals);
        checker.cgroups();
        return checker.failures;
    }
    checker.zones();
    checker.floors();
    checker.gpus();
    checker.shares();
    checker.cgroups();
    checker.memory();
    checker.failures
}

struct Checker<'a> {
    ledger: &'a Ledger,
    failures: Vec<String>,
}

impl Checker<'_> {
    fn equal<T: PartialEq + Display>(&mut self, what: impl FnOnce() -> String, expected: T, found: T) {
        if expected != found {
            self.failures.push(differs(&what(), expected, found));
        }
    }

    fn holds(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    fn interval(&mut self) {
        let ledger = self.ledger;
        self.holds(ledger.begin_ns < ledger.end_ns, || {
            format!("it ends ({}) before it begins ({})", ledger.end_ns, ledger.begin_ns)
        });
        self.holds(SMT_WEIGHTS.contains(&ledger.smt_weight_permille), || {
            differs("smt_weight_permille", "500 to 1000", ledger.smt_weight_permille)
        });
    }

    fn cpus(&mut self) {
        let ledger = self.ledger;
        self.holds(ledger.cpus.is_sorted_by(|a, b| a.cpu < b.cpu), || {
            "CPUs are not in order, or not once each".to_owned()
        });
        // Either end of a CPU's interval is that far from the energy reading at most.
        let intervals = u128::from(ledger.rollup.unwrap_or(1).max(1));
        let longest_ns = u128::from(ledger.length_ns()) + 2 * u128::from(ledger.energy_skew_ns) * intervals;
        for cpu in &ledger.cpus {
            let sum = sum([cpu.busy_ns, cpu.idle_ns, cpu.lost_ns]);
            let interval_ns = u128::from(cpu.interval_ns());
            self.equal(
                || {
                    format!(
                        "time law: busy, idle and lost ns of CPU {} against its interval_ns",
                        cpu.cpu
                    )
                },
                interval_ns,
                sum,
            );
            self.holds(interval_ns <= longest_ns, || {
                format!(
                    "interval_ns of CPU {}: expected at most {longest_ns}, found {interval_ns}",
                    cpu.cpu
                )
            });
            let shared_ns = ledger.smt_shared_ns.get(&cpu.cpu).copied().unwrap_or(0);
            self.holds(shared_ns <= cpu.busy_ns, || {
                format!("CPU {} shared its core for longer than it was busy", cpu.cpu)
            });
        }
    }

    fn rows(&mut self, recorded: &Exact) {
        let rows = &self.ledger.rows;
        self.holds(rows.is_sorted_by(|a, b| a.key < b.key), || {
            "rows are not in order, or not once each".to_owned()
        });
        for key in [RowKey::Kernel, RowKey::SelfDlpm, RowKey::Idle, RowKey::Unattributed] {
            self.holds(rows.iter().any(|row| row.key == key), || {
                format!("{} is missing", name(&key))
            });
        }
        for (row, written) in rows.iter().zip(&recorded.rows) {
            let what = || format!("cpu_ns of {} against its packages", name(&row.key));
            self.equal(
                what,
                sum(row.by_package.values().map(|usage| usage.cpu_ns)),
                u128::from(written.cpu_ns),
            );
            if let Some(estimate) = &written.in_switches {
                self.equal(
                    || format!("switches of {} against those of the CPUs", name(&row.key)),
                    self.ledger.switches(),
                    estimate.switches,
                );
                self.equal(
                    || format!("estimate_ns of {} against its switches", name(&row.key)),
                    estimate.switches.saturating_mul(estimate.ns_per_switch),
                    estimate.estimate_ns,
                );
            }
            self.holds(
                row.by_package.values().all(|usage| usage.smt_shared_ns <= usage.cpu_ns),
                || format!("{} shared its core for longer than it ran", name(&row.key)),
            );
        }
    }

    /// The rows' time on each package against that of its CPUs.
    fn times(&mut self) {
        let ledger = self.ledger;
        let packages: BTreeSet<Option<u32>> = ledger
            .cpus
            .iter()
            .map(|cpu| cpu.package)
            .chain(ledger.rows.iter().flat_map(|row| row.by_package.keys().copied()))
            .collect();
        self.times_by_core();
        for package in packages {
            let cpus = || ledger.cpus.iter().filter(|cpu| cpu.package == package);
            let of_rows = |wanted: &dyn Fn(&RowKey) -> bool, shared: bool| {
                let rows = ledger.rows.iter().filter(|row| wanted(&row.key));
                sum(rows
                    .filter_map(|row| row.by_package.get(&package))
                    .map(|usage| if shared { usage.smt_shared_ns } else { usage.cpu_ns }))
            };
            let is_task = |key: &RowKey| !matches!(key, RowKey::Idle | RowKey::Unattributed);
            let named = package.map_or_else(|| "that is not known".to_owned(), |package| package.to_string());
            let time = |what| {
                let named = named.clone();
                move || format!("time of {what} on package {named} against its CPUs")
            };
            self.equal(
                time("all tasks"),
                sum(cpus().map(|cpu| cpu.busy_ns)),
                of_rows(&is_task, false),
            );
            self.equal(
                time("row idle"),
                sum(cpus().map(|cpu| cpu.idle_ns)),
                of_rows(&|key| *key == RowKey::Idle, false),
            );
            self.equal(
                time("row unattributed"),
                sum(cpus().map(|cpu| cpu.lost_ns)),
                of_rows(&|key| *key == RowKey::Unattributed, false),
            );
            let shared = |cpu: &u32| ledger.smt_shared_ns.get(cpu).copied().unwrap_or(0);
            self.equal(
                time("all tasks beside a busy sibling"),
                sum(cpus().map(|cpu| shared(&cpu.cpu))),
                of_rows(&|_| true, true),
            );
        }
    }

    /// Rests, carries and methods, from what meters read.
    fn zones(&mut self) {
        let ledger = self.ledger;
        // GPUs are in no tree, and stand after it.
        let of_tree = ledger.leaves.iter().filter(|leaf| leaf.kind != ZoneKind::Gpu);
        let leaves_of_tree: Vec<LeafZone> = of_tree.cloned().collect();
        let (readings, span) = (energy_tree::readings(ledger), Span::of(ledger));
        let tree = energy_tree::build(&readings, &Carries::before(ledger), span);
        for root in &ledger.roots {
            let parts_uj = energy_tree::parts_uj(&readings, root);
            let (before_uj, after_uj) = (i128::from(root.previous_carry_uj), i128::from(root.carry_uj));
            let closes = root.one_leaf.is_some() || !span.contradicts(before_uj, after_uj, parts_uj);
            self.holds(closes, || {
                format!(
                    "the leaves of {} exceed it by {} µJ: expected at most {}, the bound of what is carried",
                    root.zone,
                    after_uj.unsigned_abs(),
                    span.bound_uj(parts_uj)
                )
            });
        }
        let names = |roots: &[RootZone], leaves: &[LeafZone]| {
            let roots = roots.iter().map(|root| root.zone.as_str());
            roots
                .chain(leaves.iter().map(|leaf| leaf.zone.as_str()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        self.equal(
            || "zones".to_owned(),
            names(&tree.roots, &tree.leaves),
            names(&ledger.roots, &leaves_of_tree),
        );
        for (expected, found) in tree.roots.iter().zip(&ledger.roots) {
            let what = |field: &'static str| move || format!("{field} of {}", expected.zone);
            self.equal(
                what("previous_carry_uj"),
                expected.previous_carry_uj,
                found.previous_carry_uj,
            );
            self.equal(what("carry_uj"), expected.carry_uj, found.carry_uj);
            let reason = |root: &RootZone| root.one_leaf.clone().unwrap_or_else(|| "none".to_owned());
            self.equal(what("one_leaf"), reason(expected), reason(found));
            self.equal(what("parts_outside"), expected.parts_outside, found.parts_outside);
            self.equal(what("method"), expected.method.as_str(), found.method.as_str());
        }
        for (expected, found) in tree.leaves.iter().zip(&leaves_of_tree) {
            let what = |field: &'static str| move || format!("{field} of {}", expected.zone);
            self.equal(what("energy"), energy(expected), energy(found));
            let method = cgroup_memory::method(expected.method, &ledger.rows);
            let (gpus, policy) = (&ledger.gpus, ledger.idle_policy);
            let method = gpus::method_inside(&expected.zone, method, gpus, &ledger.rows, policy);
            // As `attribute` has it: first by counters, if the leaf would follow CPU time.
            let method = match method {
                Method::CpuTime => counters::method(expected, &ledger.roots),
                method => method,
            };
            self.equal(what("method"), method.as_str(), found.method.as_str());
            self.holds(
                (expected.kind, expected.rest, expected.package, expected.source)
                    == (found.kind, found.rest, found.package, found.source),
                || format!("kind, package or source of {} is not that of its root", expected.zone),
            );
            let may_have_floor = ledger.idle_policy == IdlePolicy::Separate && !found.method.is_by_memory();
            self.holds(may_have_floor || found.idle_floor_mw.is_none(), || {
                format!(
                    "idle_floor_mw of {} does not go with idle_policy {}",
                    found.zone,
                    ledger.idle_policy.as_str()
                )
            });
        }
    }

    /// A floor for the policy that is made of floors.
    fn floors(&mut self) {
        let ledger = self.ledger;
        let mut leaves = ledger
            .leaves
            .iter()
            .filter(|leaf| !leaf.method.is_by_memory())
            .peekable();
        let needs_one = ledger.idle_policy == IdlePolicy::Separate && leaves.peek().is_some();
        self.holds(!needs_one || leaves.any(|leaf| leaf.idle_floor_mw.is_some()), || {
            "idle_policy is separate, and no leaf has an idle_floor_mw".to_owned()
        });
    }

    /// The leaf of each GPU, and its method from what the rows did.
    fn gpus(&mut self) {
        let ledger = self.ledger;
        let leaves = ledger.leaves.iter().filter(|leaf| leaf.kind == ZoneKind::Gpu);
        let alone = || ledger.gpus.iter().filter(|gpu| !gpu.inside);
        let expected: Vec<String> = alone().map(|gpu| gpus::zone_name(&gpu.uuid)).collect();
        for found in [
            alone().map(|gpu| gpu.zone.as_str()).collect::<Vec<_>>(),
            leaves.clone().map(|leaf| leaf.zone.as_str()).collect(),
        ] {
            self.equal(|| "zones of GPUs".to_owned(), expected.join(" "), found.join(" "));
        }
        for (gpu, leaf) in alone().zip(leaves) {
            let method = gpus::method(gpu, &ledger.rows, ledger.idle_policy);
            self.equal(
                || format!("method of {}", gpu.zone),
                method.as_str(),
                leaf.method.as_str(),
            );
            let may_have_floor = ledger.idle_policy == IdlePolicy::Separate;
            self.holds(may_have_floor || leaf.idle_floor_mw.is_none(), || {
                format!("idle_floor_mw of {} does not go with the idle policy", gpu.zone)
            });
            self.holds(
                matches!(
                    leaf.source,
                    MeterSource::NvmlEnergy | MeterSource::NvmlPower | MeterSource::Hwmon | MeterSource::HwmonPower
                ),
                || format!("source of {} is none of a GPU's", gpu.zone),
            );
        }
        for row in &ledger.rows {
            let is_known = |zone: &&String| ledger.gpus.iter().any(|gpu| gpu.zone == **zone);
            for zone in row.gpus.keys().filter(|zone| !is_known(zone)) {
                self.failures.push(format!(
                    "{} used {zone}, which is not a GPU of this line",
                    name(&row.key)
                ));
            }
        }
    }

    /// What holds of sums: rows add up to their leaf, and leaves, with what was carried to the first interval and from the
    /// last, to their root. Each interval was split by itself, so that a sum cannot be split again.
    fn rollup(&mut self, intervals: u64) {
        let ledger = self.ledger;
        self.holds(intervals > 0, || "a roll-up is of no interval".to_owned());
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let Ok(energy_uj) = leaf.energy_uj else { continue };
            let of_row = |row: &Row| row.energy_uj.get(position).copied().unwrap_or(0);
            self.equal(
                || format!("energy law: µJ of all rows of {} against the zone", leaf.zone),
                u128::from(energy_uj),
                sum(ledger.rows.iter().map(of_row)),
            );
        }
        for root in ledger.roots.iter().filter(|root| energy_tree::is_split(root.kind)) {
            let leaves = || ledger.leaves_of(root).map(|leaf| leaf.energy_uj.as_ref());
            let (Ok(energy_uj), true) = (&root.energy_uj, leaves().all(|energy_uj| energy_uj.is_ok())) else {
                continue;
            };
            self.equal(
                || format!("µJ of all leaves of {} against it and what it carries", root.zone),
                i128::from(*energy_uj) + i128::from(root.previous_carry_uj) - i128::from(root.carry_uj),
                leaves().flatten().map(|energy_uj| i128::from(*energy_uj)).sum(),
            );
        }
    }

    /// The energy law: each leaf split again, under the recorded policy and weights.
    fn shares(&mut self) {
        let ledger = self.ledger;
        let rules = Rules {
            length_ns: ledger.length_ns(),
            smt_weight_permille: ledger.smt_weight_permille,
            idle_policy: ledger.idle_policy,
            memory_known: ledger.machine_memory.is_some(),
            weights: counters::weights(ledger),
        };
        self.models(&rules);
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let Ok(energy_uj) = leaf.energy_uj else { continue };
            let of_row = |row: &Row| row.energy_uj.get(position).copied().unwrap_or(0);
            self.equal(
                || format!("energy law: µJ of all rows of {} against the zone", leaf.zone),
                u128::from(energy_uj),
                sum(ledger.rows.iter().map(of_row)),
            );
            for (row, expected) in ledger.rows.iter().zip(share(energy_uj, leaf, &ledger.rows, &rules)) {
                self.equal(
                    || format!("µJ that {} gets of {}, split again", name(&row.key), leaf.zone),
                    expected,
                    of_row(row),
                );
            }
        }
    }

    fn cgroups(&mut self) {
        let ledger = self.ledger;
        let sums = cgroup_sums(&ledger.rows, ledger.leaves.len());
        self.equal(|| "number of cgroups".to_owned(), sums.len(), ledger.cgroups.len());
        for (expected, found) in sums.iter().zip(&ledger.cgroups) {
            self.equal(|| "cgroup".to_owned(), &expected.cgroup, &found.cgroup);
            self.equal(
                || format!("cpu_ns of cgroup {} against its rows", expected.cgroup),
                expected.cpu_ns,
                found.cpu_ns,
            );
            for (leaf, (expected_uj, found_uj)) in ledger
                .leaves
                .iter()
                .zip(expected.energy_uj.iter().zip(&found.energy_uj))
            {
                self.equal(
                    || format!("µJ of cgroup {} in {} against its rows", expected.cgroup, leaf.zone),
                    expected_uj,
                    found_uj,
                );
            }
        }
    }

    /// What the shares of DRAM are of: all memory in use, or all readings if they are more. A process weighs its reading,
    /// and nothing where its cgroup's memory is known.
    fn memory(&mut self) {
        let ledger = self.ledger;
        let rows = ledger.rows.iter().filter(|row| matches!(row.key, RowKey::Memory(_)));
        let directories = rows.filter_map(|row| Some((row.key.cgroup()?.clone(), CgroupMemory::default())));
        let directories = directories.collect();
        let charged = Charged::of(&directories);
        let filtered = ledger.rows.iter().any(|row| row.key == RowKey::Others);
        for row in ledger.rows.iter() {
            let (RowKey::Process(_, cgroup), Some(reading)) = (&row.key, &row.memory) else {
                continue;
            };
            let expected = match charged.covers(cgroup) {
                true => 0,
                // The memory of its cgroup may be in `others`.
                false if filtered && row.resident_bytes == 0 => 0,
                false => reading.resident_bytes(),
            };
            self.equal(
                || format!("resident_bytes of {} against its reading", name(&row.key)),
                expected,
                row.resident_bytes,
            );
        }
        let Some(machine) = ledger.machine_memory else { return };
        let used_bytes = u128::from(machine.in_use_bytes());
        let remainder = remainder_row(&ledger.rows);
        let weight = |wanted: bool| {
            let rows = ledger.rows.iter().filter(|row| (row.key == remainder) == wanted);
            sum(rows.map(|row| row.resident_bytes))
        };
        let (read_bytes, rest_bytes) = (weight(false), weight(true));
        if remainder == RowKey::Unattributed {
            self.equal(
                || "resident_bytes of row unattributed against the memory in use".to_owned(),
                used_bytes.saturating_sub(read_bytes),
                rest_bytes,
            );
        } else {
            // `others` also has readings of its own, of which only the sum is written.
            self.holds(read_bytes + rest_bytes >= used_bytes, || {
                format!(
                    "resident_bytes of all rows: expected at least {used_bytes}, found {}",
                    read_bytes + rest_bytes
                )
            });
        }
    }
}

fn sum(values: impl IntoIterator<Item = u64>) -> u128 {
    values.into_iter().map(u128::from).sum()
}

fn energy(leaf: &LeafZone) -> String {
    match &leaf.energy_uj {
        Ok(energy_uj) => format!("{energy_uj} µJ"),
        Err(reason) => format!("invalid ({reason})"),
    }
}
