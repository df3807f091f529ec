//! `dlpm report` of a validation: the same tables again, made from the cells.

use std::path::Path;

use anyhow::{Result, bail};

use super::WIDTH;
use crate::{
    cli::{Format, ReportArgs},
    commands::caller,
    plot::output,
    printable, report_html,
    sinks::terminal::{self, say},
    tables::record,
    validate::{file::Validation, proof::prove, show},
};

/// What there is to print of the validation in `file`.
///
/// # Errors
///
/// Where it cannot be read, or something was asked for that only a log has.
pub fn report(args: &ReportArgs, file: &Path) -> Result<String> {
    check(args)?;
    if let Some(page) = &args.html {
        output::check(page, args.force, caller::identity()?)?;
    }
    let validation = Validation::read(file).map_err(|error| {
        anyhow::anyhow!(
            "{} cannot be read: {error}; give the folder that `dlpm validate` wrote",
            file.display()
        )
    })?;
    let proof = prove(&validation);
    if let Some(failure) = proof.failures.first() {
        say(&format!(
            "warning: {} does not hold (line {}): `dlpm verify` says more, and the figures below are those of the cells that \
             could be read",
            file.display(),
            printable::printable(&failure.to_string())
        ));
    }
    let (header, verdict) = (&validation.header, &proof.verdict);
    if let Some(page) = &args.html {
        let text = report_html::validation(header, verdict);
        output::write(page, text.as_bytes(), args.force, caller::identity()?)?;
        return Ok(String::new());
    }
    match args.format {
        Format::Table => {
            let width = terminal::columns().map_or(WIDTH, |columns| columns.max(80));
            Ok(show::text(header, verdict, width))
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&show::record(&validation, verdict))?;
            Ok(format!("{}\n", printable::json(&text)))
        }
        Format::Csv => record::csv(&show::pairs(verdict).records()),
    }
}

/// What only a log has.
fn check(args: &ReportArgs) -> Result<()> {
    let of_log = [
        ("--by", args.by.is_some()),
        ("--top", args.top.is_some()),
        ("--from", args.from.is_some()),
        ("--to", args.to.is_some()),
    ];
    if let Some((option, _)) = of_log
        .into_iter()
        .chain(args.of_one_log())
        .find(|(_, is_given)| *is_given)
    {
        bail!("{option} is for a log, and this is a validation: leave it out, or give the folder of a trace");
    }
    Ok(())
}
