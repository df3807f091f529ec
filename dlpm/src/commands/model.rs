//! `dlpm model`: size and work of a model, from its file.

mod language;
mod modules;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use dlpm_model::{FILE_NAME, MAC_DEFINITION, Missed, Options, Summary, Tally};

use super::caller::Caller;
use crate::{
    cli::{ModelArgs, ModelFormat, TracedModel},
    printable,
    sinks::{beside, terminal::print},
};

/// Runs the command; its errors are printed.
pub fn run(args: &ModelArgs) -> ExitCode {
    match show(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(LOWER_BOUND),
        Err(error) => super::status::<()>(Err(error)),
    }
}

/// Exit status where there is more than was counted.
const LOWER_BOUND: u8 = 3;

/// Whether everything was counted.
fn show(args: &ModelArgs) -> Result<bool> {
    let caller = Caller::of_sudo()?;
    let summary = read(&args.file, &args.options(), caller.as_ref())?;
    if let Some(folder) = &args.output {
        write(&summary, folder, caller.as_ref())?;
    }
    let text = match args.format {
        ModelFormat::Json => contents(&summary),
        ModelFormat::Table => table(&summary, args),
    };
    print(&text)?;
    Ok(!summary.is_lower_bound())
}

/// Reads the model of a trace, if one was named.
pub fn of_trace(args: &TracedModel) -> Result<Option<Summary>> {
    let Some(file) = &args.file else { return Ok(None) };
    let caller = Caller::of_sudo()?;
    read(file, &args.options(), caller.as_ref()).map(Some)
}

/// Reads a model as the user who called sudo may; an error names its file.
fn read(file: &Path, options: &Options, caller: Option<&Caller>) -> Result<Summary> {
    beside::as_user(caller.map(Caller::identity), || dlpm_model::read(file, options))
        .context("the model cannot be read as the calling user")?
        .with_context(|| file.display().to_string())
}

/// Writes `model_summary.json`, in the name of the user who called sudo.
pub fn write(summary: &Summary, folder: &Path, caller: Option<&Caller>) -> Result<()> {
    beside::write(folder, FILE_NAME, &contents(summary), caller.map(Caller::identity))
        .with_context(|| format!("{FILE_NAME} cannot be written; choose another folder with --output"))
}

/// The contents of the file.
fn contents(summary: &Summary) -> String {
    format!("{}\n", printable::json(&format!("{:#}", summary.to_json())))
}

fn table(summary: &Summary, args: &ModelArgs) -> String {
    let counts = &summary.counts;
    let mut text = format!(
        "{} ({}, {} bytes)\nSHA-256 {}\n",
        summary.source,
        counts.format,
        summary.file_bytes,
        summary
            .sha256
            .as_deref()
            .unwrap_or("not computed: only headers were read")
    );
    if !counts.inputs.is_empty() {
        let mut inputs = new_table(&["input", "type", "dimensions"], 3);
        for input in &counts.inputs {
            let dims = input.dims.as_deref().map_or_else(|| "not known".to_owned(), shape);
            inputs.add_row([
                &input.name,
                input.data_type.as_deref().unwrap_or("not a tensor"),
                dims.as_str(),
            ]);
        }
        text += &format!("\n{}\n", inputs.trim_fmt());
    }
    let mut totals = Table::new();
    totals.load_preset(presets::NOTHING).force_no_tty();
    let params = match summary.params() {
        Some(params) if summary.misses_parameters() => format!("at least {}", number(params)),
        Some(params) => number(params),
        None => "not known: see what is not counted".to_owned(),
    };
    totals.add_row(["parameters", &params]);
    totals.add_row([
        "of them trained",
        &counts
            .trainable_params
            .map_or_else(|| "the format does not say".to_owned(), number),
    ]);
    let mult_adds = match summary.mult_adds() {
        Some(mult_adds) if summary.misses_operations() => format!("at least {}", number(mult_adds)),
        Some(mult_adds) => number(mult_adds),
        None if summary.misses_operations() => "not known: see what is not counted".to_owned(),
        None => "the format does not hold the computation".to_owned(),
    };
    totals.add_row(["multiply-adds", &mult_adds]);
    unpad(&mut totals);
    text += &format!("\n{}\n", totals.trim_fmt());
    text += &derived(summary);
    if let Some(tally) = &counts.tally {
        text += &operators(tally, args.top);
    }
    if args.modules {
        text += &modules::tree(summary, args.top);
    }
    text += &language::weights(&summary.details);
    text += &left_out(summary);
    if let Some(view) = &summary.details.language {
        text += &language::view(view);
    }
    let mut notes = counts.notes.clone();
    if counts.tally.is_some() {
        notes.insert(0, format!("counted: {MAC_DEFINITION}"));
    }
    if !notes.is_empty() {
        text += "\nNotes\n";
        for note in notes {
            text += &format!("  * {note}\n");
        }
    }
    text
}

/// What follows from the operations.
fn derived(summary: &Summary) -> String {
    let Some(mult_adds) = summary.mult_adds().filter(|mult_adds| *mult_adds > 0) else {
        return String::new();
    };
    let bound = if summary.misses_operations() { "at least " } else { "" };
    let times = |factor: u64| match mult_adds.checked_mul(factor) {
        Some(product) => format!("{bound}{}", number(product)),
        None => "more than 64 bits".to_owned(),
    };
    format!(
        "FLOPs: {}, twice the multiply-adds. Forward and backward: {} multiply-adds, an estimate: three times forward.\n",
        times(2),
        times(3)
    )
}

/// Tensors that are not parameters, and files next to the model.
fn left_out(summary: &Summary) -> String {
    let mut text = String::new();
    let weights = &summary.counts.weights;
    if !weights.left_out.is_empty() {
        text += "\nNot counted as parameters\n";
        let mut table = new_table(&["tensors", "elements", "what they are"], 0);
        for (why, sum) in &weights.left_out {
            table.add_row([sum.tensors.to_string(), sum.elements.to_string(), why.text().to_owned()]);
        }
        text += &format!("{}\n", table.trim_fmt());
    }
    if !summary.counts.external.is_empty() {
        let mut table = new_table(&["file beside the model", "bytes", "bytes that the model needs"], 1);
        for file in &summary.counts.external {
            let bytes =
                |bytes: Option<u64>, none: &str| bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
            table.add_row([
                file.name.clone(),
                bytes(file.file_bytes, "missing"),
                bytes(file.needed_bytes, "not said"),
            ]);
        }
        text += &format!("\n{}\n", table.trim_fmt());
    }
    text
}

/// The first `top` of what is sorted by operations, and how many are left out.
fn first<T>(mut items: Vec<T>, top: Option<u32>, mult_adds: impl Fn(&T) -> u64) -> (Vec<T>, usize) {
    let Some(top) = top.and_then(|top| usize::try_from(top).ok()) else {
        return (items, 0);
    };
    items.sort_by_key(|item| std::cmp::Reverse(mult_adds(item)));
    let more = items.len().saturating_sub(top);
    items.truncate(top);
    (items, more)
}

/// How many rows `--top` leaves out.
fn and_more(more: usize) -> String {
    if more > 0 {
        format!("and {more} more\n")
    } else {
        String::new()
    }
}

fn operators(tally: &Tally, top: Option<u32>) -> String {
    let mut text = String::new();
    if !tally.per_op.is_empty() {
        let mut table = new_table(&["operator", "runs", "multiply-adds"], 1);
        let mut ops: Vec<_> = tally.per_op.iter().collect();
        ops.sort_by_key(|(_, count)| std::cmp::Reverse(count.mult_adds));
        let (ops, more) = first(ops, top, |(_, count)| count.mult_adds);
        for (op, count) in ops {
            table.add_row([op.clone(), count.runs.to_string(), count.mult_adds.to_string()]);
        }
        text += &format!("\n{}\n{}", table.trim_fmt(), and_more(more));
    }
    if !tally.layers.is_empty() {
        let mut table = new_table(
            &["layer", "operator", "input", "output", "runs", "multiply-adds", "share"],
            4,
        );
        let (layers, more) = first(tally.layers.iter().collect(), top, |layer| layer.mult_adds);
        for layer in layers {
            table.add_row([
                layer.name.clone(),
                layer.op.clone(),
                layer.input.as_deref().map_or_else(|| "not known".to_owned(), shape),
                shape(&layer.output),
                layer.runs.to_string(),
                layer.mult_adds.to_string(),
                share(layer.mult_adds, tally.mult_adds),
            ]);
        }
        text += &format!("\n{}\n{}", table.trim_fmt(), and_more(more));
    }
    if !tally.unsupported.is_empty() {
        text += "\nNot counted, so that the total is a lower bound\n";
        let mut table = new_table(&["operator", "runs", "why"], 3);
        for ((op, why), missed) in &tally.unsupported {
            table.add_row([op.clone(), missed.runs.to_string(), reason(why, missed)]);
        }
        text += &format!("{}\n", table.trim_fmt());
    }
    text
}

/// Operators after one that is not counted that are named at most.
const NAMED_AFTER: usize = 5;

/// Why something was not counted, where it first happened, and what else is not counted because of it.
fn reason(why: &str, missed: &Missed) -> String {
    let mut text = why.to_owned();
    if !missed.first.is_empty() {
        text += &format!(" (first: `{}`)", missed.first);
    }
    if !missed.after.is_empty() {
        let named = missed.after.iter().take(NAMED_AFTER);
        let named: Vec<String> = named.map(|(op, runs)| format!("{op} {runs} x")).collect();
        let more = if missed.after.len() > NAMED_AFTER { ", …" } else { "" };
        text += &format!(
            "; sizes after it are not known, and these are not counted: {}{more}",
            named.join(", ")
        );
    }
    text
}

/// A part of a sum, in percent.
fn share(part: u64, all: u64) -> String {
    match (u128::from(part) * 10_000 + u128::from(all) / 2).checked_div(u128::from(all)) {
        Some(hundredths) => format!("{}.{:02} %", hundredths / 100, hundredths % 100),
        None => "-".to_owned(),
    }
}

/// A table whose columns after the first `left` are numbers.
fn new_table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).force_no_tty();
    table.set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    unpad(&mut table);
    table
}

/// Two blanks between columns. Columns are made by the first row.
fn unpad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

fn shape(dims: &[u64]) -> String {
    if dims.is_empty() {
        return "scalar".to_owned();
    }
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    dims.join("×")
}

/// `4089184256 (4.089 G)`
fn number(value: u64) -> String {
    let units = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    match units.iter().find(|(unit, _)| value >= *unit) {
        Some((unit, letter)) => {
            let thousandths = (u128::from(value) * 1_000 + u128::from(*unit / 2)) / u128::from(*unit);
            format!("{value} ({}.{:03} {letter})", thousandths / 1_000, thousandths % 1_000)
        }
        None => value.to_string(),
    }
}
