//! What a trace found, as tables for a terminal.

use comfy_table::ColumnConstraint;

use crate::{
    interval::ZoneKind,
    printable::printable,
    sinks::measuring_cost::MeasuringCost,
    tables::figures::{average_watts, decimal, joules, known_percent, peak_watts, percent, shortened, table, trimmed},
    totals::{Amount, Peak, Share, Totals, Usage, ZoneTotal},
};

/// How a summary is printed.
#[derive(Clone, Debug)]
pub struct SummaryOptions {
    /// Columns of the terminal.
    pub width: u16,
    /// Processes and cgroups that have a line of their own.
    pub top: usize,
    /// Whether tables show the highest power, and the kinds of energy beside their sum.
    pub details: bool,
    /// What else was dropped or is absent, a sentence each.
    pub notes: Vec<String>,
    /// What the measuring cost.
    pub cost: Option<MeasuringCost>,
}

impl Default for SummaryOptions {
    fn default() -> Self {
        Self {
            width: 100,
            top: 15,
            details: false,
            notes: Vec::new(),
            cost: None,
        }
    }
}

/// The summary of a trace: biggest consumers, cgroups if there are several, energy by zone, and what is missing.
pub fn render(totals: &Totals, options: &SummaryOptions) -> String {
    let printer = Printer { totals, options };
    let mut text = printer.heading();
    text += &printer.processes();
    if totals.cgroups.len() > 1 {
        text += &printer.cgroups();
    }
    if !totals.zones.is_empty() {
        text += &printer.balance();
    }
    if let Some(cost) = &options.cost {
        text += &format!("\n{}", cost.text());
    }
    let notes = printer.notes();
    if !notes.is_empty() {
        text += "\nNotes\n";
        for note in notes {
            text += &format!("  * {note}\n");
        }
    }
    text
}

/// A kind of energy: the head of its column, and which part of an amount it is.
type Kind = (&'static str, fn(&Amount) -> Option<u128>);

/// The parts of a summary.
pub struct Printer<'a> {
    /// What is shown.
    pub totals: &'a Totals,
    /// How.
    pub options: &'a SummaryOptions,
}

impl Printer<'_> {
    fn heading(&self) -> String {
        let totals = self.totals;
        format!(
            "\n{} s in {} intervals on {} CPUs{}\n",
            decimal(totals.duration_ns, 9, 3),
            totals.intervals,
            totals.cpu.cpus,
            if totals.has_energy() {
                ""
            } else {
                "; no energy: there is no meter to split"
            },
        )
    }

    /// The line above a table: every one says how idle energy is dealt with.
    pub fn title(&self, what: &str) -> String {
        let totals = self.totals;
        let estimate = if totals.is_estimate() {
            ", joules are an estimate"
        } else {
            ""
        };
        format!(
            "\n{what} (idle policy {}, {} of CPU time was idle{estimate})\n",
            totals.idle_policy.as_str(),
            percent(totals.cpu.idle_ns, totals.cpu.interval_ns),
        )
    }

    /// How the joules of a table were made that adds up leaves; the table of zones says it of each.
    pub fn methods(&self) -> String {
        let leaves = self.totals.zones.iter().filter(|zone| zone.leaf);
        let mut methods: Vec<&str> = leaves
            .flat_map(|zone| zone.methods.iter().map(|method| method.as_str()))
            .collect();
        methods.sort_unstable();
        methods.dedup();
        if methods.is_empty() {
            return String::new();
        }
        format!("joules by method {}\n", methods.join(" and "))
    }

    /// The kinds of energy that have a column of their own: those that there are, if there are several.
    fn kinds(&self) -> Vec<Kind> {
        let has =
            |wanted: &dyn Fn(ZoneKind) -> bool| self.totals.zones.iter().any(|zone| zone.leaf && wanted(zone.kind));
        let kinds = [
            (
                has(&|kind| !matches!(kind, ZoneKind::Dram | ZoneKind::Gpu)),
                "CPU J",
                Amount::cpu as fn(&Amount) -> Option<u128>,
            ),
            (has(&|kind| kind == ZoneKind::Dram), "DRAM J", Amount::dram),
            (has(&|kind| kind == ZoneKind::Gpu), "GPU J", Amount::gpu),
        ];
        let kinds = kinds
            .into_iter()
            .filter(|(is_there, ..)| *is_there && self.options.details);
        let kinds: Vec<_> = kinds.map(|(_, name, part)| (name, part)).collect();
        if kinds.len() > 1 { kinds } else { Vec::new() }
    }

    /// The columns that a usage has.
    pub fn usage_header(&self) -> Vec<String> {
        let mut header = vec!["CPU time s".to_owned()];
        if self.totals.has_energy() {
            let estimate = if self.totals.is_estimate() { " (estimate)" } else { "" };
            header.push(format!("energy J{estimate}"));
            header.extend(self.kinds().iter().map(|(name, _)| (*name).to_owned()));
            header.push(format!("average W{estimate}"));
            if self.options.details {
                header.push("peak W".to_owned());
            }
        }
        header.push("share".to_owned());
        header
    }

    /// The cells of a usage; `peak` is `None` for a sum of groups.
    pub fn usage(&self, amount: Amount, peak: Option<Peak>) -> Vec<String> {
        let totals = self.totals;
        let mut cells = vec![decimal(amount.cpu_ns, 9, 3)];
        if totals.has_energy() {
            cells.push(joules(amount.energy()));
            cells.extend(self.kinds().iter().map(|(_, part)| joules(part(&amount))));
            cells.push(average_watts(amount.energy(), totals.known_ns));
            if self.options.details {
                cells.push(peak.map_or_else(String::new, |peak| peak_watts(&peak)));
            }
            cells.push(known_percent(amount.energy(), totals.energy()));
        } else {
            cells.push(percent(amount.cpu_ns, totals.used_ns()));
        }
        cells
    }

    /// The rows that are not processes, after `names` empty cells but one.
    fn fixed_rows(&self, names: usize, name_at: usize) -> Vec<Vec<String>> {
        let totals = self.totals;
        let fixed = Share::FIXED
            .into_iter()
            .filter_map(|share| Some((share, totals.shares.get(&share)?)));
        fixed
            .map(|(share, usage)| {
                let mut cells = vec![String::new(); names];
                cells[name_at] = format!("({})", share.as_str());
                cells.extend(self.usage(usage.amount, Some(usage.peak)));
                // Idle time is not part of the time that was used.
                if share == Share::Idle && !totals.has_energy() {
                    cells.pop();
                    cells.push(String::new());
                }
                cells
            })
            .collect()
    }

    /// A table of groups, largest first, with what the listed processes used beside them, and the other rows.
    pub fn groups(&self, what: &str, names: &[&str], mut groups: Vec<(Vec<String>, Usage)>, others: bool) -> String {
        let size = |usage: &Usage| (usage.amount.energy_uj, usage.amount.cpu_ns);
        groups.sort_by(|(names_a, a), (names_b, b)| size(b).cmp(&size(a)).then(names_a.cmp(names_b)));
        let mut header: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        header.extend(self.usage_header());
        let mut table = table(header, names.len(), self.options.width);
        let mut rest = self.totals.listed().amount;
        for (mut cells, usage) in groups.into_iter().take(self.options.top) {
            cells.extend(self.usage(usage.amount, Some(usage.peak)));
            table.add_row(cells);
            rest = rest.without(usage.amount);
        }
        let name_at = usize::from(names.len() > 1);
        if !rest.is_nothing() {
            let mut cells = vec![String::new(); names.len()];
            "(smaller ones)".clone_into(&mut cells[name_at]);
            cells.extend(self.usage(rest, None));
            table.add_row(cells);
        }
        if others {
            table.add_rows(self.fixed_rows(names.len(), name_at));
        }
        format!("{}{}{}\n", self.title(what), self.methods(), trimmed(&table))
    }

    /// The processes that used most, and all that are not listed processes.
    pub fn processes(&self) -> String {
        let processes = self.totals.processes.iter().map(|((id, cgroup), total)| {
            let names = vec![id.tgid.to_string(), printable(&total.comm), shortened(cgroup)];
            let usage = Usage {
                amount: total.amount,
                peak: total.peak,
            };
            (names, usage)
        });
        self.groups(
            "Biggest consumers",
            &["pid", "command", "cgroup"],
            processes.collect(),
            true,
        )
    }

    /// The cgroups that used most.
    pub fn cgroups(&self) -> String {
        let cgroups = self.totals.cgroups.iter();
        let cgroups = cgroups.map(|(cgroup, usage)| (vec![printable(cgroup)], *usage));
        self.groups(
            "By cgroup, listed processes only",
            &["cgroup"],
            cgroups.collect(),
            false,
        )
    }

    /// Joules of each zone, and of the rows that share them.
    pub fn balance(&self) -> String {
        let shares: Vec<Share> = Share::ALL
            .into_iter()
            .filter(|share| self.totals.shares.contains_key(share))
            .collect();
        let mut header: Vec<String> = ["zone", "method", "J", "W"].map(str::to_owned).into();
        if self.options.details {
            header.push("peak W".to_owned());
        }
        let partly = self.totals.zones.iter().any(|zone| zone.known != self.totals.intervals);
        if partly {
            header.push("known".to_owned());
        }
        header.extend(shares.iter().map(|share| share_word(*share).to_owned()));
        header.push("diff. µJ".to_owned());
        let mut table = table(header, 2, self.options.width);
        for zone in &self.totals.zones {
            let mut cells = vec![
                zone.zone.clone(),
                methods_of(zone),
                joules(zone.energy()),
                average_watts(zone.energy(), zone.known_ns),
            ];
            if self.options.details {
                cells.push(peak_watts(&zone.peak));
            }
            if partly {
                cells.push(format!("{}/{}", zone.known, self.totals.intervals));
            }
            cells.extend(shares.iter().map(|share| match zone.share(*share) {
                Some(uj) => decimal(uj, 6, 3),
                None if zone.leaf => "-".to_owned(),
                None => String::new(),
            }));
            cells.push(if zone.has_parts() && zone.known > 0 {
                zone.difference_uj.to_string()
            } else {
                String::new()
            });
            table.add_row(cells);
        }
        // A name or a figure that is broken over two lines cannot be read; the table may be wider instead.
        for column in table.column_iter_mut() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        format!(
            "{}{}{}\n",
            self.title("Energy by zone, and who got it, in joules"),
            if partly {
                "known: intervals in which the energy of the zone is known, of all\n"
            } else {
                ""
            },
            trimmed(&table)
        )
    }

    /// What is missing or not exact, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let totals = self.totals;
        let mut notes = Vec::new();
        if totals.is_estimate() {
            // The platform's zone can be measured beside it, and is part of no sum.
            let psys = totals.zones.iter().any(|zone| zone.kind == ZoneKind::Psys);
            notes.push(format!(
                "energy is an estimate, made from the watts given with --estimate; {}",
                if psys {
                    "nothing but psys measured any"
                } else {
                    "nothing measured it"
                }
            ));
        }
        if totals.cpu.violations > 0 {
            notes.push(format!(
                "busy, idle and lost time do not add up to the interval in {} intervals of a CPU: please report this",
                totals.cpu.violations
            ));
        }
        if totals.cpu.lost_ns > 0 {
            notes.push(format!(
                "{} s of CPU time found no room in the maps; they are in the row unattributed",
                decimal(totals.cpu.lost_ns, 9, 6)
            ));
        }
        notes.extend(totals.zones.iter().flat_map(|zone| self.zone_notes(zone)));
        if totals.folded_processes > 0 {
            notes.push(format!(
                "{} small processes are summed up by cgroup only{}",
                totals.folded_processes,
                if totals.folded_running {
                    ", some of which may appear with a part of what they used"
                } else {
                    ""
                }
            ));
        }
        if totals.folded_cgroups.0 > 0 {
            notes.push(format!("{} small cgroups are summed up", totals.folded_cgroups.0));
        }
        notes.extend(self.options.notes.iter().map(|note| printable(note)));
        notes
    }

    fn zone_notes(&self, zone: &ZoneTotal) -> Vec<String> {
        let intervals = self.totals.intervals;
        let because = |reason: &Option<String>| {
            reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(": {}", printable(reason)))
        };
        let mut notes = Vec::new();
        if zone.invalid > 0 {
            notes.push(format!(
                "{} is not known in {} of {intervals} intervals{}",
                zone.zone,
                zone.invalid,
                because(&zone.reason)
            ));
        }
        if zone.one_leaf > 0 {
            notes.push(format!(
                "{} is split as one leaf in {} of {intervals} intervals{}",
                zone.zone,
                zone.one_leaf,
                because(&zone.one_leaf_reason)
            ));
        }
        notes
    }
}

fn methods_of(zone: &ZoneTotal) -> String {
    let words: Vec<&str> = zone.methods.iter().map(|method| method.as_str()).collect();
    words.join(", ")
}

fn share_word(share: Share) -> &'static str {
    match share {
        Share::Unattributed => "unattr.",
        share => share.as_str(),
    }
}

#[cfg(test)]
mod tests;
