//! The quiet minutes of a machine, from its ledgers: what its zones draw while next to nothing runs.
//!
//! Pure: a ledger goes in, and at times a [`QuietMinute`] comes out. What is kept of one is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    attribution::{
        floors::{can_rest, mean_mw},
        ledger::{LeafZone, Ledger, Method},
    },
    interval::ZoneKind,
};

/// Length of a quiet minute, at least.
pub const MINUTE_NS: u64 = 60_000_000_000;

/// CPU time of a quiet minute that may be busy, in thousandths: it is less. The limit of `dlpm calibrate`.
pub const BUSY_PERMILLE: u64 = 20;

/// Intervals are added up to pieces of this length, so that what is kept is bounded.
const PIECE_NS: u64 = 1_000_000_000;

/// A minute, or somewhat more, in which the machine was quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuietMinute {
    /// Its length.
    pub length_ns: u64,
    /// Wall clock (nanoseconds since 1970) at its end.
    pub end_unix_ns: i64,
    /// CPU time that was busy, in thousandths of all, rounded up.
    pub busy_permille: u64,
    /// Mean power of what the meters read as a whole, by zone, in mW.
    pub roots_mw: BTreeMap<String, u64>,
    /// Mean power of the leaves that were quiet, in mW.
    pub floors_mw: BTreeMap<String, u64>,
    /// All leaves that can have a floor, those that were not quiet (GPUs) too.
    pub leaves: BTreeSet<String>,
}

/// Looks for quiet minutes.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    shape: Shape,
    /// The newest pieces, the oldest first: a minute, or less.
    pieces: VecDeque<Piece>,
    open: Piece,
    /// `seq` and end of the newest ledger.
    newest: Option<(u64, u64)>,
}

/// What has to stay as it is for a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Leaves: name, kind, and whether the policy for idle energy applies.
    leaves: Vec<Leaf>,
    cpus: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    zone: String,
    kind: ZoneKind,
    rest: bool,
    by_memory: bool,
}

/// Sums of some intervals.
#[derive(Clone, Debug, Default)]
struct Piece {
    length_ns: u64,
    busy_ns: u128,
    cpu_ns: u128,
    /// By leaf of the shape; `None` where it is not known, or somebody used it (GPUs).
    leaves_uj: Vec<Option<u128>>,
    /// By zone, with what it covers, those that were known throughout.
    roots_uj: BTreeMap<String, (ZoneKind, u128)>,
}

impl Quiet {
    /// Adds the next ledger. A minute that ends with it, if all of it was quiet, and its zones were known.
    pub fn add(&mut self, ledger: &Ledger) -> Option<QuietMinute> {
        let follows = self
            .newest
            .is_some_and(|(seq, end_ns)| ledger.seq == seq.wrapping_add(1) && ledger.begin_ns == end_ns);
        self.newest = Some((ledger.seq, ledger.end_ns));
        let shape = Shape::of(ledger);
        if !follows || shape != self.shape {
            self.restart(shape);
        }
        let Some(piece) = Piece::of(ledger, &self.shape) else {
            self.restart(Shape::default());
            return None;
        };
        self.open.add(piece);
        if self.open.length_ns < PIECE_NS {
            return None;
        }
        self.pieces.push_back(std::mem::take(&mut self.open));
        let mut length_ns = self.length_ns();
        while let Some(oldest) = self.pieces.front()
            && length_ns - oldest.length_ns >= MINUTE_NS
        {
            length_ns -= oldest.length_ns;
            self.pieces.pop_front();
        }
        (length_ns >= MINUTE_NS)
            .then(|| self.minute(ledger.end_unix_ns))
            .flatten()
    }

    fn restart(&mut self, shape: Shape) {
        self.shape = shape;
        self.pieces.clear();
        self.open = Piece::default();
    }

    fn length_ns(&self) -> u64 {
        // A piece is a second and an interval at most, and there is a minute of them.
        self.pieces
            .iter()
            .fold(0, |sum: u64, piece| sum.saturating_add(piece.length_ns))
    }

    fn minute(&self, end_unix_ns: i64) -> Option<QuietMinute> {
        let mut sum = Piece::default();
        for piece in &self.pieces {
            sum.add(piece.clone());
        }
        if sum.cpu_ns == 0 || sum.busy_ns * 1000 >= sum.cpu_ns * u128::from(BUSY_PERMILLE) {
            return None;
        }
        let mut floors_mw = BTreeMap::new();
        for (leaf, energy_uj) in self.shape.leaves.iter().zip(&sum.leaves_uj) {
            // A GPU that somebody used, or memory that is not known.
            let Some(energy_uj) = energy_uj else { continue };
            match (energy_uj, can_rest(leaf.kind, leaf.rest)) {
                (0, false) if leaf.by_memory || leaf.kind == ZoneKind::Gpu => {}
                // It does not measure: a floor of 0 W would be wrong.
                (0, false) => return None,
                (energy_uj, _) => drop(floors_mw.insert(leaf.zone.clone(), mean_mw(*energy_uj, sum.length_ns))),
            }
        }
        let can_have_floor = self.shape.leaves.iter().filter(|leaf| !leaf.by_memory);
        let leaves: BTreeSet<String> = can_have_floor.map(|leaf| leaf.zone.clone()).collect();
        if !leaves.iter().any(|leaf| floors_mw.contains_key(leaf)) {
            return None;
        }
        let mut roots_mw = BTreeMap::new();
        for (zone, &(kind, energy_uj)) in &sum.roots_uj {
            match (energy_uj, can_rest(kind, false)) {
                // Its rest would have a floor of 0 W.
                (0, false) if kind == ZoneKind::Package => return None,
                (0, false) => {}
                _ => drop(roots_mw.insert(zone.clone(), mean_mw(energy_uj, sum.length_ns))),
            }
        }
        Some(QuietMinute {
            length_ns: sum.length_ns,
            end_unix_ns,
            busy_permille: u64::try_from((sum.busy_ns * 1000).div_ceil(sum.cpu_ns)).ok()?,
            roots_mw,
            floors_mw,
            leaves,
        })
    }
}

impl Shape {
    fn of(ledger: &Ledger) -> Self {
        Self {
            leaves: measured(ledger)
                .map(|(_, leaf)| Leaf {
                    zone: leaf.zone.clone(),
                    kind: leaf.kind,
                    rest: leaf.rest,
                    by_memory: leaf.method.is_by_memory(),
                })
                .collect(),
            cpus: ledger.cpus.iter().map(|cpu| cpu.cpu).collect(),
        }
    }
}

/// The leaves that a meter read. Of an estimate the user has said what its floor is.
fn measured(ledger: &Ledger) -> impl Iterator<Item = (usize, &LeafZone)> {
    let leaves = ledger.leaves.iter().enumerate();
    leaves.filter(|(_, leaf)| leaf.method != Method::Estimate)
}

impl Piece {
    /// `None` where the interval cannot be a part of a minute: a CPU was not there all the time, or a zone is not known
    /// (after the machine slept, none is).
    fn of(ledger: &Ledger, shape: &Shape) -> Option<Self> {
        let shortest_ns = ledger
            .length_ns()
            .saturating_sub(ledger.energy_skew_ns.saturating_mul(2));
        if ledger.length_ns() == 0 || ledger.cpus.iter().any(|cpu| cpu.interval_ns() < shortest_ns) {
            return None;
        }
        let mut leaves_uj = Vec::with_capacity(shape.leaves.len());
        for (_, leaf) in measured(ledger) {
            let energy_uj = leaf.energy_uj.as_ref().ok().map(|energy_uj| u128::from(*energy_uj));
            match energy_uj {
                None if leaf.kind != ZoneKind::Gpu && !leaf.method.is_by_memory() => return None,
                _ if leaf.kind == ZoneKind::Gpu && !is_quiet(ledger, &leaf.zone) => leaves_uj.push(None),
                energy_uj => leaves_uj.push(energy_uj),
            }
        }
        let busy_ns = |busy_ns, lost_ns| u128::from(busy_ns) + u128::from(lost_ns);
        let roots = ledger.roots.iter().filter(|root| root.method != Method::Estimate);
        Some(Self {
            length_ns: ledger.length_ns(),
            busy_ns: ledger.cpus.iter().map(|cpu| busy_ns(cpu.busy_ns, cpu.lost_ns)).sum(),
            cpu_ns: ledger.cpus.iter().map(|cpu| u128::from(cpu.interval_ns())).sum(),
            leaves_uj,
            roots_uj: roots
                .filter_map(|root| {
                    let energy_uj = *root.energy_uj.as_ref().ok()?;
                    Some((root.zone.clone(), (root.kind, u128::from(energy_uj))))
                })
                .collect(),
        })
    }

    /// Adds the piece that follows.
    fn add(&mut self, next: Self) {
        if self.length_ns == 0 {
            *self = next;
            return;
        }
        self.length_ns = self.length_ns.saturating_add(next.length_ns);
        self.busy_ns += next.busy_ns;
        self.cpu_ns += next.cpu_ns;
        for (sum, next) in self.leaves_uj.iter_mut().zip(next.leaves_uj) {
            *sum = sum.zip(next).map(|(sum, next)| sum + next);
        }
        let mut roots_uj = next.roots_uj;
        self.roots_uj.retain(|zone, (_, sum)| {
            let next = roots_uj.remove(zone);
            *sum += next.map_or(0, |(_, energy_uj)| energy_uj);
            next.is_some()
        });
    }
}

/// Whether the SMs of a GPU were used for less than [`BUSY_PERMILLE`] of the interval, as far as that is told.
fn is_quiet(ledger: &Ledger, zone: &str) -> bool {
    let Some(gpu) = ledger.gpus.iter().find(|gpu| gpu.zone == zone) else {
        return false;
    };
    let uses = ledger.rows.iter().filter_map(|row| row.gpus.get(zone));
    let sm_percent_us: u128 = uses.clone().map(|used| u128::from(used.sm_percent_us)).sum();
    let is_told = gpu.lists_missing.is_none() && (gpu.sm_time_missing.is_none() || uses.count() == 0);
    // Percent × µs: 100 × 1000 ns of the whole GPU are 1000 × 100 ns.
    is_told && sm_percent_us * 10_000 < u128::from(ledger.length_ns()) * u128::from(BUSY_PERMILLE)
}

#[cfg(test)]
mod tests;
