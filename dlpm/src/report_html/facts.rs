//! What stands at the head of the page: when, how long, on what, how much.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use super::survey::Survey;
use crate::{
    log::names::LOG_NAME,
    plot::timeline::Span,
    report::{
        metadata::{listed, metadata},
        notes::notes as of_report,
    },
    sources::timezone::local,
    tables::{
        answer,
        figures::{decimal, percent},
    },
};

/// Everything in words.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The description of the experiment, or the name of the folder.
    pub title: String,
    /// What the user's processes used.
    pub headline: String,
    /// How that is known.
    pub how: String,
    /// Name and value.
    pub list: Vec<(&'static str, String)>,
    /// What has to be known about the figures, a sentence each.
    pub notes: Vec<String>,
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
        if let Some(command) = metadata.pointer("/dlpm/command_line").and_then(Value::as_array) {
            let words: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
            list.push(("command", answer::command(&words)));
        }
        list.extend(text("/node_id").map(|node| ("machine", node)));
        list.extend(text("/dlpm/cpu_model").map(|model| ("CPU", model)));
        list.extend(text("/dlpm/version").map(|version| ("recorded by", format!("dlpm {version}"))));
        let totals = &survey.collected.totals;
        let listed = listed(&metadata, survey.collected.traces);
        let (headline, how) = match totals.intervals {
            0 => (String::new(), String::new()),
            _ => (
                answer::headline(totals, &answer::who(listed.as_deref(), totals)),
                answer::how(totals),
            ),
        };
        Ok(Self {
            title: text("/description").unwrap_or(name),
            list,
            notes: notes(survey, &metadata),
            headline,
            how,
        })
    }
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

fn notes(survey: &Survey, metadata: &Value) -> Vec<String> {
    let mut notes = of_report(&survey.collected);
    notes.extend(recorded_notes(metadata));
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
