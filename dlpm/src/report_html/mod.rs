//! `dlpm report --html`: everything that a log tells, as one page that needs nothing else.
//!
//! A log is read twice: first for what there is ([`survey`]), then for the curves ([`figures`]). Both hold sums and a few
//! hundred bins, never the log. What the page shows of names, labels and descriptions comes from the log and is text,
//! never markup: [`page`] escapes it, and a policy in the page forbids every script and style but its own.

mod consumers;
mod facts;
mod figures;
mod page;
mod survey;
mod validation;

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    log::window::Window,
    plot::{output, scan},
    printable,
    sinks::writer::Identity,
};

pub use page::of_tables as tables;
pub use validation::render as validation;

/// Rows of a table at most, where nothing else is asked for.
pub const TOP: usize = 250;

/// How the page is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which intervals.
    pub window: Window,
    /// Processes, cgroups and phases that have a line of their own.
    pub top: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: Window::default(),
            top: TOP,
        }
    }
}

/// Writes the page of the log in `folder` to `file`, in the user's name if one is given.
///
/// # Errors
///
/// If the log cannot be read or holds nothing, or the file exists and `force` is not given, or cannot be written.
pub fn write(folder: &Path, options: &Options, file: &Path, force: bool, identity: Option<Identity>) -> Result<()> {
    // Before a long log is read.
    output::check(file, force, identity.clone())?;
    output::write(file, render(folder, options)?.as_bytes(), force, identity)
}

/// The page of the log in `folder`.
///
/// # Errors
///
/// If the log cannot be read or holds nothing.
pub fn render(folder: &Path, options: &Options) -> Result<String> {
    let survey = survey::Survey::of(folder, &options.window)?;
    let Some(span) = survey.scanned.wanted.filter(|span| span.end_ns > span.begin_ns) else {
        if survey.scanned.timeline.origin_unix_ns().is_none() {
            bail!("{} holds no interval yet; trace something first", folder.display());
        }
        bail!("{}", scan::nothing(&options.window, &survey.scanned.timeline));
    };
    let figures = figures::read(folder, &options.window, &survey, span)?;
    let facts = facts::Facts::of(folder, &survey, span)?;
    let page = page::render(&page::Page {
        facts: &facts,
        survey: &survey,
        figures: &figures,
        top: options.top,
    });
    Ok(printable::page(&page).into_owned())
}
