//! What the measuring itself cost: dlpm's own CPU time, and an estimate of its part of all context switches.

use serde_json::{Value, json};

use crate::{
    interval::SwitchCost,
    totals::{Share, Totals},
};

/// The cost of a whole trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuringCost {
    self_ns: u128,
    switches: u128,
    switch_cost: Result<SwitchCost, String>,
}

impl MeasuringCost {
    /// Of a trace that has ended.
    pub fn of(totals: &Totals, switch_cost: Result<SwitchCost, String>) -> Self {
        let own = totals.shares.get(&Share::SelfDlpm).copied().unwrap_or_default();
        Self {
            self_ns: own.amount.cpu_ns,
            switches: totals.cpu.switches,
            switch_cost,
        }
    }

    fn estimate_ns(&self, cost: SwitchCost) -> u128 {
        self.switches.saturating_mul(cost.run_ns.into())
    }

    /// For the summary, in lines of at most 100 characters.
    pub fn text(&self) -> String {
        let own = seconds(self.self_ns);
        match &self.switch_cost {
            Ok(cost) => format!(
                "Measuring cost: {own} s of CPU time by dlpm itself, and about {} s inside {} context switches\n  \
                 (estimate: {} ns each, the kernel's mean of {} in the first {} ms)\n",
                seconds(self.estimate_ns(*cost)),
                self.switches,
                cost.run_ns,
                cost.runs,
                cost.measured_ns / 1_000_000,
            ),
            Err(reason) => format!(
                "Measuring cost: {own} s of CPU time by dlpm itself; what it cost inside {} context switches is\n  not \
                 known: {reason}\n",
                self.switches
            ),
        }
    }

    /// For the metadata.
    pub fn to_json(&self) -> Value {
        let mut facts = json!({"self_cpu_ns": word(self.self_ns), "switches": word(self.switches)});
        match &self.switch_cost {
            Ok(cost) => {
                facts["ns_per_switch"] = cost.run_ns.into();
                facts["switches_estimate_ns"] = word(self.estimate_ns(*cost)).into();
                facts["measured_runs"] = cost.runs.into();
                facts["measured_ns"] = cost.measured_ns.into();
            }
            Err(reason) => facts["not_known"] = reason.as_str().into(),
        }
        facts
    }
}

fn word(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds, rounded to the millisecond.
fn seconds(ns: u128) -> String {
    let ms = (ns + 500_000) / 1_000_000;
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(switch_cost: Result<SwitchCost, String>) -> MeasuringCost {
        MeasuringCost {
            self_ns: 12_345_678,
            switches: 1_000_000,
            switch_cost,
        }
    }

    fn measured() -> SwitchCost {
        SwitchCost {
            run_ns: 113,
            runs: 1_043,
            measured_ns: 100_200_000,
        }
    }

    #[test]
    fn the_estimate_is_switches_times_the_measured_cost() {
        let known = cost(Ok(measured()));
        assert_eq!(
            known.text(),
            "Measuring cost: 0.012 s of CPU time by dlpm itself, and about 0.113 s inside 1000000 context switches\n  \
             (estimate: 113 ns each, the kernel's mean of 1043 in the first 100 ms)\n"
        );
        assert_eq!(
            known.to_json(),
            json!({"self_cpu_ns": 12_345_678, "switches": 1_000_000, "ns_per_switch": 113,
                "switches_estimate_ns": 113_000_000, "measured_runs": 1043, "measured_ns": 100_200_000})
        );
    }

    #[test]
    fn without_a_measurement_there_is_no_figure() {
        let unknown = cost(Err("the kernel does not count it".to_owned()));
        assert!(
            unknown.text().contains("known: the kernel does not count it"),
            "{}",
            unknown.text()
        );
        let facts = unknown.to_json();
        assert_eq!(facts["not_known"], "the kernel does not count it");
        assert!(facts.get("ns_per_switch").is_none() && facts.get("switches_estimate_ns").is_none());
    }
}
