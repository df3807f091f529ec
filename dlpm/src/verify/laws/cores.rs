//! The time law of single cores.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, sum};
use crate::{attribution::ledger::Core, interval::CpuInterval, log::exact::name};

impl Checker<'_> {
    /// The rows' time on each core against that of its CPUs, where cores have zones of their own.
    pub(super) fn times_by_core(&mut self) {
        let ledger = self.ledger;
        let core_of = |cpu: &CpuInterval| Some((cpu.package?, cpu.core?));
        let mut of_cpus: BTreeMap<Core, (u128, u128)> = BTreeMap::new();
        for cpu in &ledger.cpus {
            let Some(core) = core_of(cpu) else { continue };
            let (time, shared) = of_cpus.entry(core).or_default();
            *time += sum([cpu.busy_ns, cpu.idle_ns, cpu.lost_ns]);
            *shared += u128::from(ledger.smt_shared_ns.get(&cpu.cpu).copied().unwrap_or(0));
        }
        let mut of_rows: BTreeMap<Core, (u128, u128)> = BTreeMap::new();
        for row in &ledger.rows {
            let mut of_package: BTreeMap<u32, u128> = BTreeMap::new();
            for (core, usage) in &row.by_core {
                let (time, shared) = of_rows.entry(*core).or_default();
                *time += u128::from(usage.cpu_ns);
                *shared += u128::from(usage.smt_shared_ns);
                *of_package.entry(core.0).or_default() += u128::from(usage.cpu_ns);
            }
            for (package, time) in of_package {
                let whole = row.by_package.get(&Some(package)).map_or(0, |usage| usage.cpu_ns);
                self.holds(time <= u128::from(whole), || {
                    format!(
                        "{} ran longer on the cores of package {package} than on it",
                        name(&row.key)
                    )
                });
            }
        }
        let cores: BTreeSet<Core> = of_cpus.keys().chain(of_rows.keys()).copied().collect();
        for core in cores {
            let expected = of_cpus.get(&core).copied().unwrap_or_default();
            let found = of_rows.get(&core).copied().unwrap_or_default();
            let what = |what: &'static str| {
                move || {
                    format!(
                        "{what} of all rows on core {} of package {} against its CPUs",
                        core.1, core.0
                    )
                }
            };
            self.equal(what("time"), expected.0, found.0);
            self.equal(what("time beside a busy sibling"), expected.1, found.1);
        }
    }
}
