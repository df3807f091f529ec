//! What stands before and after the tables of a report for a terminal.

use jiff::tz::TimeZone;

use super::{
    collect::Collected,
    facts::{Carbon, Target, difference_uj, in_switches_ns, joules, kwh, own_ns, value_per_kj},
    model::Model,
    notes::notes,
    results::{Reached, Spent},
    tables::Tables,
};
use crate::{
    log::date,
    printable::printable,
    tables::{
        Unit, answer,
        figures::{counted, decimal, watts},
        highest,
        phases::Inferences,
        summary::list,
    },
    totals::{SHORTEST_PEAK_NS, Share},
};

/// A report that is printed.
pub struct Text<'a> {
    /// The sums.
    pub collected: &'a Collected,
    /// Its tables.
    pub tables: Tables<'a>,
    /// Columns of the terminal.
    pub width: u16,
    /// Whose energy was asked for.
    pub listed: Option<&'a str>,
    /// Time zone of the dates.
    pub timezone: &'a TimeZone,
    /// The model, if there is one.
    pub model: Option<&'a Model>,
    /// Carbon, if it was asked for.
    pub carbon: Option<Carbon>,
    /// Values that results are to come to.
    pub targets: &'a [Target],
}

impl Text<'_> {
    /// Duration, energy, carbon, model, results.
    pub fn head(&self) -> String {
        let collected = self.collected;
        let totals = &collected.totals;
        let date = |unix_ns: i64| date::date(unix_ns, self.timezone);
        let mut text = String::new();
        if totals.intervals > 0 {
            let who = answer::who(self.listed, totals);
            text += &format!("{}\n{}\n", answer::headline(totals, &who), answer::how(totals));
        }
        if let (Some(begin), Some(end)) = (collected.begin_unix_ns, collected.end_unix_ns) {
            text += &format!("From {} to {}\n", date(begin), date(end));
        }
        if totals.intervals > 0 {
            text += &format!(
                "{} s in {} intervals on {} CPUs, {}, {}\n",
                decimal(totals.duration_ns, 9, 3),
                totals.intervals,
                totals.cpu.cpus,
                counted(collected.traces, "trace"),
                counted(collected.segments, "ended segment"),
            );
        }
        if collected.outside > 0 {
            text += &format!(
                "{} intervals are left out: the window takes whole intervals, those that end in it\n",
                collected.outside
            );
        }
        if totals.intervals > 0 {
            text += &self.energy();
            text += &self.measuring_cost();
        }
        if let Some(model) = self.model {
            text += &model_line(model);
        }
        if let Some(inferences) = self.tables.inferences {
            text += &self.inferences_line(inferences);
        }
        text + &self.results()
    }

    fn energy(&self) -> String {
        let totals = &self.collected.totals;
        let listed = totals.listed();
        let Some((all_uj, listed_uj)) = totals.energy().zip(listed.amount.energy()) else {
            return String::new();
        };
        let estimate = if totals.is_estimate() { " (estimate)" } else { "" };
        let mut text = format!(
            "All that was split: {} J{estimate}, {} W on average, {} W at peak; {:.9} kWh, of which the listed processes \
             {:.9} kWh\n",
            decimal(all_uj, 6, 3),
            watts(all_uj, totals.known_ns),
            highest(totals.peak).shown(Unit::Watts),
            kwh(all_uj),
            kwh(listed_uj),
        );
        if listed.amount.unknown_intervals > 0 {
            text += &format!(
                "In {} of {} intervals a part of the energy is not known, and in none of these sums: see the notes\n",
                listed.amount.unknown_intervals, totals.intervals
            );
        }
        text += &match difference_uj(totals) {
            0 => "The balance closes: zones and rows differ by 0 µJ\n".to_owned(),
            uj => format!("THE BALANCE DOES NOT CLOSE: zones and rows differ by {uj} µJ\n"),
        };
        if let Some(carbon) = &self.carbon {
            text += &carbon_line(carbon, "listed processes", listed_uj);
            text += &carbon_line(carbon, "all that was split", all_uj);
        }
        text
    }

    fn measuring_cost(&self) -> String {
        let totals = &self.collected.totals;
        let inside = in_switches_ns(totals).map_or_else(
            || "; what it cost inside context switches is not known".to_owned(),
            |ns| {
                format!(
                    ", and about {} s inside {} of {} context switches (estimate)",
                    decimal(ns, 9, 3),
                    totals.cpu.estimated_switches,
                    totals.cpu.switches,
                )
            },
        );
        let own = decimal(own_ns(totals), 9, 3);
        format!("Measuring cost: {own} s of CPU time by dlpm itself{inside}\n")
    }

    /// Energy of the listed processes by inference and multiply-add.
    fn inferences_line(&self, inferences: Inferences) -> String {
        let Some(listed_uj) = self.collected.totals.listed().amount.energy() else {
            return String::new();
        };
        let mut text = format!(
            "For each of {} inferences: {:.6} J of the listed processes, all leaves",
            inferences.count,
            inferences.joules(listed_uj)
        );
        if let Some(model) = self.model
            && let Some(picojoules) = inferences.picojoules(listed_uj)
        {
            let bound = if model.is_lower_bound() { "at most " } else { "" };
            text += &format!("; {bound}{picojoules:.3} pJ for each multiply-add");
        }
        text + "\n"
    }

    fn results(&self) -> String {
        let results = &self.collected.results;
        let mut text = String::new();
        let spent = |spent: Spent| match spent.known {
            true => format!(
                "{:.3} J of the listed processes ({:.3} J in all), {:.3} s",
                spent.listed_joules, spent.all_joules, spent.measured_s
            ),
            false => format!("an unknown number of J, {:.3} s", spent.measured_s),
        };
        for (metric, value, until) in results.newest() {
            let per_kj = value_per_kj(value, until).map_or_else(String::new, |per_kj| format!(": {per_kj:.6} per kJ"));
            text += &format!("Result {}: {value} after {}{per_kj}\n", printable(metric), spent(until));
        }
        for target in self.targets {
            let name = format!("{} = {}", printable(&target.metric), target.value);
            text += &match results.reach(&target.metric, target.value) {
                Reached::AtFirst(until) => {
                    format!("{name} at the first result or before, after {} at most\n", spent(until))
                }
                Reached::Between(until) => format!("{name} after {} (between two results)\n", spent(until)),
                Reached::Never(closest) => {
                    format!("{name} does not lie between two results: {closest} is the closest\n")
                }
                Reached::Unknown => String::new(),
            };
        }
        text
    }

    /// What AIPowerMeter itself recorded.
    pub fn foreign(&self) -> String {
        let foreign = &self.collected.foreign;
        if foreign.samples == 0 {
            return String::new();
        }
        format!(
            "\nRecorded by AIPowerMeter: {} samples over {:.3} s, watts integrated (idle policy: energy goes to busy \
             processes; idle time not recorded)\n{}{}",
            foreign.samples,
            foreign.duration_s,
            self.tables.foreign_zones().text(self.width),
            self.tables.foreign_processes().text(self.width),
        )
    }

    /// What is not exact.
    pub fn notes(&self) -> String {
        let mut notes = notes(self.collected);
        let totals = &self.collected.totals;
        if totals.has_energy() {
            notes.push(format!(
                "peak W is the highest average of one interval; intervals below {} ms are not looked at",
                SHORTEST_PEAK_NS / 1_000_000
            ));
        }
        if let Some(others) = totals.shares.get(&Share::Others)
            && others.amount.energy_uj > 0
        {
            notes.push(format!(
                "{:.3} J are of others, which the filters of the trace left out",
                joules(others.amount.energy_uj)
            ));
        }
        list(notes.into_iter())
    }
}

fn carbon_line(carbon: &Carbon, who: &str, energy_uj: u128) -> String {
    let result = match carbon.grams(energy_uj) {
        Some(grams) => format!("{grams:.6} g CO2e"),
        None => format!("{:.9} kWh", carbon.kwh(energy_uj)),
    };
    format!("{who}, {:.9} {} = {result}\n", kwh(energy_uj), carbon.formula())
}

fn model_line(model: &Model) -> String {
    let known = |number: Option<u64>| number.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
    format!(
        "Model: {} parameters, {}{} multiply-adds for {}{}\n",
        known(model.total_params),
        if model.is_lower_bound() { "at least " } else { "" },
        known(model.total_mult_adds),
        model.unit(),
        if model.is_lower_bound() {
            " (some operations were not counted)"
        } else {
            ""
        }
    )
}
