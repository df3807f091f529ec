//! Shares by what perf events counted: weights that were calibrated, in integers, and the check of them against the meter.
//!
//! A package's energy is modelled as what it uses when idle, and for each task `fj_per_ns` for its time and
//! `fj_per_event` for what its events counted. The split takes the tasks' parts as weights, so that it closes whatever the
//! model says. Where the model as a whole is far from the meter in [`FAR_ENOUGH`] of [`REMEMBERED`] intervals, its
//! parts are not believed either, and the package is split by CPU time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    attribution::{
        energy_tree::{Carries, EnergyTree, is_split},
        ledger::{CpuUse, IdlePolicy, LeafZone, Ledger, Method, RootZone, Row, RowKey},
        share::Rules,
    },
    interval::{Counts, CpuInterval, METER_STEP_NS, MeterSource, ZoneKind},
};

/// A model is far from the meter if it differs by more than that, in thousandths of what the meter counted.
pub const FAR_PERMILLE: u128 = 200;

/// Intervals of which it is remembered whether the model was far from the meter.
pub const REMEMBERED: u32 = 5;

/// So many far ones among them, and the model is not used.
pub const FAR_ENOUGH: u32 = 3;

/// 1 µJ is so many fJ.
const FJ_PER_UJ: u128 = 1_000_000_000;

/// What the events weigh, as `dlpm calibrate --weights` found it on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// For each event, in their order: fJ that it stands for.
    pub fj_per_event: Counts,
    /// fJ for each nanosecond of a busy CPU, so its power in µW.
    pub fj_per_ns: u64,
    /// Power of each idle package in mW, by the name of its zone.
    pub idle_mw: BTreeMap<String, u64>,
}

impl Weights {
    /// What a time and its counts stand for, in thousandths of a fJ. Time beside a busy sibling counts less, as it does in
    /// a split by CPU time.
    pub fn of(&self, usage: &CpuUse, smt_weight_permille: u32) -> u128 {
        let alone_ns = usage.cpu_ns.saturating_sub(usage.smt_shared_ns);
        let time = u128::from(alone_ns) * 1000 + u128::from(usage.smt_shared_ns) * u128::from(smt_weight_permille);
        let counted = usage.counts.0.iter().zip(self.fj_per_event.0);
        let counted = counted.fold(0_u128, |sum, (count, fj)| {
            sum.saturating_add((u128::from(*count) * u128::from(fj)).saturating_mul(1000))
        });
        time.saturating_mul(self.fj_per_ns.into()).saturating_add(counted)
    }
}

/// The events of a trace, and what they weigh, if that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Their names, at most [`MAX_EVENTS`](crate::interval::MAX_EVENTS).
    pub events: Vec<String>,
    /// What they weigh; `None` if nothing is split by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

/// What the weights say of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Energy of the interval by the model, in µJ: that of the idle package and of all that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_uj: Option<u64>,
    /// Which of the intervals before were far from the meter: a bit for each, the lowest is the newest.
    #[serde(default, skip_serializing_if = "is_none")]
    pub far_before: u8,
    /// Why the package is split by CPU time all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
}

fn is_none(far_before: &u8) -> bool {
    *far_before == 0
}

/// Whether a model that differs that much from the meter is far from it.
fn is_far(predicted_uj: u64, measured_uj: u64) -> bool {
    u128::from(predicted_uj.abs_diff(measured_uj)) * 1000 > u128::from(measured_uj) * FAR_PERMILLE
}

/// Which intervals were far, with that of `root`. One that is shorter than a step of a meter says nothing.
pub fn far_after(root: &RootZone, length_ns: u64) -> Option<u8> {
    let model = root.model.as_ref()?;
    Some(remember(
        model.far_before,
        model.predicted_uj,
        &root.energy_uj,
        length_ns,
    ))
}

fn remember(far_before: u8, predicted_uj: Option<u64>, energy_uj: &Result<u64, String>, length_ns: u64) -> u8 {
    let remembered = (1_u8 << REMEMBERED) - 1;
    match (predicted_uj, energy_uj) {
        (Some(predicted_uj), Ok(measured_uj)) if length_ns >= METER_STEP_NS => {
            ((far_before << 1) | u8::from(is_far(predicted_uj, *measured_uj))) & remembered
        }
        _ => far_before & remembered,
    }
}

/// Gives each package its model, and the leaves that follow CPU time the method [`Method::Counters`] where it is used.
pub fn apply(tree: &mut EnergyTree, rows: &[Row], cpus: &[CpuInterval], rules: &Rules<'_>, carries: &Carries) {
    let Some(weights) = rules.weights else { return };
    for root in &mut tree.roots {
        root.model = model(root, rows, cpus, weights, rules, carries.far(&root.zone));
    }
    for leaf in &mut tree.leaves {
        leaf.method = method(leaf, &tree.roots);
    }
}

/// How a leaf is split that would follow CPU time.
pub fn method(leaf: &LeafZone, roots: &[RootZone]) -> Method {
    let is_of_cpus = matches!(leaf.kind, ZoneKind::Package | ZoneKind::Core | ZoneKind::OneCore);
    let is_used =
        |root: &RootZone| leaf.belongs_to(root) && root.model.as_ref().is_some_and(|model| model.unused.is_none());
    if leaf.method == Method::CpuTime && is_of_cpus && roots.iter().any(is_used) {
        Method::Counters
    } else {
        leaf.method
    }
}

/// What the weights say of `root`; `None` where it is not a package that a meter reads.
pub fn model(
    root: &RootZone,
    rows: &[Row],
    cpus: &[CpuInterval],
    weights: &Weights,
    rules: &Rules<'_>,
    far_before: u8,
) -> Option<Model> {
    if root.kind != ZoneKind::Package || !is_split(root.kind) || root.source == MeterSource::Estimate {
        return None;
    }
    let unread = cpus
        .iter()
        .filter(|cpu| cpu.package == root.package)
        .find(|cpu| cpu.counts.is_none_or(|counts| counts.failed > 0));
    if let Some(cpu) = unread {
        return Some(Model {
            predicted_uj: None,
            far_before,
            unused: Some(format!("the events of CPU {} could not be read all the time", cpu.cpu)),
        });
    }
    let Some(idle_mw) = weights.idle_mw.get(&root.zone) else {
        return Some(Model {
            predicted_uj: None,
            far_before,
            unused: Some(format!("the weights are not of {}", root.zone)),
        });
    };
    let of_row = |row: &Row| {
        let usage = row.by_package.get(&root.package)?;
        (row.key != RowKey::Idle).then(|| weights.of(usage, rules.smt_weight_permille))
    };
    let tasks = rows.iter().filter_map(of_row).fold(0_u128, u128::saturating_add);
    // mW · ns = 1e-12 J, so a million of them are one microjoule.
    let idle_uj = u128::from(*idle_mw) * u128::from(rules.length_ns) / 1_000_000;
    let predicted_uj = u64::try_from(idle_uj.saturating_add(tasks / (1000 * FJ_PER_UJ))).unwrap_or(u64::MAX);
    let far = remember(far_before, Some(predicted_uj), &root.energy_uj, rules.length_ns);
    let unused = if rules.idle_policy == IdlePolicy::Capacity {
        Some("the idle policy capacity is about time".to_owned())
    } else if far.count_ones() >= FAR_ENOUGH {
        Some(format!(
            "the model was more than {} % from the meter in {} of {REMEMBERED} intervals",
            FAR_PERMILLE / 10,
            far.count_ones()
        ))
    } else {
        None
    };
    Some(Model {
        predicted_uj: Some(predicted_uj),
        far_before,
        unused,
    })
}

/// The weights of a ledger, if it has any.
pub fn weights(ledger: &Ledger) -> Option<&Weights> {
    ledger.counters.as_ref()?.weights.as_ref()
}
