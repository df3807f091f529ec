//! The verdict on a machine, from what its console showed. Pure.
//!
//! Nothing but the guest's own word counts: each expected case is said to be ok, and the last line says so of all.

use std::collections::BTreeSet;

/// Begins the lines of the guest; `tests/src/guest` writes them.
const MARK: &str = "dlpm-guest: ";

/// How a machine ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// By itself.
    Off,
    /// It was still running when its time was over.
    TimedOut,
}

/// What the guest says in a line of its console.
pub fn said(line: &str) -> Option<&str> {
    line.trim_end().strip_prefix(MARK)
}

/// What the guest measured and says to be compared.
pub fn figures(console: &str) -> Vec<&str> {
    let said = console.lines().filter_map(said);
    said.filter_map(|words| words.strip_prefix("figure ")).collect()
}

/// Whether all went well.
///
/// # Errors
///
/// What is wrong, a sentence each.
pub fn judge(console: &str, end: End, expected: &[String]) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    let mut ok = BTreeSet::new();
    let mut success = None;
    for line in console.lines() {
        let panicked = line.find("Kernel panic").map(|at| &line[at..]);
        if let Some(panic) = panicked {
            wrong.push(panic.trim_end().to_owned());
        }
        let Some(words) = said(line) else { continue };
        if let Some(case) = words.strip_prefix("ok ") {
            ok.insert(case);
        } else if let Some(failed) = words.strip_prefix("failed ") {
            wrong.push(failed.to_owned());
        } else if let Some(count) = words.strip_prefix("success ") {
            success = Some(count.to_owned());
        }
    }
    let missing: Vec<&str> = expected
        .iter()
        .map(String::as_str)
        .filter(|case| !ok.contains(case))
        .collect();
    match end {
        End::TimedOut => wrong.push("the machine did not end in time".to_owned()),
        End::Off if success.is_none() => wrong.push("the machine ended without its line of success".to_owned()),
        End::Off => {}
    }
    if let Some(count) = success.filter(|count| *count != ok.len().to_string()) {
        wrong.push(format!(
            "the guest counted {count} cases, and the console shows {}",
            ok.len()
        ));
    }
    if !missing.is_empty() {
        wrong.push(format!("not said to be ok: {}", missing.join(", ")));
    }
    if expected.is_empty() {
        wrong.push("nothing was to be run".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "booting\r\ndlpm-guest: ok a::b\r\nnoise\r\ndlpm-guest: ok c\r\ndlpm-guest: success 2\r\n";

    fn verdict(console: &str, end: End) -> Result<(), String> {
        judge(console, end, &["a::b".to_owned(), "c".to_owned()]).map_err(|wrong| wrong.join("; "))
    }

    #[test]
    fn figures_are_the_guests_own_words() {
        let console = "dlpm-guest: figure worker 12 ns\r\nfigure 3\n> dlpm-guest: figure 4\ndlpm-guest: ok c\n";
        assert_eq!(figures(console), ["worker 12 ns"]);
    }

    #[test]
    fn all_ok_is_success() {
        assert_eq!(verdict(GOOD, End::Off), Ok(()));
    }

    #[test]
    fn everything_else_is_not() {
        for (console, end, reason) in [
            ("", End::Off, "without its line of success"),
            ("booting\n", End::TimedOut, "did not end in time"),
            (GOOD, End::TimedOut, "did not end in time"),
            (
                &GOOD.replace("success 2", "failure 0 of 2"),
                End::Off,
                "without its line of success",
            ),
            (&GOOD.replace("success 2", "success 3"), End::Off, "counted 3 cases"),
            (&GOOD.replace("ok c", "said nothing"), End::Off, "not said to be ok: c"),
            (
                &GOOD.replace("ok c", "failed c: exit status: 101"),
                End::Off,
                "c: exit status: 101",
            ),
            (
                &format!("{GOOD}[ 3.1] Kernel panic - not syncing: x\n"),
                End::Off,
                "Kernel panic - not syncing: x",
            ),
            // Only at the beginning of a line, where no test's output can put it by chance.
            (
                &GOOD.replace("dlpm-guest: success", "> dlpm-guest: success"),
                End::Off,
                "without its line",
            ),
        ] {
            let wrong = verdict(console, end).unwrap_err();
            assert!(wrong.contains(reason), "{reason:?} is not in {wrong:?}");
        }
        assert!(judge("dlpm-guest: success 0\n", End::Off, &[]).is_err());
    }
}
