//! `dlpm completions` and `dlpm man`: what a shell and a manual know of the command line, made from the command line itself.

use std::{io, process::ExitCode};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    sinks::terminal::{print_own, say},
};

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dlpm", &mut text);
    print(&text)
}

/// Prints a manual page, or the names of those that there are.
pub fn page(args: &ManArgs) -> ExitCode {
    let mut dlpm = Cli::command();
    dlpm.build();
    if args.list {
        return print(names(&dlpm).join("\n").as_bytes());
    }
    let command = match &args.of {
        None => Some(&dlpm),
        Some(name) => dlpm.find_subcommand(name),
    };
    let Some(command) = command else {
        let name = args.of.as_deref().unwrap_or_default();
        say(&format!(
            "there is no command `{name}`; those with a manual page are: {}",
            names(&dlpm).join(", ")
        ));
        return ExitCode::from(2);
    };
    match render(command) {
        Ok(text) => print(&text),
        Err(error) => {
            say(&format!("the manual page cannot be made: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The names of all commands that users are shown.
fn names(dlpm: &Command) -> Vec<&str> {
    let shown = dlpm.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(Command::get_name).collect()
}

/// The page in roff, as `man` reads it. What follows the options in the long help becomes sections of its own.
fn render(command: &Command) -> io::Result<Vec<u8>> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    // A manual page is long help: it shows what the short one leaves out.
    let command = command
        .clone()
        .version(env!("CARGO_PKG_VERSION"))
        .mut_args(|option| option.hide_short_help(false));
    let after = command
        .get_after_long_help()
        .or(command.get_after_help())
        .map(|text| text.to_string())
        .unwrap_or_default();
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command.after_help("").after_long_help(""))
        .title(name)
        .source(concat!("dlpm ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(sections(&after).into_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Turns `Heading:` and the indented lines below it into sections whose lines stay as they are.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|heading| !heading.starts_with(' '));
        match (heading, line.split_once(": ")) {
            (Some(heading), _) => heading_of(&mut roff, heading),
            (None, Some((heading, rest))) if !line.starts_with(' ') && heading.split(' ').count() <= 2 => {
                // A sentence behind its heading, which may be broken anywhere.
                heading_of(&mut roff, heading);
                roff.push_str(".fi\n");
                line_of(&mut roff, rest);
            }
            _ => {
                if roff.is_empty() && !line.trim().is_empty() {
                    heading_of(&mut roff, "Notes");
                }
                line_of(&mut roff, line.strip_prefix("  ").unwrap_or(line));
            }
        }
    }
    if !roff.is_empty() {
        roff.push_str(".fi\n");
    }
    roff
}

fn heading_of(roff: &mut String, heading: &str) {
    if !roff.is_empty() {
        roff.push_str(".fi\n");
    }
    roff.push_str(&format!(".SH \"{}\"\n.nf\n", heading.to_uppercase()));
}

/// A line of text, in which nothing is a command of roff.
fn line_of(roff: &mut String, line: &str) {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        roff.push_str("\\&");
    }
    roff.push_str(&escaped);
    roff.push('\n');
}

fn print(text: &[u8]) -> ExitCode {
    super::status(print_own(&[text, b"\n"].concat()).map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_its_options_and_says_all_of_its_long_help() {
        let mut dlpm = Cli::command();
        dlpm.build();
        for name in names(&dlpm) {
            let command = dlpm.find_subcommand(name).unwrap();
            let page = String::from_utf8(render(command).unwrap()).unwrap();
            assert!(
                page.contains(&format!(".TH dlpm\\-{name} 1")) || page.contains(&format!("dlpm-{name}")),
                "{page}"
            );
            for option in command.get_arguments().filter_map(|option| option.get_long()) {
                let escaped = option.replace('-', "\\-");
                assert!(page.contains(&escaped), "{name} does not tell about --{option}");
            }
            let after = command.get_after_long_help().or(command.get_after_help());
            for word in after
                .map(|text| text.to_string())
                .unwrap_or_default()
                .split_whitespace()
            {
                let word = word.trim_end_matches(':').replace('\\', "\\e").replace('-', "\\-");
                let heading = page.contains(&word.to_uppercase());
                assert!(heading || page.contains(&word), "{name} leaves out `{word}`");
            }
        }
    }

    #[test]
    fn no_line_of_a_text_is_a_command_of_roff() {
        let text = sections("Examples:\n  .so /etc/passwd\n  'x' \\fB a-b\n");
        assert_eq!(
            text,
            ".SH \"EXAMPLES\"\n.nf\n\\&.so /etc/passwd\n\\&'x' \\efB a\\-b\n.fi\n"
        );
    }

    #[test]
    fn completions_know_the_commands_of_each_shell() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dlpm", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("calibrate") && text.contains("energy-source"), "{shell}");
        }
    }
}
