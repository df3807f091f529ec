//! What stands at the head of the page: when, how long, on what, how much.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

use super::survey::Survey;
use crate::{
    files,
    log::names::{LOG_NAME, METADATA_NAME},
    plot::timeline::Span,
    report::facts,
    sinks::summary::{Printer, SummaryOptions},
    sources::timezone::local,
    tables::figures::{decimal, peak_watts, percent, watts},
    totals::Totals,
};

/// Letters of a command line that are shown.
const COMMAND: usize = 90;

/// Everything in words.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The description of the experiment, or the name of the folder.
    pub title: String,
    /// Name and value.
    pub list: Vec<(&'static str, String)>,
    /// What has to be known about the figures, a sentence each.
    pub notes: Vec<String>,
    /// What stands above every table.
    pub policy: String,
}

impl Facts {
    /// The facts of a log.
    ///
    /// # Errors
    ///
    /// If `metadata.json` is there and cannot be read within the limits.
    pub fn of(folder: &Path, survey: &Survey, span: Span) -> Result<Self> {
        let metadata = metadata(folder)?;
        let text = |pointer: &str| {
            let value = metadata.pointer(pointer).and_then(Value::as_str);
            value.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name
            .filter(|name| name != LOG_NAME)
            .unwrap_or_else(|| "dlpm".to_owned());
        let mut list = times(survey, span);
        list.extend(energy(&survey.collected.totals));
        if let Some(command) = metadata.pointer("/dlpm/command_line").and_then(Value::as_array) {
            let words: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
            list.push(("command", shortened(&words)));
        }
        list.extend(text("/node_id").map(|node| ("machine", node)));
        list.extend(text("/dlpm/cpu_model").map(|model| ("CPU", model)));
        list.extend(text("/dlpm/version").map(|version| ("recorded by", format!("dlpm {version}"))));
        Ok(Self {
            title: text("/description").unwrap_or(name),
            list,
            notes: notes(survey, &metadata),
            policy: policy(&survey.collected.totals),
        })
    }
}

/// A command line, as far as it says what was done: a script can be long, and a path of the program says nothing.
fn shortened(command: &[&str]) -> String {
    let words = command.iter().enumerate().flat_map(|(index, word)| {
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

/// What the folder tells of itself; a log is readable without.
fn metadata(folder: &Path) -> Result<Value> {
    let path = folder.join(METADATA_NAME);
    let text = files::small(&path).with_context(|| format!("{} cannot be read; move it away", path.display()))?;
    let value = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(value.unwrap_or(Value::Null))
}

fn times(survey: &Survey, span: Span) -> Vec<(&'static str, String)> {
    let origin_unix_ns = survey.scanned.timeline.origin_unix_ns().unwrap_or(0);
    let at = |at_ns: u64| {
        let unix_ns = i128::from(origin_unix_ns) + i128::from(at_ns);
        let time = Timestamp::from_nanosecond(unix_ns).unwrap_or_default();
        let zoned = time.to_zoned(local().timezone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
    };
    let length_ns = u128::from(span.end_ns - span.begin_ns);
    let mut list = vec![
        ("from", at(span.begin_ns)),
        ("to", at(span.end_ns)),
        ("duration", format!("{} s", decimal(length_ns, 9, 3))),
    ];
    let totals = &survey.collected.totals;
    if totals.intervals > 0 {
        list.push((
            "measured",
            format!(
                "{} s in {} intervals on {} CPUs",
                decimal(totals.duration_ns, 9, 3),
                totals.intervals,
                totals.cpu.cpus
            ),
        ));
        let used = format!(
            "{} s, {} of all",
            decimal(totals.used_ns(), 9, 3),
            percent(totals.used_ns(), totals.cpu.interval_ns)
        );
        list.push(("CPU time used", used));
    } else {
        list.push(("samples", survey.collected.foreign.samples.to_string()));
    }
    list
}

fn energy(totals: &Totals) -> Vec<(&'static str, String)> {
    if !totals.has_energy() {
        return Vec::new();
    }
    let Some(energy_uj) = totals.energy() else {
        return vec![("energy", "unknown: no interval has an energy that is known".to_owned())];
    };
    let estimate = if totals.is_estimate() { " (estimate)" } else { "" };
    vec![
        (
            "energy",
            format!(
                "{} J = {:.6} kWh{estimate}",
                decimal(energy_uj, 6, 3),
                facts::kwh(energy_uj)
            ),
        ),
        (
            "power",
            format!(
                "{} W on average, {} W in the highest interval{estimate}",
                watts(energy_uj, totals.known_ns),
                peak_watts(&totals.peak)
            ),
        ),
    ]
}

/// Every table says what became of the energy of idle time.
fn policy(totals: &Totals) -> String {
    let options = SummaryOptions::default();
    let printer = Printer {
        totals,
        options: &options,
    };
    let policy = format!(
        "Idle policy {}{}; {} of CPU time was idle.",
        totals.idle_policy.as_str(),
        if totals.mixed_policies {
            " (an earlier trace in this log had another one)"
        } else {
            ""
        },
        percent(totals.cpu.idle_ns, totals.cpu.interval_ns),
    );
    let methods = printer.methods();
    match methods.trim() {
        "" => policy,
        methods => format!(
            "{policy} Joules by method {}.",
            methods.trim_start_matches("joules by method ")
        ),
    }
}

fn notes(survey: &Survey, metadata: &Value) -> Vec<String> {
    let options = SummaryOptions {
        notes: recorded_notes(metadata),
        ..SummaryOptions::default()
    };
    let mut notes = facts::notes(&survey.collected, &options);
    let (gaps, gaps_ns) = survey.scanned.timeline.gaps();
    if gaps > 0 {
        notes.push(format!(
            "nothing is known of {} s in {gaps} gaps between intervals; the curves stop there",
            decimal(gaps_ns.into(), 9, 3)
        ));
    }
    let (_, more) = survey.scanned.timeline.phases();
    if more > 0 {
        notes.push(format!("{more} more phases are not drawn"));
    }
    notes
}

/// What the trace itself noted, such as sources that are missing.
fn recorded_notes(metadata: &Value) -> Vec<String> {
    let notes = metadata.pointer("/dlpm/notes").and_then(Value::as_array);
    notes
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
