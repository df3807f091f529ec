//! Why a validation says nothing, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
    /// What was wrong.
    #[derive(PartialOrd, Ord)]
    pub enum Why {
        /// Nothing counts energy.
        NoMeter = "no_meter",
        /// The meter failed in some cell.
        MeterFailed = "meter_failed",
        /// No room for two loads and dlpm.
        TooFewCores = "too_few_cores",
        /// The machine runs on battery.
        Battery = "battery",
        /// The processor adds noise to its energy counters.
        EnergyFiltering = "energy_filtering",
        /// Others used CPU time.
        ForeignLoad = "foreign_load",
        /// The power of the idle machine moved.
        UnstableIdle = "unstable_idle",
        /// The power of a load alone is not known well enough.
        UncertainLoad = "uncertain_load",
        /// The kernel counted throttling.
        Throttling = "throttling",
        /// A load alone was not equally fast in all rounds.
        UnstableSpeed = "unstable_speed",
        /// Every pair slows its loads down.
        Interference = "interference",
        /// No pair draws enough above idle.
        NothingToSplit = "nothing_to_split",
        /// Cells are missing.
        Incomplete = "incomplete",
    }
}

impl Why {
    /// What to do about it.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::NoMeter => {
                "see `dlpm doctor`: on a physical machine load the module intel_rapl_msr (it serves AMD too); an estimate \
                 cannot be validated"
            }
            Self::MeterFailed => "see `dlpm doctor`, then try again",
            Self::TooFewCores => {
                "run it on a machine with three cores, name the CPUs with --cpus, or let dlpm share a core with a load \
                 (--share-core), which the result then says"
            }
            Self::Battery => "plug the machine in, then try again",
            Self::EnergyFiltering => {
                "switch SGX off in the firmware, or start Linux on a processor without it: figures of a second are not \
                 affected much, but nobody can say how much"
            }
            Self::ForeignLoad => {
                "stop what runs (`dlpm top` shows it), then try again, or accept more with --max-foreign, which the result \
                 then says"
            }
            Self::UnstableIdle => {
                "let the machine cool down, stop what wakes it up, and set the fans and the governor to fixed values, then \
                 try again; longer cells (--cell) help too"
            }
            Self::UncertainLoad => "try more rounds (--rounds) or longer cells (--cell), on a machine that is quieter",
            Self::Throttling => {
                "let the machine cool down and improve its cooling, or name other cores with --cpus, then try again"
            }
            Self::UnstableSpeed => {
                "set the governor `performance` and switch the turbo off (docs/truth.md says how), then try again"
            }
            Self::Interference => {
                "switch the turbo off, or name two cores that do not share a cache with --cpus; where every pair slows \
                 down, `alone` is not what is true beside another load"
            }
            Self::NothingToSplit => {
                "name loads that draw more with --loads, or see `dlpm doctor` whether the meter covers these cores"
            }
            Self::Incomplete => "run `dlpm validate` again and let it finish",
        }
    }
}

/// Why a validation says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// The kind.
    pub why: Why,
    /// What was seen, with its figures.
    pub seen: String,
}

impl Refusal {
    /// One of that kind.
    pub fn new(why: Why, seen: impl Into<String>) -> Self {
        Self { why, seen: seen.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}. Next step: {}",
            self.why.as_str(),
            self.seen,
            self.why.next_step()
        )
    }
}
