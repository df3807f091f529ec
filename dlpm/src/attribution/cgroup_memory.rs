//! Memory by tenant: what the kernel charged to the directory of each, without what is inside of it.
//!
//! The reading of a directory contains those of all directories below it. So a tenant has its directory's, less those of
//! the tenants inside of it; where one of these has no reading, its memory is in that of the directory around it, as it is
//! for the kernel.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    attribution::ledger::{Method, Row, RowKey},
    interval::CgroupMemory,
};

/// The readings of an interval.
#[derive(Clone, Copy, Debug)]
pub struct Charged<'a>(&'a BTreeMap<Arc<str>, CgroupMemory>);

impl<'a> Charged<'a> {
    /// These.
    pub fn of(readings: &'a BTreeMap<Arc<str>, CgroupMemory>) -> Self {
        Self(readings)
    }

    /// Whether the memory of a process in the cgroup `path` is in one of the readings.
    pub fn covers(&self, path: &str) -> bool {
        !self.0.is_empty() && (self.0.contains_key(path) || self.around(path).is_some())
    }

    /// By path: bytes of each directory, without the directories inside of it. At least 0, as readings differ in age.
    pub fn own_bytes(&self) -> BTreeMap<&'a str, u64> {
        let mut own: BTreeMap<&str, u64> = self
            .0
            .iter()
            .map(|(path, reading)| (path.as_ref(), reading.bytes))
            .collect();
        for (path, reading) in self.0 {
            if let Some(around) = self.around(path).and_then(|around| own.get_mut(around)) {
                *around = around.saturating_sub(reading.bytes);
            }
        }
        own
    }

    /// The nearest directory around `path` that has a reading.
    fn around(&self, path: &str) -> Option<&'a str> {
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            above = parent;
            if let Some((found, _)) = self.0.get_key_value(above) {
                return Some(found);
            }
        }
        None
    }
}

/// How a leaf is split that `method` names, among these rows: by cgroup where the memory of any is known.
pub fn method(method: Method, rows: &[Row]) -> Method {
    match method {
        Method::Memory if rows.iter().any(|row| matches!(row.key, RowKey::Memory(_))) => Method::CgroupMemory,
        method => method,
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::{
        attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger, selection::Selection},
        interval::{Interval, MachineMemory, ZoneKind},
        sinks::testing::{interval, zone},
        tenants::{Kind, Tenant},
        totals::owners::{Owner, by_owner},
    };

    const DRAM_UJ: u64 = 10_000_000;
    const GIB: u64 = 1 << 30;

    fn readings(readings: &[(&str, u64)]) -> BTreeMap<Arc<str>, CgroupMemory> {
        let reading = |bytes| CgroupMemory { bytes, read_at_ns: 1 };
        readings
            .iter()
            .map(|(path, bytes)| ((*path).into(), reading(*bytes)))
            .collect()
    }

    fn own(of: &[(&str, u64)]) -> Vec<(String, u64)> {
        let readings = readings(of);
        let own = Charged::of(&readings).own_bytes();
        own.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect()
    }

    /// python (100) in `/train.slice/a` and `/train.slice/b`, where it is read with 3 GB; sleep (300) with 1 GB and bash
    /// in the root. 100 GiB of memory, of which 60 are not free.
    fn with_cgroups(of: &[(&str, u64)]) -> Interval {
        let mut interval = interval(0, vec![zone("dram-0", ZoneKind::Dram, Ok(DRAM_UJ))]);
        interval.cgroup_memory = readings(of);
        interval.machine_memory = Some(MachineMemory {
            total_bytes: 100 * GIB,
            available_bytes: 90 * GIB,
            used_bytes: 9 * GIB,
            free_bytes: Some(40 * GIB),
        });
        for (path, tenant) in [
            ("/train.slice", Tenant::of(Kind::Slice, "train.slice")),
            ("/job", Tenant::of(Kind::Slurm, "7")),
        ] {
            interval.tenants.insert(path.to_owned(), tenant.into());
        }
        interval
    }

    fn ledger(interval: &Interval, selection: Selection) -> Ledger {
        let options = Options {
            selection,
            ..Options::default()
        };
        attribute(interval, &options, &Carries::default())
    }

    fn energies(ledger: &Ledger) -> Vec<(RowKey, u64)> {
        let rows = ledger.rows.iter().filter(|row| row.energy_uj[0] > 0);
        rows.map(|row| (row.key.clone(), row.energy_uj[0])).collect()
    }

    #[test]
    fn what_is_inside_is_not_counted_twice() {
        // `-` sorts before `/`, and a name can be the beginning of another.
        let nested = [("/a", 100), ("/a-b", 7), ("/a/b", 60), ("/a/b/c/d", 20), ("/a/bc", 5)];
        let expected = [("/a", 35), ("/a-b", 7), ("/a/b", 40), ("/a/b/c/d", 20), ("/a/bc", 5)];
        assert_eq!(own(&nested), expected.map(|(path, bytes)| (path.to_owned(), bytes)));
        // An older reading of what is around can be less.
        assert_eq!(own(&[("/a", 5), ("/a/b", 9)])[0].1, 0);
        let nested = readings(&nested);
        let charged = Charged::of(&nested);
        for inside in ["/a", "/a/x", "/a/b/c", "/a-b/x"] {
            assert!(charged.covers(inside), "{inside}");
        }
        for outside in ["/", "/ab", "/x/a", "cgroup:7"] {
            assert!(!charged.covers(outside), "{outside}");
        }
    }

    #[test]
    fn dram_goes_to_tenants_whether_they_run_or_not() {
        let interval = with_cgroups(&[("/train.slice", 12 * GIB), ("/job", 24 * GIB)]);
        let ledger = ledger(&interval, Selection::default());
        assert_eq!(ledger.leaves[0].method, Method::CgroupMemory);
        // sleep is in no tenant's cgroup: its reading counts, and python's is in that of its slice.
        let sleep = ledger
            .rows
            .iter()
            .find(|row| row.memory.is_some() && row.resident_bytes > 0)
            .unwrap();
        let sleep_uj = DRAM_UJ * 1_000_000_000 / (60 * GIB);
        assert_eq!(
            energies(&ledger),
            [
                (sleep.key.clone(), sleep_uj),
                (RowKey::Memory("/job".into()), DRAM_UJ * 24 / 60),
                (RowKey::Memory("/train.slice".into()), DRAM_UJ * 12 / 60),
                (RowKey::Unattributed, DRAM_UJ * 24 / 60 - sleep_uj),
            ]
        );
        let owners = by_owner(&ledger);
        let of = |tenant: Tenant| owners[&Owner::Tenant(tenant.node)].energy_uj[0];
        assert_eq!(of(Tenant::of(Kind::Slurm, "7")), DRAM_UJ * 24 / 60);
        assert_eq!(of(Tenant::of(Kind::Slice, "train.slice")), DRAM_UJ * 12 / 60);
        let of_cgroup = ledger.cgroups.iter().find(|sum| sum.cgroup == "/job").unwrap();
        assert_eq!((of_cgroup.cpu_ns, of_cgroup.energy_uj[0]), (0, DRAM_UJ * 24 / 60));
    }

    #[test]
    fn what_filters_leave_out_is_others() {
        let interval = with_cgroups(&[("/train.slice", 12 * GIB), ("/job", 24 * GIB)]);
        let of_job = Selection {
            cgroups: vec!["/job".to_owned()],
            ..Selection::default()
        };
        assert_eq!(
            energies(&ledger(&interval, of_job)),
            [
                (RowKey::Memory("/job".into()), DRAM_UJ * 24 / 60),
                (RowKey::Others, DRAM_UJ - DRAM_UJ * 24 / 60),
            ]
        );
        let by_name = Selection {
            comm: vec![Regex::new("python").unwrap()],
            ..Selection::default()
        };
        assert_eq!(energies(&ledger(&interval, by_name)), [(RowKey::Others, DRAM_UJ)]);
    }

    #[test]
    fn without_readings_dram_is_split_as_before() {
        let ledger = ledger(&with_cgroups(&[]), Selection::default());
        assert_eq!(ledger.leaves[0].method, Method::Memory);
        assert!(ledger.rows.iter().all(|row| !matches!(row.key, RowKey::Memory(_))));
    }
}
