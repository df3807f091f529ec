//! The answer: what the user's processes used, in one line, and how that is known, in another.

use super::{
    Unit,
    figures::{decimal, percent, watts},
    highest,
};
use crate::{
    printable::printable,
    totals::{Share, Totals},
};

/// Letters of a command line that are shown.
const COMMAND: usize = 60;

/// Whose energy it is: what was asked for, in words.
pub fn who(listed: Option<&str>, totals: &Totals) -> String {
    match listed {
        Some(listed) => printable(listed),
        // The row of the others exists under a filter only.
        None if totals.shares.contains_key(&Share::Others) => "The listed processes".to_owned(),
        None => "All processes".to_owned(),
    }
}

/// A command line, as far as it says what was done: a script can be long, and a path of the program says nothing.
pub fn command(words: &[impl AsRef<str>]) -> String {
    let words = words.iter().enumerate().flat_map(|(index, word)| {
        let word = word.as_ref();
        match index {
            0 => word.rsplit('/').next().unwrap_or(word),
            _ => word,
        }
        .split_whitespace()
    });
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= COMMAND {
        return line;
    }
    line.chars().take(COMMAND - 1).chain(['…']).collect()
}

/// Joules of the listed processes, their power, and their part of what the node used.
pub fn headline(totals: &Totals, who: &str) -> String {
    let listed = totals.listed();
    let seconds = decimal(totals.duration_ns, 9, 3);
    let cpu = decimal(listed.amount.cpu_ns, 9, 3);
    if !totals.has_energy() {
        let share = percent(listed.amount.cpu_ns, totals.used_ns());
        return format!(
            "{who} used {cpu} s of CPU time, {share} of what the node used, in {seconds} s; no energy: there was no meter \
             to split"
        );
    }
    let estimated = if totals.is_estimate() { "an estimated " } else { "" };
    let Some((energy_uj, all_uj)) = listed.amount.energy().zip(totals.energy()) else {
        return format!(
            "{who} used an unknown number of J, since no interval has an energy that is known, and {cpu} s of CPU time \
             in {seconds} s"
        );
    };
    let peak = listed.peak.interval();
    let peak = peak.map(|_| format!(", {} W at peak", highest(listed.peak).shown(Unit::Watts)));
    format!(
        "{who} used {estimated}{} J: {} W on average{}, {} of the {} J that the node used, in {seconds} s",
        decimal(energy_uj, 6, 3),
        watts(energy_uj, totals.known_ns),
        peak.unwrap_or_default(),
        percent(energy_uj, all_uj),
        decimal(all_uj, 6, 3),
    )
}

/// How the joules were made, and what becomes of idle energy: once, for all tables.
pub fn how(totals: &Totals) -> String {
    let methods = totals.methods();
    let made = match (totals.is_estimate(), methods.len()) {
        _ if methods.is_empty() => String::new(),
        (false, _) => format!("Measured, by method {}; ", methods.join(", ")),
        (true, 1) => "Estimated from the watts of --estimate; ".to_owned(),
        (true, _) => format!("Estimated in part, by method {}; ", methods.join(", ")),
    };
    let mixed = match totals.mixed_policies {
        true => " (an earlier trace in this log had another one)",
        false => "",
    };
    format!(
        "{made}idle policy {}{mixed}, {} of CPU time was idle",
        totals.idle_policy.as_str(),
        percent(totals.cpu.idle_ns, totals.cpu.interval_ns),
    )
}
