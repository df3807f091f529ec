//! Energy zones of several dies in one package: one counter shown several times, or one counter each?
//!
//! The kernel's RAPL driver names a zone `package-N-die-M` where its topology has more than one die in a package. Which
//! counter is behind such a zone is written in `drivers/powercap/intel_rapl_common.c` (6.12,
//! `rapl_msrs_are_pkg_scope`): AMD and Hygon have one counter per package, and kernels before 6.12 showed it once per die;
//! Intel's Cascade Lake-AP has one per die, and Intel's other CPUs with these registers have one die. So dies count
//! once on AMD and are added up on Intel.
//!
//! The counters themselves are the second witness: a mirror, read between two readings of the first die, lies between
//! them. Where both witnesses contradict each other the package is invalid.

use super::vendor::Vendor;

/// A mirror can be updated a little later than the first die: what 2 kW are in 10 ms.
const LAG_UJ: u64 = 20_000_000;

/// What the counters of a package's dies make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    /// Each counts its own energy: add them up.
    Sum,
    /// All are the same counter: take the first.
    First,
    /// That cannot be known, and why.
    Unknown(&'static str),
}

impl Dies {
    /// `distinct` says that the counters were seen to differ by more than one counter can ([`differ`]).
    pub fn judge(vendor: Vendor, distinct: bool) -> Self {
        match (vendor, distinct) {
            (Vendor::Intel, true) => Self::Sum,
            (Vendor::Amd | Vendor::Unknown, false) => Self::First,
            (Vendor::Intel, false) => Self::Unknown(
                "on an Intel CPU each die has its own counter, but the counters of these dies have read the same so far",
            ),
            (Vendor::Amd, true) => Self::Unknown(
                "on an AMD CPU the dies of a package show one counter, but the counters of these dies differ",
            ),
            (Vendor::Unknown, true) => Self::Unknown(
                "the counters of its dies differ, and it is not known whether they add up, because \
                 devices/system/cpu/modalias does not name the CPU's maker",
            ),
        }
    }
}

/// Whether `other_uj`, read between two readings of the first die's counter, must be another counter.
///
/// Counters run from 0 to `range_uj` and start again; without a range nothing can be said of a wrap, and a counter that
/// fell counts as the same.
pub(super) fn differ(before_uj: u64, other_uj: u64, after_uj: u64, range_uj: Option<u64>) -> bool {
    let forward = |from: u64, to: u64| match (to.checked_sub(from), range_uj) {
        (Some(distance), _) => Some(distance),
        (None, Some(range)) => Some(range.saturating_sub(from).saturating_add(to).saturating_add(1)),
        (None, None) => None,
    };
    let Some(between_uj) = forward(before_uj, after_uj) else {
        return false;
    };
    let ahead = forward(before_uj, other_uj).is_some_and(|uj| uj <= between_uj.saturating_add(LAG_UJ));
    let behind = forward(other_uj, before_uj).is_some_and(|uj| uj <= LAG_UJ);
    !(ahead || behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANGE: u64 = 65_532_610_987;

    #[test]
    fn a_mirror_lies_between() {
        assert!(!differ(1_000, 1_000, 1_000, Some(RANGE)));
        assert!(!differ(1_000, 1_500, 2_000, Some(RANGE)));
        assert!(
            !differ(30_000_000, 30_000_000 - LAG_UJ, 30_000_000, Some(RANGE)),
            "late"
        );
        assert!(differ(30_000_000, 30_000_000 - LAG_UJ - 1, 30_000_000, Some(RANGE)));
        assert!(differ(1_000, 2_001 + LAG_UJ, 2_000, Some(RANGE)));
        assert!(!differ(RANGE - 5, 3, 10, Some(RANGE)), "over the wrap");
        assert!(!differ(3, RANGE - 5, 10, Some(RANGE)), "late over the wrap");
    }

    proptest! {
        /// Whatever the position of the counter, a mirror is found to be one, and a counter far away is not.
        #[test]
        fn every_position(at in 0..=RANGE, before in 0u64..1_000_000, after in 0u64..1_000_000, far in LAG_UJ + 1..RANGE - LAG_UJ - 2_000_000) {
            let plus = |uj: u64| (at + uj) % (RANGE + 1);
            let (mirror, last) = (plus(before), plus(before + after));
            prop_assert!(!differ(at, mirror, last, Some(RANGE)));
            prop_assert!(differ(at, plus(before + after + far), last, Some(RANGE)));
        }
    }
}
