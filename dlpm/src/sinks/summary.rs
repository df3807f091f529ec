//! What a trace found, as tables for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::{
    attribution::ledger::RowKey,
    interval::ZoneKind,
    sinks::{
        log_line::row_word,
        measuring_cost::MeasuringCost,
        totals::{Amount, Share, Totals, ZoneTotal},
    },
};

/// How a summary is printed.
#[derive(Clone, Debug)]
pub struct SummaryOptions {
    /// Columns of the terminal.
    pub width: u16,
    /// Processes and cgroups that have a line of their own.
    pub top: usize,
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
            notes: Vec::new(),
            cost: None,
        }
    }
}

/// Longest name of a cgroup that is shown whole.
const CGROUP_WIDTH: usize = 32;

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

struct Printer<'a> {
    totals: &'a Totals,
    options: &'a SummaryOptions,
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
    fn title(&self, what: &str) -> String {
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
    fn methods(&self) -> String {
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

    fn table(&self, header: Vec<String>, left: usize) -> Table {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(self.options.width)
            .force_no_tty()
            .set_header(header);
        for (position, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if position >= left {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// The columns that an amount has.
    fn amount_header(&self) -> Vec<String> {
        let mut header = vec!["CPU time s".to_owned()];
        if self.totals.has_energy() {
            let estimate = if self.totals.is_estimate() { " (estimate)" } else { "" };
            header.push(format!("energy J{estimate}"));
            header.push(format!("average W{estimate}"));
        }
        header.push("share".to_owned());
        header
    }

    fn amount(&self, amount: Amount) -> Vec<String> {
        let totals = self.totals;
        let mut cells = vec![decimal(amount.cpu_ns, 9, 3)];
        if totals.has_energy() {
            cells.push(decimal(amount.energy_uj, 6, 3));
            cells.push(watts(amount.energy_uj, totals.duration_ns));
            cells.push(percent(amount.energy_uj, totals.energy_uj()));
        } else {
            cells.push(percent(amount.cpu_ns, totals.used_ns()));
        }
        cells
    }

    /// Idle time is no part of the time that was used.
    fn amount_of(&self, share: Share, amount: Amount) -> Vec<String> {
        let mut cells = self.amount(amount);
        if share == Share::Idle && !self.totals.has_energy() {
            cells.pop();
            cells.push(String::new());
        }
        cells
    }

    fn processes(&self) -> String {
        let totals = self.totals;
        let mut listed: Vec<_> = totals.processes.iter().collect();
        listed.sort_by(|(key_a, a), (key_b, b)| {
            let size = |amount: Amount| (amount.energy_uj, amount.cpu_ns);
            size(b.amount).cmp(&size(a.amount)).then(key_a.cmp(key_b))
        });
        let mut header = vec!["pid".to_owned(), "command".to_owned(), "cgroup".to_owned()];
        header.extend(self.amount_header());
        let mut table = self.table(header, 3);
        let mut rest = totals.shares.get(&Share::Listed).copied().unwrap_or_default();
        for ((id, cgroup), total) in listed.iter().take(self.options.top) {
            let mut cells = vec![id.tgid.to_string(), printable(&total.comm), shortened(cgroup)];
            cells.extend(self.amount(total.amount));
            table.add_row(cells);
            rest.cpu_ns = rest.cpu_ns.saturating_sub(total.amount.cpu_ns);
            rest.energy_uj = rest.energy_uj.saturating_sub(total.amount.energy_uj);
        }
        let mut add = |name: &str, share: Share, amount: Amount| {
            let mut cells = vec![String::new(), name.to_owned(), String::new()];
            cells.extend(self.amount_of(share, amount));
            table.add_row(cells);
        };
        if rest != Amount::default() {
            add("(smaller ones)", Share::Listed, rest);
        }
        for (share, key) in FIXED {
            if let Some(amount) = totals.shares.get(&share) {
                add(&format!("({})", row_word(&key)), share, *amount);
            }
        }
        format!(
            "{}{}{}\n",
            self.title("Biggest consumers"),
            self.methods(),
            trimmed(&table)
        )
    }

    fn cgroups(&self) -> String {
        let totals = self.totals;
        let mut cgroups: Vec<_> = totals.cgroups.iter().collect();
        cgroups.sort_by(|(name_a, a), (name_b, b)| {
            (b.energy_uj, b.cpu_ns)
                .cmp(&(a.energy_uj, a.cpu_ns))
                .then(name_a.cmp(name_b))
        });
        let mut header = vec!["cgroup".to_owned()];
        header.extend(self.amount_header());
        let mut table = self.table(header, 1);
        let mut rest = totals.folded_cgroups.1;
        for (position, (cgroup, amount)) in cgroups.into_iter().enumerate() {
            if position < self.options.top {
                let mut cells = vec![printable(cgroup)];
                cells.extend(self.amount(*amount));
                table.add_row(cells);
            } else {
                rest.add(*amount);
            }
        }
        if rest != Amount::default() {
            let mut cells = vec!["(smaller ones)".to_owned()];
            cells.extend(self.amount(rest));
            table.add_row(cells);
        }
        format!(
            "{}{}{}\n",
            self.title("By cgroup, listed processes only"),
            self.methods(),
            trimmed(&table)
        )
    }

    /// Joules of each zone, and of the rows that share them.
    fn balance(&self) -> String {
        let shares: Vec<Share> = Share::ALL
            .into_iter()
            .filter(|share| self.totals.shares.contains_key(share))
            .collect();
        let mut header: Vec<String> = ["zone", "method", "J", "W"].map(str::to_owned).into();
        header.extend(shares.iter().map(|share| share_word(*share).to_owned()));
        header.push("diff. µJ".to_owned());
        let mut table = self.table(header, 2);
        for zone in &self.totals.zones {
            let mut cells = vec![
                zone.zone.clone(),
                methods_of(zone),
                decimal(zone.energy_uj, 6, 3),
                watts(zone.energy_uj, zone.known_ns),
            ];
            cells.extend(shares.iter().map(|share| match zone.shares_uj.get(share) {
                Some(uj) => decimal(*uj, 6, 3),
                None => String::new(),
            }));
            cells.push(if matches!(zone.kind, ZoneKind::Psys | ZoneKind::SingleCore) {
                String::new()
            } else {
                zone.difference_uj.to_string()
            });
            table.add_row(cells);
        }
        format!(
            "{}{}\n",
            self.title("Energy by zone, and who got it, in joules"),
            trimmed(&table)
        )
    }

    fn notes(&self) -> Vec<String> {
        let totals = self.totals;
        let mut notes = Vec::new();
        if totals.is_estimate() {
            notes.push(
                "energy is an estimate, made from the watts given with --estimate; nothing measured it".to_owned(),
            );
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
        notes.extend(totals.zones.iter().filter_map(|zone| self.zone_note(zone)));
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

    fn zone_note(&self, zone: &ZoneTotal) -> Option<String> {
        (zone.invalid > 0).then(|| {
            format!(
                "{} is not known in {} of {} intervals{}",
                zone.zone,
                zone.invalid,
                self.totals.intervals,
                zone.reason
                    .as_ref()
                    .map_or_else(String::new, |reason| format!(": {}", printable(reason)))
            )
        })
    }
}

fn methods_of(zone: &ZoneTotal) -> String {
    let words: Vec<&str> = zone.methods.iter().map(|method| method.as_str()).collect();
    words.join(", ")
}

/// The rows that are no processes, as the log calls them.
const FIXED: [(Share, RowKey); 5] = [
    (Share::Others, RowKey::Others),
    (Share::Kernel, RowKey::Kernel),
    (Share::SelfDlpm, RowKey::SelfDlpm),
    (Share::Idle, RowKey::Idle),
    (Share::Unattributed, RowKey::Unattributed),
];

fn share_word(share: Share) -> &'static str {
    FIXED
        .iter()
        .find(|(fixed, _)| *fixed == share)
        .map_or("listed", |(_, key)| match row_word(key) {
            "unattributed" => "unattr.",
            word => word,
        })
}

/// `value` in units of 10^-`digits`, rounded to `shown` decimals (half up); exact integers until here.
fn decimal(value: u128, digits: u32, shown: u32) -> String {
    let unit = 10u128.pow(digits - shown);
    let rounded = value / unit + u128::from(value % unit * 2 >= unit && unit > 1);
    let one = 10u128.pow(shown);
    let width = usize::try_from(shown).unwrap_or(0);
    format!("{}.{:0width$}", rounded / one, rounded % one)
}

/// Average power; µJ over ns are kilowatts.
fn watts(energy_uj: u128, duration_ns: u128) -> String {
    if duration_ns == 0 {
        return "-".to_owned();
    }
    format!("{:.3}", energy_uj as f64 / duration_ns as f64 * 1000.0)
}

fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 / whole as f64 * 100.0)
}

/// A process chooses its name; it must not be able to control the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '?' } else { character })
        .collect()
}

/// The end of a path says more than its beginning.
fn shortened(cgroup: &str) -> String {
    let cgroup = printable(cgroup);
    let length = cgroup.chars().count();
    if length <= CGROUP_WIDTH {
        return cgroup;
    }
    let end: String = cgroup.chars().skip(length + 1 - CGROUP_WIDTH).collect();
    format!("…{end}")
}

fn trimmed(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests;
