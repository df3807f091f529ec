//! `dlpm verify`: proves a log from its own numbers.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use crate::{
    cli::VerifyArgs,
    files::is_locked,
    log::{chain::Lines, names::log_of},
    printable::printable,
    sinks::terminal::{print, say},
    validate::{self, file::Validation, proof::prove},
    verify::{Report, files, finished::Compared, verify_lines},
};

/// Nothing could be verified, or the result not be shown.
const NO_LOG: u8 = 2;

/// Runs the command; its errors are printed.
pub fn run(args: &VerifyArgs) -> ExitCode {
    if let Some(file) = validate::file::of_path(&args.folder) {
        return validation(&file, args);
    }
    let path = log_of(&args.folder);
    let keep = usize::try_from(args.max_failures).unwrap_or(usize::MAX);
    let report = Lines::open(&args.folder).and_then(|mut lines| {
        verify_lines(&mut lines, keep, is_locked(&path)).map_err(|error| (lines.path().to_owned(), error))
    });
    match report {
        Ok(report) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            let files = files::check(folder);
            let mut text = text(&path, &report);
            for failure in &files {
                let _ = writeln!(text, "{}", printable(&folder.join(failure).display().to_string()));
            }
            let agrees = report.rollups.0 == 0 || finished(folder, &report, &mut text);
            if let Err(error) = print(&text) {
                say(&error.to_string());
                return ExitCode::from(NO_LOG);
            }
            ExitCode::from(u8::from(
                report.failed_lines > 0 || !files.is_empty() || report.proves_nothing() || !agrees,
            ))
        }
        Err((path, error)) => {
            say(&format!(
                "{} cannot be read: {error}; give the folder that `dlpm trace --output` wrote",
                path.display()
            ));
            ExitCode::from(NO_LOG)
        }
    }
}

/// Proves a validation.
fn validation(path: &Path, args: &VerifyArgs) -> ExitCode {
    let validation = match Validation::read(path) {
        Ok(validation) => validation,
        Err(error) => {
            say(&format!(
                "{} cannot be read: {error}; give the folder that `dlpm validate --output` wrote",
                path.display()
            ));
            return ExitCode::from(NO_LOG);
        }
    };
    let proof = prove(&validation);
    let (mut text, count_of) = (String::new(), proof.failures.len());
    let most = usize::try_from(args.max_failures).unwrap_or(usize::MAX);
    for failure in proof.failures.iter().take(most) {
        let _ = writeln!(text, "{}:{}", path.display(), printable(&failure.to_string()));
    }
    if count_of > most {
        let _ = writeln!(
            text,
            "{} more failures; --max-failures shows more of them",
            count_of - most
        );
    }
    let found = if count_of > 0 {
        format!("{} FAIL", count(count_of as u64, "statement"))
    } else if proof.verdict.holds() {
        "time and energy close in all of them, and they give the verdict".to_owned()
    } else {
        "time and energy close in all of them, and they give the refusal".to_owned()
    };
    let cells = count(validation.cells.len() as u64, "cell");
    let _ = writeln!(text, "{}: {cells}: {found}", path.display());
    if let Err(error) = print(&text) {
        say(&error.to_string());
        return ExitCode::from(NO_LOG);
    }
    ExitCode::from(u8::from(count_of > 0))
}

/// Compares a history with the tenants that have ended; whether they agree.
fn finished(folder: &Path, report: &Report, text: &mut String) -> bool {
    let compared = match report.runs.compare(folder) {
        Ok(compared) => compared,
        Err(error) => {
            let _ = writeln!(
                text,
                "finished.jsonl beside {} cannot be read: {error}",
                folder.display()
            );
            return false;
        }
    };
    for failure in &compared.failures {
        let _ = writeln!(text, "{}", printable(failure));
    }
    if compared != Compared::default() {
        let _ = writeln!(
            text,
            "finished.jsonl: {} had exactly what the history says, {} went on after their lines, {} not all in the history",
            count(compared.equal, "tenant"),
            compared.went_on,
            count(compared.not_covered, "life").replace("lifes", "lives")
        );
    }
    compared.failures.is_empty()
}

fn text(path: &Path, report: &Report) -> String {
    let mut text = String::new();
    for failure in &report.failures {
        for what in &failure.what {
            let _ = writeln!(text, "{}:{}: {}", failure.path.display(), failure.line, printable(what));
        }
        if failure.more > 0 {
            let _ = writeln!(
                text,
                "{}:{}: {} more",
                failure.path.display(),
                failure.line,
                failure.more
            );
        }
    }
    let unseen = report.failed_lines - report.failures.len() as u64;
    if unseen > 0 {
        let _ = writeln!(text, "{unseen} more lines fail; --max-failures shows more of them");
    }
    let found = if report.failed_lines > 0 {
        format!("{} FAIL", count(report.failed_lines, "line"))
    } else if report.proves_nothing() {
        "there is nothing to prove, since it has no interval".to_owned()
    } else {
        "time and energy close in all of them".to_owned()
    };
    let found = match report.is_written {
        true => format!("{found}; it is still being written, so that what follows is not in this proof"),
        false => found,
    };
    let _ = writeln!(
        text,
        "{}: {}, {}, {}: {found}",
        path.display(),
        count(report.lines, "line"),
        count(report.intervals, "interval"),
        count(report.segments, "segment")
    );
    if report.rollups.0 > 0 {
        let _ = writeln!(
            text,
            "{}: {} of {}: that sums close was proved, and how each interval was split cannot be, from sums",
            path.display(),
            count(report.rollups.0, "roll-up"),
            count(report.rollups.1, "interval")
        );
    }
    text
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
