//! A report for a terminal.

mod foreign;

use jiff::tz::TimeZone;

use super::{
    collect::Collected,
    facts::{Carbon, Target, difference_uj, in_switches_ns, kwh, notes, own_ns, policy, value_per_kj},
    model::{Model, joules_per_inference},
    results::{Reached, Spent},
    sheets::joules,
};
use crate::{
    interval::ProcessId,
    log::date,
    printable::printable,
    sinks::summary::{Printer, SummaryOptions},
    tables::figures::{self, UNKNOWN, average_watts, decimal, peak_watts, percent, table, trimmed, watts},
    totals::{
        SHORTEST_PEAK_NS, Share, ZoneTotal,
        gpus::{GpuProcess, GpuUsage},
        phases::PhaseTotal,
    },
};

/// A report that is printed.
pub struct Text<'a> {
    /// The sums.
    pub collected: &'a Collected,
    /// How tables look.
    pub options: &'a SummaryOptions,
    /// Time zone of the dates.
    pub timezone: &'a TimeZone,
    /// The model, if there is one.
    pub model: Option<&'a Model>,
    /// Inferences in the window.
    pub inferences: Option<u64>,
    /// Carbon, if it was asked for.
    pub carbon: Option<Carbon>,
    /// Values that results are to come to.
    pub targets: &'a [Target],
}

impl Text<'_> {
    fn printer(&self) -> Printer<'_> {
        Printer {
            totals: &self.collected.totals,
            options: self.options,
        }
    }

    /// Duration, energy, carbon, model, results.
    pub fn head(&self) -> String {
        let collected = self.collected;
        let totals = &collected.totals;
        let date = |unix_ns: i64| date::date(unix_ns, self.timezone);
        let mut text = String::new();
        if let (Some(begin), Some(end)) = (collected.begin_unix_ns, collected.end_unix_ns) {
            text += &format!("From {} to {}\n", date(begin), date(end));
        }
        if totals.intervals > 0 {
            text += &format!(
                "{} s in {} intervals on {} CPUs, {}, {}\n",
                decimal(totals.duration_ns, 9, 3),
                totals.intervals,
                totals.cpu.cpus,
                count(collected.traces, "trace"),
                count(collected.segments, "ended segment"),
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
            text += &self.model_line(model);
        } else if let Some(inferences) = self.inferences {
            text += &self.inferences_line(inferences);
        }
        text + &self.results()
    }

    fn energy(&self) -> String {
        let totals = &self.collected.totals;
        if !totals.has_energy() {
            return "No energy: there was no meter to split\n".to_owned();
        }
        let estimate = if totals.is_estimate() { " (estimate)" } else { "" };
        let line = |who: &str, energy_uj: Option<u128>, peak: String| match energy_uj {
            None => format!("{who}: an unknown number of J, since no interval has an energy that is known\n"),
            Some(energy_uj) => format!(
                "{who}: {} J{estimate}, {:.9} kWh, {} W on average, {peak} W at most\n",
                decimal(energy_uj, 6, 3),
                kwh(energy_uj),
                watts(energy_uj, totals.known_ns),
            ),
        };
        let (all_uj, listed) = (totals.energy(), totals.listed());
        let mut text = line("Listed processes", listed.amount.energy(), peak_watts(&listed.peak));
        text += &line("All that was split", all_uj, peak_watts(&totals.peak));
        let Some(all_uj) = all_uj else { return text };
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
            text += &carbon_line(carbon, "listed processes", listed.amount.energy_uj);
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

    fn model_line(&self, model: &Model) -> String {
        let known = |number: Option<u64>| number.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
        let mut text = format!(
            "Model: {} parameters, {}{} multiply-adds for one inference{}\n",
            known(model.total_params),
            if model.is_lower_bound() { "at least " } else { "" },
            known(model.total_mult_adds),
            if model.is_lower_bound() {
                " (some operations were not counted)"
            } else {
                ""
            }
        );
        if let Some(inferences) = self.inferences {
            text += &self.inferences_line(inferences);
        }
        text
    }

    /// Energy of the listed processes by inference and multiply-add.
    fn inferences_line(&self, inferences: u64) -> String {
        let Some(listed_uj) = self.collected.totals.listed().amount.energy() else {
            return String::new();
        };
        let mut text = format!(
            "For each of {inferences} inferences: {:.6} J of the listed processes, all leaves",
            joules_per_inference(listed_uj, inferences)
        );
        if let Some(model) = self.model
            && let Some(picojoules) = model.picojoules(listed_uj, inferences)
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

    /// Energy by zone.
    pub fn zones(&self) -> String {
        if self.collected.totals.zones.is_empty() {
            return String::new();
        }
        self.printer().balance()
    }

    /// Biggest processes.
    pub fn processes(&self) -> String {
        self.printer().processes()
    }

    /// Biggest cgroups.
    pub fn cgroups(&self) -> String {
        self.printer().cgroups()
    }

    /// Biggest names.
    pub fn comms(&self) -> String {
        let comms = self.collected.comms.totals.iter();
        let groups = comms.map(|(comm, total)| (vec![printable(comm), total.processes.to_string()], total.usage));
        self.printer().groups(
            "By name of the process, listed processes only",
            &["command", "processes"],
            groups.collect(),
            false,
        )
    }

    /// GPUs, and the processes on them.
    pub fn gpus(&self) -> String {
        let gpus = &self.collected.gpus.totals;
        if gpus.is_empty() {
            return String::new();
        }
        let header = ["GPU", "product", "pid", "command", "SM time s", "energy J"];
        let mut table = table(header.map(str::to_owned).into(), 4, self.options.width);
        for (zone, gpu) in gpus {
            let total = self.collected.totals.zones.iter().find(|total| total.zone == *zone);
            let energy_uj = total.and_then(ZoneTotal::energy);
            let sm = |percent_us: u128| decimal(percent_us, 8, 3);
            table.add_row([
                gpu.index.to_string(),
                printable(&gpu.name),
                String::new(),
                "(all)".to_owned(),
                sm(gpu.sm_percent_us),
                figures::joules(energy_uj),
            ]);
            let mut processes: Vec<(&ProcessId, &GpuProcess)> = gpu.processes.iter().collect();
            processes.sort_by(|(id_a, a), (id_b, b)| b.usage.energy_uj.cmp(&a.usage.energy_uj).then(id_a.cmp(id_b)));
            let mut rest = gpu.other_processes;
            let mut add = |pid: String, name: String, usage: GpuUsage| {
                let joules = figures::joules(usage.energy());
                table.add_row([String::new(), String::new(), pid, name, sm(usage.sm_percent_us), joules]);
            };
            for (position, (id, process)) in processes.into_iter().enumerate() {
                if position < self.options.top {
                    add(id.tgid.to_string(), printable(&process.comm), process.usage);
                } else {
                    rest.add_all(process.usage);
                }
            }
            if rest != GpuUsage::default() {
                add(String::new(), "(smaller ones)".to_owned(), rest);
            }
        }
        let printer = self.printer();
        format!(
            "{}{}{}\n",
            printer.title("GPUs and the listed processes on them"),
            printer.methods(),
            trimmed(&table)
        )
    }

    /// Phases.
    pub fn phases(&self) -> String {
        let phases = self.collected.phases.in_order();
        let mut rows: Vec<(String, &PhaseTotal)> = phases
            .into_iter()
            .filter(|(_, total)| total.totals.intervals > 0)
            .map(|(label, total)| (printable(label), total))
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let without = &self.collected.phases.without;
        if without.totals.intervals > 0 {
            rows.push(("(no phase)".to_owned(), without));
        }
        let totals = &self.collected.totals;
        let zones = || totals.zones.iter().filter(|_| totals.has_energy());
        let mut header: Vec<String> = ["phase", "times", "s", "CPU time s", "idle"].map(str::to_owned).into();
        if totals.has_energy() {
            header.extend(["listed J", "all W", "peak W"].map(str::to_owned));
        }
        header.extend(zones().map(|zone| format!("{} J", zone.zone)));
        if self.inferences.is_some() && totals.has_energy() {
            header.push("J/inference".to_owned());
            header.push("pJ/MAC".to_owned());
        }
        let mut table = table(header, 1, self.options.width);
        for (label, total) in rows {
            let of = &total.totals;
            let times = if total.count > 0 {
                total.count.to_string()
            } else {
                String::new()
            };
            let listed = of.listed().amount;
            let mut cells = vec![
                label,
                times,
                decimal(of.duration_ns, 9, 3),
                decimal(listed.cpu_ns, 9, 3),
                percent(of.cpu.idle_ns, of.cpu.interval_ns),
            ];
            if totals.has_energy() {
                cells.push(figures::joules(listed.energy()));
                cells.push(average_watts(of.energy(), of.known_ns));
                cells.push(peak_watts(&of.peak));
            }
            cells.extend(zones().map(|zone| {
                let known = of
                    .zones
                    .iter()
                    .find(|known| known.zone == zone.zone && known.leaf == zone.leaf);
                // A leaf that a package does not have in this phase is not unknown.
                known.map_or_else(|| "-".to_owned(), |known| figures::joules(known.energy()))
            }));
            if let Some(inferences) = self.inferences.filter(|_| totals.has_energy()) {
                let per_inference = listed
                    .energy()
                    .map(|listed_uj| joules_per_inference(listed_uj, inferences));
                cells.push(per_inference.map_or_else(|| UNKNOWN.to_owned(), |joules| format!("{joules:.6}")));
                let picojoules = self
                    .model
                    .zip(listed.energy())
                    .and_then(|(model, listed_uj)| model.picojoules(listed_uj, inferences));
                cells.push(picojoules.map_or_else(|| "-".to_owned(), |picojoules| format!("{picojoules:.3}")));
            }
            table.add_row(cells);
        }
        let mut text = format!(
            "{}CPU time and listed J are of the listed processes. Phases can overlap: their sum is not the total\n",
            self.printer().title("By phase")
        );
        if self.inferences.is_some() {
            text += "J/inference and pJ/MAC: as if all inferences had been in that phase\n";
        }
        text + &trimmed(&table) + "\n"
    }

    /// What is not exact.
    pub fn notes(&self) -> String {
        let mut notes = notes(self.collected, self.options);
        if self.collected.totals.has_energy() {
            notes.push(format!(
                "peak W is the highest average of one interval; intervals below {} ms are not looked at",
                SHORTEST_PEAK_NS / 1_000_000
            ));
        }
        if let Some(others) = self.collected.totals.shares.get(&Share::Others)
            && others.amount.energy_uj > 0
        {
            notes.push(format!(
                "{:.3} J are of others, which the filters of the trace left out",
                joules(others.amount.energy_uj)
            ));
        }
        if self.collected.totals.mixed_policies {
            notes.push(format!(
                "idle policy of the last trace: {}",
                policy(&self.collected.totals)
            ));
        }
        if notes.is_empty() {
            return String::new();
        }
        let lines: String = notes.iter().map(|note| format!("  * {note}\n")).collect();
        format!("\nNotes\n{lines}")
    }
}

fn carbon_line(carbon: &Carbon, who: &str, energy_uj: u128) -> String {
    let result = match carbon.grams(energy_uj) {
        Some(grams) => format!("{grams:.6} g CO2e"),
        None => format!("{:.9} kWh", carbon.kwh(energy_uj)),
    };
    format!("{who}, {:.9} {} = {result}\n", kwh(energy_uj), carbon.formula())
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
