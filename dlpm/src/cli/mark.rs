//! `dlpm mark`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::phases::{Request, Verb};

const MARK_HELP: &str = "\
Which trace:
  The trace that writes into --dir DIR; else the one that the variable DLPM_SOCKET names, which a traced command has;
  else the one that writes into the current directory or a directory in it.

Examples:
  dlpm mark epoch-1; …; dlpm mark epoch-2; …; dlpm mark end epoch-2
  dlpm mark begin train --dir run1; …; dlpm mark end train --dir run1
  dlpm trace -o run1 -- sh -c 'dlpm mark load; ./load; dlpm mark train; ./train'

Exit status: 0 if the border was made, 1 if it was not, 2 for an invalid command line. docs/phases.md describes marks
from Python, and how exact a border is.";

/// `dlpm mark`
#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    override_usage = "dlpm mark [OPTIONS] LABEL\n       dlpm mark [OPTIONS] begin LABEL\n       dlpm mark [OPTIONS] end LABEL",
    after_help = MARK_HELP
)]
pub struct MarkArgs {
    /// Name of the phase that begins, at most 128 bytes. The phase that the last `dlpm mark LABEL` began ends at the same
    /// moment.
    #[arg(value_name = "LABEL", value_parser = label, required = true)]
    pub label: Option<String>,
    /// One edge of a phase; phases can nest and overlap.
    #[command(subcommand)]
    pub edge: Option<Edge>,
    /// Output folder of the trace.
    #[arg(long, value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
    /// Do nothing, and succeed, if no trace is running: for scripts that are not always traced.
    #[arg(long, global = true)]
    pub if_running: bool,
}

/// One edge of a phase.
#[derive(Debug, Subcommand)]
pub enum Edge {
    /// Begin a phase. One that is already open then needs one more end.
    Begin {
        /// Name of the phase.
        #[arg(value_name = "LABEL", value_parser = label)]
        label: String,
    },
    /// End a phase that is open, however it was begun.
    End {
        /// Name of the phase.
        #[arg(value_name = "LABEL", value_parser = label)]
        label: String,
    },
}

impl MarkArgs {
    /// What is asked for.
    ///
    /// # Errors
    ///
    /// A sentence, if a label precedes `begin` or `end`.
    pub fn request(&self) -> Result<Request, String> {
        match (&self.label, &self.edge) {
            (Some(label), None) => Request::new(Verb::Mark, label),
            (None, Some(Edge::Begin { label })) => Request::new(Verb::Begin, label),
            (None, Some(Edge::End { label })) => Request::new(Verb::End, label),
            (Some(label), Some(_)) => Err(format!(
                "there is one label too many: `{label}` precedes `begin` or `end`. Put quotes around a label with spaces"
            )),
            (None, None) => Err("a label is missing".to_owned()),
        }
    }
}

fn label(text: &str) -> Result<String, String> {
    Request::new(Verb::Mark, text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    fn request(args: &[&str]) -> Result<String, String> {
        let line = ["dlpm", "mark"].iter().chain(args);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Mark(args) => {
                let dir = args.dir.as_ref().map_or(String::new(), |dir| dir.display().to_string());
                Ok(format!("{} {dir}", args.request()?).trim_end().to_owned())
            }
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_label_or_an_edge_with_options_anywhere() {
        for (args, expected) in [
            (&["x"][..], "mark x"),
            (&["epoch 1"], "mark epoch 1"),
            (&["--dir", "d", "x"], "mark x d"),
            (&["x", "--dir", "d"], "mark x d"),
            (&["begin", "x"], "begin x"),
            (&["end", "x"], "end x"),
            (&["--dir", "d", "begin", "x"], "begin x d"),
            (&["begin", "--dir", "d", "x"], "begin x d"),
            (&["begin", "x", "--dir", "d"], "begin x d"),
            (&["begin", "end"], "begin end"),
            (&["--", "begin"], "mark begin"),
            (&["help"], "mark help"),
            (&["beginning"], "mark beginning"),
        ] {
            assert_eq!(request(args).as_deref(), Ok(expected), "{args:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (args, says) in [
            (&[][..], "LABEL"),
            (&["begin"], "LABEL"),
            (&["x", "y"], "'y'"),
            (&["x", "begin", "y"], "one label"),
            (&["a\nb"], "control character"),
            (&[" "], "empty"),
            (&["--dir"], "--dir"),
        ] {
            let message = request(args).unwrap_err();
            assert!(message.contains(says), "{args:?}: {message}");
        }
    }
}
