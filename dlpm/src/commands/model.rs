//! `dlpm model`: size and work of a model, from its file.

mod language;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use dlpm_model::{FILE_NAME, MAC_DEFINITION, Options, Summary, Tally};

use super::caller::Caller;
use crate::{
    cli::{ModelArgs, ModelFormat, TracedModel},
    printable,
    sinks::{beside, terminal::print},
};

/// Runs the command; its errors are printed.
pub fn run(args: &ModelArgs) -> ExitCode {
    super::status(show(args))
}

fn show(args: &ModelArgs) -> Result<()> {
    let caller = Caller::of_sudo()?;
    let summary = read(&args.file, &args.options(), caller.as_ref())?;
    if let Some(folder) = &args.output {
        write(&summary, folder, caller.as_ref())?;
    }
    let text = match args.format {
        ModelFormat::Json => contents(&summary),
        ModelFormat::Table => table(&summary),
    };
    Ok(print(&text)?)
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

fn table(summary: &Summary) -> String {
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
    totals.add_row(["parameters", &number(counts.total_params)]);
    totals.add_row([
        "of them trained",
        &counts
            .trainable_params
            .map_or_else(|| "the format does not tell".to_owned(), number),
    ]);
    let mult_adds = match summary.mult_adds() {
        Some(mult_adds) if summary.is_lower_bound() => format!("at least {}", number(mult_adds)),
        Some(mult_adds) => number(mult_adds),
        None => "the format does not hold the computation".to_owned(),
    };
    totals.add_row(["multiply-adds", &mult_adds]);
    unpad(&mut totals);
    text += &format!("\n{}\n", totals.trim_fmt());
    if let Some(tally) = &counts.tally {
        text += &operators(tally);
    }
    text += &language::weights(&summary.details);
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

fn operators(tally: &Tally) -> String {
    let mut text = String::new();
    if !tally.per_op.is_empty() {
        let mut table = new_table(&["operator", "runs", "multiply-adds"], 1);
        let mut ops: Vec<_> = tally.per_op.iter().collect();
        ops.sort_by_key(|(_, count)| std::cmp::Reverse(count.mult_adds));
        for (op, count) in ops {
            table.add_row([op.clone(), count.runs.to_string(), count.mult_adds.to_string()]);
        }
        text += &format!("\n{}\n", table.trim_fmt());
    }
    if !tally.layers.is_empty() {
        let mut table = new_table(&["layer", "operator", "output", "runs", "multiply-adds"], 3);
        for layer in &tally.layers {
            table.add_row([
                layer.name.clone(),
                layer.op.clone(),
                shape(&layer.output),
                layer.runs.to_string(),
                layer.mult_adds.to_string(),
            ]);
        }
        text += &format!("\n{}\n", table.trim_fmt());
    }
    if !tally.unsupported.is_empty() {
        text += "\nNot counted, so that the total is a lower bound\n";
        let mut table = new_table(&["operator", "runs", "why"], 3);
        for ((op, why), runs) in &tally.unsupported {
            table.add_row([op.clone(), runs.to_string(), why.clone()]);
        }
        text += &format!("{}\n", table.trim_fmt());
    }
    text
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
