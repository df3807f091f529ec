//! The agent's configuration: a file whose keys are the options, and what was typed.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgAction, Args, Command, FromArgMatches, parser::ValueSource};

use crate::cli::{AgentArgs, DEFAULT_CONFIG};

/// The longest configuration that is read.
const LONGEST_BYTES: u64 = 1 << 20;

/// Options that are not keys.
const TYPED_ONLY: [&str; 2] = ["config", "check"];

/// What the file and the command line say together. `words` are those of the command line, from the name of the program.
///
/// # Errors
///
/// One paragraph that names the file, the key and the next step.
pub fn read(words: &[OsString]) -> Result<AgentArgs> {
    let typed = parse(words.iter().cloned())?;
    let path = match &typed.args.config {
        Some(path) => path.clone(),
        None => PathBuf::from(DEFAULT_CONFIG),
    };
    let text = match text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && typed.args.config.is_none() => return Ok(typed.args),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "the configuration {} cannot be read: give another with --config, or make this one readable for \
                     root",
                    path.display()
                )
            });
        }
    };
    let keys: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        anyhow!(
            "the configuration {} is not TOML: {}",
            path.display(),
            error.to_string().trim_end()
        )
    })?;
    let mut all = vec![OsString::from("dlpm"), OsString::from("agent")];
    for (key, value) in &keys {
        let words = option(&path, key, value)?;
        if !typed.typed.contains(key) {
            all.extend(words);
        }
    }
    all.extend(words.iter().skip(2).cloned());
    Ok(parse(all)?.args)
}

struct Parsed {
    args: AgentArgs,
    /// Ids of the options that were typed.
    typed: Vec<String>,
}

fn command() -> Command {
    let agent = AgentArgs::augment_args(Command::new("agent"));
    Command::new("dlpm").subcommand(agent)
}

fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed> {
    let matches = command().try_get_matches_from(words)?;
    let matches = matches.subcommand_matches("agent").context("it is not `dlpm agent`")?;
    let typed = matches.ids().map(|id| id.to_string());
    let typed = typed.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
    Ok(Parsed {
        typed: typed.collect(),
        args: AgentArgs::from_arg_matches(matches)?,
    })
}

/// The words of the command line that a key stands for, if they can be used.
fn option(path: &Path, key: &str, value: &toml::Value) -> Result<Vec<OsString>> {
    let agent = AgentArgs::augment_args(Command::new("agent"));
    let arguments = || {
        agent
            .get_arguments()
            .filter(|argument| !TYPED_ONLY.contains(&argument.get_id().as_str()))
    };
    let Some(argument) = arguments().find(|argument| argument.get_id() == key) else {
        let nearest = arguments()
            .map(|argument| argument.get_id().as_str())
            .max_by(|one, other| strsim::jaro_winkler(one, key).total_cmp(&strsim::jaro_winkler(other, key)));
        let nearest = nearest.filter(|nearest| strsim::jaro_winkler(nearest, key) > 0.7);
        bail!(
            "the configuration {} has an unknown key `{}`{}; `dlpm agent --help` lists those that there are",
            path.display(),
            crate::printable::printable(key),
            nearest.map_or_else(String::new, |nearest| format!(" (is `{nearest}` meant?)")),
        );
    };
    let long = argument.get_long().unwrap_or(key);
    let values = match value {
        toml::Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let wrong = |what: &str| anyhow!("the configuration {}: {key}: {what}", path.display());
    let mut words = Vec::new();
    for value in values {
        let word = match value {
            toml::Value::String(word) => word.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(is_set) if matches!(argument.get_action(), ArgAction::SetTrue) => {
                if *is_set {
                    words.push(format!("--{long}").into());
                }
                continue;
            }
            other => {
                return Err(wrong(&format!(
                    "a text or a number is expected, and not a {}",
                    other.type_str()
                )));
            }
        };
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            return Err(wrong("true or false is expected"));
        }
        words.push(format!("--{long}={word}").into());
    }
    if values.len() != 1 && !matches!(argument.get_action(), ArgAction::Append) {
        return Err(wrong("one value is expected"));
    }
    let alone = [OsString::from("dlpm"), OsString::from("agent")].into_iter();
    parse(alone.chain(words.iter().cloned())).map_err(|error| wrong(&first_line(&error.to_string())))?;
    Ok(words)
}

/// What clap says, without its hint about the command line.
fn first_line(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    text.split("\n\n").next().unwrap_or(text).trim().replace('\n', " ")
}

fn text(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(LONGEST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_BYTES {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn with(text: &str, typed: &[&str]) -> Result<AgentArgs> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("agent.toml");
        fs::write(&path, text)?;
        let words = ["dlpm", "agent", "--config"].map(OsString::from).into_iter();
        read(
            &words
                .chain([path.into_os_string()])
                .chain(typed.iter().map(OsString::from))
                .collect::<Vec<_>>(),
        )
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        with(text, &[]).unwrap_err().to_string()
    }

    #[test]
    fn keys_are_options_and_what_is_typed_comes_first() {
        let args = with(
            "interval = \"2s\"\nmax_tenants = 7\nsmt_weight = 0.75\ngpu = [\"none\"]\n",
            &[],
        )
        .unwrap();
        assert_eq!((args.interval, args.max_tenants), (Duration::from_secs(2), 7));
        assert_eq!((args.machine.smt_weight, args.machine.gpus.gpu.len()), (750, 1));
        let args = with("interval = \"2s\"\nmax_tenants = 7\n", &["--max-tenants", "9"]).unwrap();
        assert_eq!((args.interval, args.max_tenants), (Duration::from_secs(2), 9));
        assert_eq!(with("", &[]).unwrap().max_tenants, 2000);
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let said = refused("max_tenant = 7\n");
        assert!(
            said.contains("unknown key `max_tenant` (is `max_tenants` meant?)"),
            "{said}"
        );
        let said = refused("zzz = 7\n");
        assert!(said.contains("unknown key `zzz`;"), "{said}");
        assert!(refused("check = true\n").contains("unknown key `check`"));
        let said = refused("interval = \"1ms\"\n");
        assert!(said.contains("interval: ") && said.contains("from 10ms"), "{said}");
        assert!(refused("interval = [\"1s\", \"2s\"]\n").contains("one value is expected"));
        assert!(refused("max_tenants = { a = 1 }\n").contains("not a table"));
        assert!(
            refused("max_tenants = 0\n").contains("max_tenants: "),
            "{}",
            refused("max_tenants = 0\n")
        );
        let said = refused("max_tenants = \n");
        assert!(said.contains("is not TOML") && said.contains("line 1"), "{said}");
        let said = read(&["dlpm", "agent", "--config", "/nowhere.toml"].map(OsString::from))
            .unwrap_err()
            .to_string();
        assert!(said.contains("/nowhere.toml cannot be read"), "{said}");
    }
}
