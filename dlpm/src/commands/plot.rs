//! `dlpm plot`: curves of a log as a picture.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use super::caller;
use crate::{
    cli::PlotArgs,
    log::window::Window,
    plot::{chart, figure, output, png},
    printable,
    sinks::terminal::print,
};

/// Dots to a pixel: a page of paper shows about twice as many as a screen.
const PNG_SCALE: f32 = 2.0;

/// Runs the command; its errors are printed.
pub fn run(args: &PlotArgs) -> ExitCode {
    super::status(plot(args))
}

/// By the name of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

fn plot(args: &PlotArgs) -> Result<()> {
    super::local_timezone();
    if args.list {
        let list = figure::list(&args.folder)?;
        let mut text = list.join("\n");
        if list.is_empty() {
            bail!("{} holds no interval yet; trace something first", args.folder.display());
        }
        text.push('\n');
        return Ok(print(&text)?);
    }
    let path: &PathBuf = args.output.as_ref().context("name the file with -o")?;
    // Before a long log is read.
    let format = format_of(path)?;
    let identity = caller::identity()?;
    output::check(path, args.force, identity.clone())?;
    let request = figure::Request {
        metrics: args.metric.clone(),
        window: Window {
            from: args.from.clone(),
            to: args.to.clone(),
            phase: args.phase.clone(),
        },
        title: args.title.clone(),
        size: args.size,
    };
    let drawing = chart::draw(&figure::chart(&args.folder, &request)?)?;
    let contents = match format {
        Format::Svg => printable::page(&drawing.svg).into_owned().into_bytes(),
        Format::Png => png::from_svg(&drawing.svg, PNG_SCALE)?,
    };
    output::write(path, &contents, args.force, identity)
}

fn format_of(path: &Path) -> Result<Format> {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => bail!(
            "{}: the name of the file decides its format; end it with .svg or .png",
            path.display()
        ),
    }
}
