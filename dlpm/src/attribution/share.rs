//! The part of a leaf that each row gets: idle policy, weights, and the exact split.

use crate::attribution::{
    counters::Weights,
    gpus,
    ledger::{Core, CpuUse, IdlePolicy, LeafZone, Method, Row, RowKey},
    split::split,
};

/// What decides a split, apart from leaf and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// Length of the interval.
    pub length_ns: u64,
    /// Weight of a nanosecond that the sibling shared, in thousandths.
    pub smt_weight_permille: u32,
    /// What becomes of idle energy.
    pub idle_policy: IdlePolicy,
    /// Whether the machine's memory is known: without it a reading is a share of nothing known.
    pub memory_known: bool,
    /// What events weigh, for the leaves that are split by them.
    pub weights: Option<&'a Weights>,
}

/// The part of `energy_uj` that each row gets, in the order of `rows`; adds up to `energy_uj` if the rows include
/// those that take what is left (`idle`; `unattributed`, which also has the energy of a package without any known CPU).
pub fn share(energy_uj: u64, leaf: &LeafZone, rows: &[Row], rules: &Rules<'_>) -> Vec<u64> {
    if leaf.method.is_by_memory() {
        let weights: Vec<u128> = rows
            .iter()
            .map(|row| {
                if rules.memory_known {
                    row.resident_bytes.into()
                } else {
                    0
                }
            })
            .collect();
        return split(energy_uj, &weights).unwrap_or_else(|| all_to(remainder_row(rows), energy_uj, rows));
    }
    if !is_covered(leaf, rows) {
        return all_to(RowKey::Unattributed, energy_uj, rows);
    }
    let floor_uj = idle_floor_uj(energy_uj, leaf, rules);
    let above_uj = energy_uj - floor_uj;
    let mut shares = if gpus::is_gpu_method(leaf.method) {
        gpus::share(above_uj, leaf, rows, rules)
    } else {
        share_by_time(above_uj, leaf, rows, rules)
    };
    for (row, share_uj) in rows.iter().zip(&mut shares) {
        if row.key == RowKey::Idle {
            *share_uj += floor_uj;
        }
    }
    shares
}

fn share_by_time(energy_uj: u64, leaf: &LeafZone, rows: &[Row], rules: &Rules<'_>) -> Vec<u64> {
    let place = Place::of(leaf);
    let weights: Vec<u128> = rows
        .iter()
        .map(|row| time_weight(row, place, leaf.method, rules))
        .collect();
    split(energy_uj, &weights).unwrap_or_else(|| all_to(RowKey::Idle, energy_uj, rows))
}

/// Which CPU time counts for a leaf.
#[derive(Clone, Copy)]
enum Place {
    Everywhere,
    Package(u32),
    Core(Core),
}

impl Place {
    fn of(leaf: &LeafZone) -> Self {
        match (leaf.core(), leaf.package) {
            (Some(core), _) => Self::Core(core),
            (None, Some(package)) => Self::Package(package),
            (None, None) => Self::Everywhere,
        }
    }

    /// The time of a row here; not for [`Self::Everywhere`].
    fn time(self, row: &Row) -> Option<&CpuUse> {
        match self {
            Self::Everywhere => None,
            Self::Package(package) => row.by_package.get(&Some(package)),
            Self::Core(core) => row.by_core.get(&core),
        }
    }
}

/// Whether any CPU is known to be in the package, or the core, of a leaf. Of one that has none it is not known whether it
/// was idle.
fn is_covered(leaf: &LeafZone, rows: &[Row]) -> bool {
    let place = Place::of(leaf);
    matches!(place, Place::Everywhere)
        || rows
            .iter()
            .any(|row| place.time(row).is_some_and(|usage| usage.cpu_ns > 0))
}

/// What the idle machine would have used, and at most all: `min(energy, floor · length)`, rounded down.
fn idle_floor_uj(energy_uj: u64, leaf: &LeafZone, rules: &Rules<'_>) -> u64 {
    if rules.idle_policy != IdlePolicy::Separate {
        return 0;
    }
    // mW · ns = 1e-12 J, so a million of them are one microjoule. Two u64 multiplied fit into u128.
    let floor_uj = u128::from(leaf.idle_floor_mw.unwrap_or(0)) * u128::from(rules.length_ns) / 1_000_000;
    u64::try_from(floor_uj).map_or(energy_uj, |floor_uj| floor_uj.min(energy_uj))
}

/// The row that takes what memory readings do not cover: `others` where a filter leaves something out.
pub fn remainder_row(rows: &[Row]) -> RowKey {
    if rows.iter().any(|row| row.key == RowKey::Others) {
        RowKey::Others
    } else {
        RowKey::Unattributed
    }
}

fn all_to(key: RowKey, energy_uj: u64, rows: &[Row]) -> Vec<u64> {
    rows.iter()
        .map(|row| if row.key == key { energy_uj } else { 0 })
        .collect()
}

/// Weight of a row in the split of energy that follows CPU time, in thousandths of a nanosecond; or of a fJ, where what
/// was counted has a weight too.
fn time_weight(row: &Row, place: Place, method: Method, rules: &Rules<'_>) -> u128 {
    if row.key == RowKey::Idle && rules.idle_policy != IdlePolicy::Capacity {
        return 0;
    }
    let weights = rules.weights.filter(|_| method == Method::Counters);
    let of_use = |usage: &CpuUse| {
        if let Some(weights) = weights {
            return weights.of(usage, rules.smt_weight_permille);
        }
        let alone_ns = usage.cpu_ns.saturating_sub(usage.smt_shared_ns);
        u128::from(alone_ns) * 1000 + u128::from(usage.smt_shared_ns) * u128::from(rules.smt_weight_permille)
    };
    match place {
        Place::Package(_) | Place::Core(_) => place.time(row).map_or(0, of_use),
        Place::Everywhere => row
            .by_package
            .values()
            .fold(0, |sum: u128, usage| sum.saturating_add(of_use(usage))),
    }
}
