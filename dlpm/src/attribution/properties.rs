//! What holds for every interval.

use std::{collections::HashSet, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    ledger::{Method, RowKey},
    *,
};
use crate::interval::{
    CgroupMemory, CpuInterval, MachineMemory, MemoryReading, MeterSource, Process, ProcessId, Trees, Usage, ZoneKind,
    ZoneReading,
};
use crate::{
    tenants::{Kind, Tenant, Wanted},
    totals::owners::{Owner, by_owner},
};

/// Numbers of the size that occurs, and the largest there are.
pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..2_000_000_000u64, 1 => 0..4u64, 1 => any::<u64>()]
}

pub(super) fn process_id() -> impl Strategy<Value = ProcessId> {
    (0..12u32, 0..2u64).prop_map(|(tgid, start_ns)| ProcessId { tgid, start_ns })
}

fn usage() -> impl Strategy<Value = Usage> {
    (process_id(), 0..4u64, 0..5u32, number(), number()).prop_map(|(process, cgroup_id, cpu, ns, shared_ns)| Usage {
        process,
        cgroup_id,
        cpu,
        ns,
        shared_ns,
        ..Usage::default()
    })
}

fn cpu() -> impl Strategy<Value = CpuInterval> {
    (prop::option::of(0..3u32), number(), number()).prop_map(|(package, idle_ns, lost_ns)| CpuInterval {
        package,
        idle_ns,
        lost_ns,
        ..CpuInterval::default()
    })
}

fn zones() -> impl Strategy<Value = Vec<ZoneReading>> {
    let all = [
        ("package-0", ZoneKind::Package, Some(0)),
        ("package-0/core", ZoneKind::Core, Some(0)),
        ("package-0/uncore", ZoneKind::Uncore, Some(0)),
        ("dram-0", ZoneKind::Dram, Some(0)),
        ("package-1", ZoneKind::Package, Some(1)),
        ("package-1/core", ZoneKind::Core, Some(1)),
        ("psys", ZoneKind::Psys, None),
        ("machine", ZoneKind::Machine, None),
    ];
    vec(
        prop_oneof![5 => number().prop_map(Ok), 1 => Just(Err("reset".to_owned()))],
        all.len(),
    )
    .prop_flat_map(move |energies| {
        let zones: Vec<ZoneReading> = all
            .iter()
            .zip(energies)
            .map(|((zone, kind, package), energy_uj)| ZoneReading {
                zone: (*zone).to_owned(),
                kind: *kind,
                package: *package,
                energy_uj,
                counter_uj: None,
                range_uj: None,
                source: MeterSource::Powercap,
            })
            .collect();
        prop::sample::subsequence(zones, 0..=all.len())
    })
}

fn memory() -> impl Strategy<Value = (ProcessId, (u64, MemoryReading))> {
    (process_id(), 0..4u64, prop::option::of(number()), number()).prop_map(|(id, cgroup, pss_bytes, rss_bytes)| {
        let reading = MemoryReading {
            pss_bytes,
            rss_bytes,
            ..MemoryReading::default()
        };
        (id, (cgroup, reading))
    })
}

fn trees(tracked: bool) -> Trees {
    if tracked { Trees::one(0) } else { Trees::default() }
}

prop_compose! {
    pub(super) fn interval()(
        gpus in vec(gpu_properties::gpu(), 0..3),
        usage in vec(usage(), 0..30),
        cpus in vec(cpu(), 0..5),
        zones in zones(),
        memory in vec(memory(), 0..6),
        machine_memory in prop::option::of((number(), number())),
        known in vec((process_id(), any::<bool>(), any::<bool>()), 0..8),
        tenants in vec(tenant(), 2),
        of_processes in vec((process_id(), tenant()), 0..4),
        charged in vec((prop::sample::select(vec!["/a", "/a/b", "/a-b", "/c"]), number()), 0..4),
        end_ns in number(),
    ) -> Interval {
        Interval {
            end_ns,
            usage,
            cpus: (0..).zip(cpus).map(|(number, cpu)| CpuInterval { cpu: number, ..cpu }).collect(),
            zones,
            memory: memory.into_iter().collect(),
            machine_memory: machine_memory.map(|(total_bytes, available_bytes)| MachineMemory {
                total_bytes,
                available_bytes,
                used_bytes: 0, free_bytes: (available_bytes % 2 == 0).then_some(available_bytes / 2),
            }),
            processes: known
                .into_iter()
                .map(|(id, kernel, tracked)| (id, Process { kernel, trees: trees(tracked), ..Process::default() }.into()))
                .collect(),
            cgroups: [(0, "/".to_owned()), (1, "/a".to_owned()), (2, "/a".to_owned())].into(),
            gpu_owners: gpus.iter().flat_map(|(_, owners)| owners.clone()).collect(),
            gpus: gpus
                .into_iter()
                .map(|(gpu, _)| (gpu.index, gpu))
                .collect::<BTreeMap<_, _>>()
                .into_values()
                .collect(),
            self_tgid: 3,
            tenants: ["/", "/a"]
                .into_iter()
                .zip(tenants)
                .filter_map(|(path, tenant)| Some((path.to_owned(), tenant?)))
                .collect(),
            cgroup_memory: charged
                .into_iter()
                .map(|(path, bytes)| (path.into(), CgroupMemory { bytes, read_at_ns: 0 }))
                .collect(),
            process_tenants: of_processes.into_iter().filter_map(|(id, tenant)| Some((id, tenant?))).collect(),
            ..Interval::default()
        }
    }
}

fn tenant() -> impl Strategy<Value = Option<Arc<Tenant>>> {
    prop::option::of((prop::sample::select(Kind::ALL.to_vec()), 0..3u8))
        .prop_map(|tenant| tenant.map(|(kind, id)| Arc::new(Tenant::of(kind, &id.to_string()))))
}

prop_compose! {
    pub(super) fn options()(
        cgroups in vec(Just("/a".to_owned()), 0..2),
        jobs in vec((0..3u8).prop_map(|id| vec![Wanted::Job(id.to_string())]), 0..2),
        tracked: bool,
        max_rows in 0..20usize,
        smt_weight_permille in prop_oneof![Just(550), any::<u32>()],
        idle_policy in prop::sample::select(IdlePolicy::ALL.to_vec()),
        floors in vec(number(), 0..9),
    ) -> Options {
        let leaves = [
            "package-0/core",
            "package-0/rest",
            "package-0/uncore",
            "dram-0",
            "package-1/rest",
            "machine/rest",
            "gpu-0",
            "gpu-1",
        ];
        Options {
            selection: Selection { cgroups, tenants: jobs, trees: trees(tracked), ..Selection::default() },
            max_rows,
            smt_weight_permille,
            idle_policy,
            idle_floors_mw: leaves.iter().map(|leaf| (*leaf).to_owned()).zip(floors).collect(),
            weights: None,
        }
    }
}

fn carries() -> impl Strategy<Value = Carries> {
    any::<i64>().prop_map(|carry_uj| {
        let mut before = attribute(&Interval::default(), &Options::default(), &Carries::default());
        before.roots.push(ledger::RootZone {
            zone: "package-0".into(),
            kind: ZoneKind::Package,
            package: Some(0),
            energy_uj: Ok(0),
            counter_uj: None,
            range_uj: None,
            previous_carry_uj: 0,
            carry_uj,
            one_leaf: None,
            parts_outside: false,
            model: None,
            source: MeterSource::Powercap,
            method: Method::Measured,
        });
        Carries::of(&before)
    })
}

/// Sums saturate at the top of 64 bits; this keeps them below, where they are exact.
fn bounded(mut interval: Interval) -> Interval {
    for usage in &mut interval.usage {
        usage.ns >>= 6;
    }
    for cpu in &mut interval.cpus {
        cpu.idle_ns >>= 6;
        cpu.lost_ns >>= 6;
    }
    interval
}

fn sum(values: impl Iterator<Item = u64>) -> u128 {
    values.map(u128::from).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Tenants, those that nobody knows, and the rows that are not processes' are the leaf, and each is its rows.
    #[test]
    fn tenants_and_the_other_rows_add_up_to_the_leaves(
        interval in interval(), options in options(), carries in carries()
    ) {
        let interval = bounded(interval);
        let ledger = attribute(&interval, &options, &carries);
        let owners = by_owner(&ledger);
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let of_owners = sum(owners.values().map(|used| used.energy_uj[position]));
            prop_assert_eq!(of_owners, u128::from(*leaf.energy_uj.as_ref().unwrap_or(&0)), "{}", leaf.zone);
        }
        let cpu_ns = sum(owners.values().map(|used| used.cpu_ns));
        prop_assert_eq!(cpu_ns, sum(ledger.rows.iter().map(Row::cpu_ns)));
        for (owner, used) in &owners {
            let is_owners = |row: &&Row| match owner {
                Owner::Tenant(node) => row.tenant.as_ref().is_some_and(|tenant| tenant.node == *node),
                Owner::Untold => row.tenant.is_none() && row.key.cgroup().is_some(),
                Owner::Row(key) => row.key == *key,
            };
            let rows = ledger.rows.iter().filter(is_owners);
            prop_assert_eq!(u128::from(used.cpu_ns), sum(rows.map(Row::cpu_ns)));
        }
        // Under a filter nobody else is listed.
        let processes = ledger.rows.iter().filter(|row| matches!(row.key, RowKey::Process(..)));
        for row in processes {
            let matches = |wanted: &Vec<Wanted>| {
                row.tenant.as_ref().is_some_and(|tenant| wanted.iter().any(|one| one.matches(tenant)))
            };
            prop_assert!(options.selection.tenants.iter().all(matches), "{:?}", row.key);
        }
    }

    #[test]
    fn energy_is_conserved(interval in interval(), options in options(), carries in carries()) {
        let ledger = attribute(&interval, &options, &carries);
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let of_rows = sum(ledger.rows.iter().map(|row| row.energy_uj[position]));
            prop_assert_eq!(of_rows, u128::from(*leaf.energy_uj.as_ref().unwrap_or(&0)), "{}", leaf.zone);
        }
        for root in ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package) {
            let leaves: Vec<_> = ledger
                .leaves
                .iter()
                .filter(|leaf| leaf.zone.starts_with(&format!("{}/", root.zone)))
                .collect();
            let known: Option<Vec<u64>> = leaves.iter().map(|leaf| leaf.energy_uj.clone().ok()).collect();
            if let (Ok(energy_uj), Some(known)) = (&root.energy_uj, known) {
                let of_leaves = i128::try_from(sum(known.into_iter())).unwrap();
                let of_root =
                    i128::from(*energy_uj) + i128::from(root.previous_carry_uj) - i128::from(root.carry_uj);
                prop_assert_eq!(of_leaves, of_root);
            }
            prop_assert!(root.carry_uj <= 0 && root.previous_carry_uj <= 0);
        }
    }

    #[test]
    fn time_is_conserved(interval in interval(), options in options()) {
        let interval = bounded(interval);
        let total = sum(interval.usage.iter().map(|usage| usage.ns));
        let ledger = attribute(&interval, &options, &Carries::default());
        let of = |wanted: fn(&RowKey) -> bool| sum(ledger.rows.iter().filter(|row| wanted(&row.key)).map(Row::cpu_ns));
        prop_assert_eq!(of(|key| !matches!(key, RowKey::Idle | RowKey::Unattributed)), total);
        prop_assert_eq!(of(|key| *key == RowKey::Idle), sum(interval.cpus.iter().map(|cpu| cpu.idle_ns)));
        let lost = sum(interval.cpus.iter().map(|cpu| cpu.lost_ns));
        prop_assert_eq!(of(|key| *key == RowKey::Unattributed), lost);
        let shared = ledger.rows.iter().flat_map(|row| row.by_package.values()).map(|usage| usage.smt_shared_ns);
        prop_assert_eq!(sum(shared), sum(ledger.smt_shared_ns.values().copied()));
    }

    #[test]
    fn idle_gets_what_its_policy_says(interval in interval(), options in options()) {
        let ledger = attribute(&interval, &options, &Carries::default());
        let idle = ledger.rows.iter().find(|row| row.key == RowKey::Idle).unwrap();
        let leaves = ledger.leaves.iter().enumerate();
        for (position, leaf) in leaves.filter(|(_, leaf)| !gpus::is_gpu_method(leaf.method)) {
            let (Ok(energy_uj), idle_uj) = (&leaf.energy_uj, idle.energy_uj[position]) else { continue };
            let floor_mw = floors::floor_mw(&options.idle_floors_mw, &ledger.leaves, position);
            let floor_uj = u128::from(floor_mw.unwrap_or(0))
                * u128::from(interval.end_ns)
                / 1_000_000;
            let floor_uj = floor_uj.min(u128::from(*energy_uj));
            let of_package = |usage: (&Option<u32>, &ledger::CpuUse)| {
                leaf.package.is_none_or(|package| Some(package) == *usage.0) && usage.1.cpu_ns > 0
            };
            let others_ran = ledger
                .rows
                .iter()
                .any(|row| row.key != RowKey::Idle && row.by_package.iter().any(of_package));
            match (options.idle_policy, others_ran) {
                _ if leaf.method.is_by_memory() => prop_assert_eq!(idle_uj, 0),
                // A package without any known CPU was not seen to be idle.
                (_, false) if !ledger.rows.iter().any(|row| row.by_package.iter().any(of_package)) && leaf.package.is_some() => {
                    prop_assert_eq!(idle_uj, 0);
                }
                (_, false) => prop_assert_eq!(idle_uj, *energy_uj),
                // A weight of 0 for shared time makes even a busy package idle.
                _ if options.smt_weight_permille == 0 => {}
                (IdlePolicy::Proportional, true) => prop_assert_eq!(idle_uj, 0),
                (IdlePolicy::Separate, true) => prop_assert_eq!(u128::from(idle_uj), floor_uj),
                (IdlePolicy::Capacity, true) => prop_assert!(idle.by_package.iter().any(of_package) || idle_uj == 0),
            }
        }
    }

    #[test]
    fn rows_are_well_formed(interval in interval(), options in options()) {
        let ledger = attribute(&interval, &options, &Carries::default());
        prop_assert!(ledger.rows.is_sorted_by(|a, b| a.key < b.key));
        let processes = ledger.rows.iter().filter(|row| matches!(row.key, RowKey::Process(..))).count();
        prop_assert!(processes <= options.max_rows);
        prop_assert!(ledger.rows.iter().all(|row| row.energy_uj.len() == ledger.leaves.len()));
        prop_assert_eq!(
            ledger.rows.iter().any(|row| row.key == RowKey::Others),
            options.selection.is_filtered()
        );
        let with_memory: Vec<_> = ledger
            .rows
            .iter()
            .filter(|row| row.memory.is_some())
            .filter_map(|row| match &row.key {
                RowKey::Process(id, _) => Some(*id),
                _ => None,
            })
            .collect();
        prop_assert_eq!(with_memory.len(), with_memory.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn order_does_not_matter(
        (one, other) in interval().prop_flat_map(|one| {
            (Just(one.clone()), Just(one.usage).prop_shuffle()).prop_map(|(one, usage)| {
                let other = Interval { usage, ..one.clone() };
                (one, other)
            })
        }),
        options in options(),
    ) {
        let (one, other) = (
            attribute(&one, &options, &Carries::default()),
            attribute(&other, &options, &Carries::default()),
        );
        prop_assert_eq!(one.rows, other.rows);
        prop_assert_eq!(one.cgroups, other.cgroups);
    }

    #[test]
    fn more_time_never_gives_less_energy(
        interval in interval(),
        options in options(),
        which: Index,
        more in number(),
    ) {
        prop_assume!(!interval.usage.is_empty());
        // Memory and GPUs are split by other rules, and belong to the cgroup that a process ran in most; merging rows
        // would change whose row it is.
        let options = Options { max_rows: usize::MAX, selection: Selection::default(), ..options };
        let interval = Interval { memory: [].into(), gpus: Vec::new(), ..interval };
        let which = which.index(interval.usage.len());
        let mut longer = interval.clone();
        longer.usage[which].shared_ns = longer.usage[which].shared_ns.min(longer.usage[which].ns);
        longer.usage[which].ns = longer.usage[which].ns.saturating_add(more);
        let before = attribute(&interval, &options, &Carries::default());
        let after = attribute(&longer, &options, &Carries::default());
        let position = rows::claimants(&interval, &options.selection, usize::MAX)
            .iter()
            .position(|row| holds(&interval, which, &row.key))
            .unwrap();
        for (less, more) in before.rows[position].energy_uj.iter().zip(&after.rows[position].energy_uj) {
            prop_assert!(more >= less);
        }
    }

    #[test]
    fn splitting_a_task_changes_the_others_by_1_uj_at_most(
        interval in interval(),
        options in options(),
        which: Index,
        part in number(),
    ) {
        prop_assume!(!interval.usage.is_empty());
        let options = Options { max_rows: usize::MAX, selection: Selection::default(), ..options };
        let interval = bounded(Interval { memory: [].into(), gpus: Vec::new(), ..interval });
        let which = which.index(interval.usage.len());
        prop_assume!(interval.usage[which].process.tgid != interval.self_tgid);
        let mut halves = interval.clone();
        let task = &mut halves.usage[which];
        task.shared_ns = 0;
        let whole = Interval { usage: halves.usage.clone(), ..interval.clone() };
        let task = &mut halves.usage[which];
        let part = part.min(task.ns);
        task.ns -= part;
        let mut other = *task;
        other.ns = part;
        // A process that nothing else is recorded of.
        other.process = ProcessId { tgid: 1000, start_ns: 1 };
        halves.usage.push(other);
        let before = attribute(&whole, &options, &Carries::default());
        let after = attribute(&halves, &options, &Carries::default());
        for row in before.rows.iter().filter(|row| !holds(&whole, which, &row.key)) {
            let same = after.rows.iter().find(|other| other.key == row.key).unwrap();
            for (one, other) in row.energy_uj.iter().zip(&same.energy_uj) {
                prop_assert!(one.abs_diff(*other) <= 1);
            }
        }
    }
}

/// Whether the row of `key` holds the usage record at `which`.
fn holds(interval: &Interval, which: usize, key: &RowKey) -> bool {
    let usage = &interval.usage[which];
    if usage.process.tgid == interval.self_tgid {
        return *key == RowKey::SelfDlpm;
    }
    if interval
        .processes
        .get(&usage.process)
        .is_some_and(|process| process.kernel)
    {
        return *key == RowKey::Kernel;
    }
    let cgroup = match usage.cgroup_id {
        0 => "/".to_owned(),
        1 | 2 => "/a".to_owned(),
        id => format!("cgroup:{id}"),
    };
    *key == RowKey::Process(usage.process, cgroup.into())
}
