//! `dlpm validate`, as it is typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::Roots;
use crate::{
    sources::{
        calibration::DEFAULT_PATH,
        energy::meter::EnergySource,
        events::{self, EventName},
    },
    validate::{LoadKind, file::MOST_ROUNDS},
};

const VALIDATE_HELP: &str = "\
Protocol:
  Loads of dlpm's own run bound to a core each: none (idle), each alone on core A, and each pair on cores A and B of one
  package, while dlpm sleeps on a third core. What a load draws lies between what it adds to the idle machine and what it
  adds to the other load; each method's part of the pair is compared with the middle of the two. 95 % intervals are
  made by a bootstrap over rounds. docs/truth.md has the formulas.

Refusals (exit status 3, with the reason and the next step):
  no meter; too few cores; battery; energy filtering; others used more than 2 % of a CPU; idle moved by more than 5 %; the
  power with a load alone is not known to 2 %; throttling; no pair whose loads work within 3 % as fast as alone.

Output:
  A table, and validation.jsonl in the output folder: machine, seed, each cell, and the verdict. `dlpm verify` proves it
  from the cells, and `dlpm report` shows it again, also as JSON, CSV or a page (--html).

Exit status: 0 if something may be concluded; 1 if dlpm failed; 2 for an invalid command line; 3 if it was refused.

Examples:
  sudo dlpm validate --quick
  sudo dlpm validate --output node7 && dlpm verify node7
  dlpm report node7 --html node7.html";

/// `dlpm validate`
#[derive(Debug, Args)]
#[command(after_long_help = VALIDATE_HELP, after_help = "`dlpm validate --help` describes protocol, refusals and output.")]
pub struct ValidateArgs {
    /// Three loads, 3 rounds of cells of 7 s (2.5 minutes), instead of five loads, 5 rounds of cells of 12 s (16 minutes).
    #[arg(long)]
    pub quick: bool,
    /// Folder for the result [default: ./dlpm-validation-DATE-TIME].
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace the result of a folder.
    #[arg(long, requires = "output")]
    pub overwrite: bool,
    /// Seed of the order of the cells [default: a random one, which the result says].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// The loads, of scalar, fma, chase, stream and nap; at least two.
    #[arg(long, value_name = "LOADS", value_delimiter = ',', value_parser = load, help_heading = "Protocol")]
    pub loads: Vec<LoadKind>,
    /// Rounds: 2 to 30.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=i64::from(MOST_ROUNDS)),
        help_heading = "Protocol")]
    pub rounds: Option<u32>,
    /// Length of a cell, with the time in which the machine settles (a quarter, at most 2 s): 500ms to 60s.
    #[arg(long, value_name = "T", value_parser = cell, allow_hyphen_values = true, help_heading = "Protocol")]
    pub cell: Option<Duration>,
    /// CPUs for core A, core B and dlpm [default: cores of one kind in the first package with a meter].
    #[arg(long, value_name = "A,B,DLPM", value_parser = cpus, help_heading = "Protocol")]
    pub cpus: Option<[u32; 3]>,
    /// Let dlpm share a core with a load, where there is no third one. dlpm sleeps during a cell; the result says it.
    #[arg(long, help_heading = "Protocol")]
    pub share_core: bool,

    /// How much CPU time of others is accepted in a cell, in percent of one CPU.
    #[arg(long, value_name = "PERCENT", default_value = "2", value_parser = permille, help_heading = "Limits")]
    pub max_foreign: u32,
    /// How far apart the powers of the idle machine may be, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = permille, help_heading = "Limits")]
    pub max_idle_change: u32,
    /// How well the power with a load alone has to be known: half of its 95 % interval, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "2", value_parser = permille, help_heading = "Limits")]
    pub max_uncertainty: u32,
    /// How much slower or faster a load may be beside another one, and from round to round, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "3", value_parser = permille, help_heading = "Limits")]
    pub max_slowdown: u32,

    /// Compare the split by perf events as well: they are counted, and weigh what `dlpm calibrate --weights` found
    /// [without a value: as for `dlpm trace`].
    #[arg(long, value_name = "EVENT,...", num_args = 0..=1, require_equals = true, value_delimiter = ',',
        default_missing_value = events::DEFAULT)]
    pub counters: Vec<EventName>,
    /// The calibration that these weights are beside.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub calibration: PathBuf,
    /// Where energy is read, as for `dlpm trace`.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t)]
    pub energy_source: EnergySource,
    /// Where /sys and /proc are.
    #[command(flatten)]
    pub roots: Roots,
}

/// `dlpm validate-load`, which `dlpm validate` alone starts: its standard input is the file of its count.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What it does.
    #[arg(value_parser = load)]
    pub load: LoadKind,
    /// The CPU that it is bound to.
    #[arg(long)]
    pub cpu: u32,
    /// Memory that it goes through.
    #[arg(long)]
    pub memory_bytes: usize,
    /// It ends after this time, if nobody ends it before.
    #[arg(long)]
    pub seconds: u64,
}

fn load(text: &str) -> Result<LoadKind, String> {
    LoadKind::from_word(text).ok_or_else(|| {
        let known = LoadKind::ALL.map(LoadKind::as_str).join(", ");
        format!("`{text}` is not a load: there are {known}")
    })
}

/// `1,2,0`
fn cpus(text: &str) -> Result<[u32; 3], String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    let three = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    three.ok_or_else(|| format!("`{text}` is not three CPUs: give those of core A, core B and dlpm, as in 1,2,0"))
}

fn cell(text: &str) -> Result<Duration, String> {
    let cell = super::duration(text)?;
    if cell < Duration::from_millis(500) || cell > Duration::from_secs(60) {
        return Err("a cell lasts from 500ms to 60s; 7s is good for a first look".to_owned());
    }
    Ok(cell)
}

/// `2.5` → 25 thousandths.
fn permille(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not a limit: give percent from 0 to 100000, with at most one decimal");
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| wrong())?;
    (0..=1_000_000_u32)
        .find(|permille| (f64::from(*permille) / 10.0 - percent).abs() < 1e-9)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(words: &[&str]) -> Result<ValidateArgs, String> {
        match Cli::try_parse_from([&["dlpm", "validate"], words].concat()) {
            Ok(Cli {
                command: Command::Validate(args),
            }) => Ok(*args),
            Ok(_) => Err("another command".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn limits_are_thousandths_and_nonsense_is_refused() {
        let args = parse(&["--max-foreign", "2.5%", "--loads", "fma,nap", "--cpus", "1,2,0"]).unwrap();
        assert_eq!(
            (args.max_foreign, args.max_idle_change, args.max_slowdown),
            (25, 50, 30)
        );
        assert_eq!(args.loads, [LoadKind::Fma, LoadKind::Nap]);
        assert_eq!(args.cpus, Some([1, 2, 0]));
        for (bad, says) in [
            (["--max-foreign", "-1"], "not a limit"),
            (["--max-foreign", "nan"], "not a limit"),
            (["--max-slowdown", "0.25"], "not a limit"),
            (["--loads", "fma,spin"], "`spin` is not a load"),
            (["--rounds", "1"], "2..=30"),
            (["--cell", "100ms"], "from 500ms to 60s"),
            (["--cpus", "1,2"], "not three CPUs"),
        ] {
            let bad: Vec<String> = vec![bad[0].to_owned() + "=" + bad[1]];
            let error = parse(&[&bad[0]]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
