//! `dlpm convert`: a copy of a log for other versions of AIPowerMeter's reader.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use dlpm_model::FILE_NAME;

use super::caller;
use crate::{
    aipowermeter::conversion::{Conversion, Converted},
    causes::told,
    cli::ConvertArgs,
    files,
    log::{
        chain::Lines,
        names::{LOG_NAME, METADATA_NAME, RESULTS_NAME},
        torn::looks_torn,
    },
    sinks::{
        beside,
        folder::{FolderMode, OutputFolder},
        terminal::say,
    },
};

/// Files that are copied as they are.
const COPIED: [&str; 3] = [METADATA_NAME, FILE_NAME, RESULTS_NAME];

/// Runs the command; its errors are printed.
pub fn run(args: &ConvertArgs) -> ExitCode {
    match convert(args) {
        Ok(notes) => {
            for note in notes {
                say(&note);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn convert(args: &ConvertArgs) -> Result<Vec<String>> {
    let conversion = Conversion {
        naive_dates: args.naive_dates,
        no_aliases: args.no_aliases,
        no_marker: args.no_marker,
        strip_exact: args.strip_exact,
    };
    let log = args.folder.join(LOG_NAME);
    let (log, input) = match Lines::open(&log) {
        Ok(input) => (log, input),
        Err((path, error)) => {
            return Err(error).with_context(|| {
                format!(
                    "{} cannot be read; give the folder that `dlpm trace --output` wrote",
                    path.display()
                )
            });
        }
    };
    if conversion.is_nothing() && !args.split && !input.is_rotated() {
        bail!(
            "there is nothing to change: choose one or more of --naive-dates, --no-aliases, --no-marker, --strip-exact or --split"
        );
    }
    if fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} exists and is not empty; choose another folder with --output",
            args.output.display()
        );
    }
    let mut files = Vec::new();
    for name in COPIED {
        let path = args.folder.join(name);
        let contents = files::small(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        files.extend(contents.map(|contents| (name, contents)));
    }
    let identity = caller::identity()?;
    let output = &args.output;
    let written = beside::as_user(identity, || {
        let mut copy = Copy {
            log: &log,
            output,
            conversion,
            split: args.split,
            files: &files,
            made: Vec::new(),
            open: None,
            notes: Vec::new(),
        };
        let result = copy.run(input);
        if result.is_err() {
            copy.undo();
        }
        result.map(|()| copy.notes)
    });
    written.with_context(|| format!("cannot act as the calling user to write {}", output.display()))?
}

struct Copy<'a> {
    log: &'a Path,
    output: &'a Path,
    conversion: Conversion,
    split: bool,
    files: &'a [(&'static str, Vec<u8>)],
    /// Folders that were written to.
    made: Vec<PathBuf>,
    open: Option<OutputFolder>,
    notes: Vec<String>,
}

impl Copy<'_> {
    fn run(&mut self, mut input: Lines) -> Result<()> {
        let mut line = Vec::new();
        let mut segments_ended = 0u64;
        loop {
            let read = input.next(&mut line);
            let read = read.with_context(|| input.path().display().to_string())?;
            let converted = match read {
                None => break,
                Some(Err(beyond)) => Err(beyond.to_string()),
                Some(Ok(())) => str::from_utf8(&line)
                    .map_err(|error| format!("it is not JSON: {error}"))
                    .and_then(|text| self.conversion.line(text)),
            };
            let converted = match converted {
                Ok(converted) => converted,
                Err(_) if looks_torn(&line) && input.is_at_end()? => {
                    self.notes.push(format!(
                        "the last line of {} is not whole and was left out",
                        self.log.display()
                    ));
                    break;
                }
                Err(why) => bail!(
                    "{}:{}: {why}; `dlpm verify` shows all that is wrong with a log",
                    input.path().display(),
                    input.number()
                ),
            };
            match converted {
                Converted::Sample(text) => {
                    if segments_ended > 0 && self.conversion.no_marker && !self.split {
                        bail!(
                            "{} has several segments, and without their ends the reader would integrate over what is \
                             between them: add --split for one folder each",
                            self.log.display()
                        );
                    }
                    self.write(segments_ended, &text)?;
                }
                Converted::Other(text) => self.write(segments_ended, &text)?,
                Converted::SegmentEnd(text) => {
                    if let Some(text) = text {
                        self.write(segments_ended, &text)?;
                    }
                    segments_ended += 1;
                    if self.split {
                        self.open = None;
                    }
                }
                Converted::Dropped => {}
            }
        }
        if self.made.is_empty() {
            bail!("{} holds no samples", self.log.display());
        }
        Ok(())
    }

    fn write(&mut self, segments_ended: u64, text: &str) -> Result<()> {
        let folder = match &mut self.open {
            Some(folder) => folder,
            None => {
                let path = if self.split {
                    self.output.join(format!("segment-{}", segments_ended + 1))
                } else {
                    self.output.to_owned()
                };
                let folder = OutputFolder::create(&path, FolderMode::New)?;
                self.made.push(path);
                for (name, contents) in self.files {
                    folder
                        .replace(name, contents)
                        .with_context(|| format!("cannot write {name} in {}", folder.path().display()))?;
                }
                self.open.insert(folder)
            }
        };
        folder
            .write_line(text)
            .map_err(|error| anyhow!("cannot write the log in {}: {error}", folder.path().display()))
    }

    /// Removes what was written: half a log is none.
    fn undo(&mut self) {
        self.open = None;
        for folder in &self.made {
            for name in COPIED.into_iter().chain([LOG_NAME]) {
                let _ = fs::remove_file(folder.join(name));
            }
            let _ = fs::remove_dir(folder);
        }
    }
}
