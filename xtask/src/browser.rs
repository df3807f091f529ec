//! A browser that tests can drive: found, or installed.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{process::find_program, toolchain::install::apt_install};

/// Names the browser and its driver for the tests.
pub const VARIABLES: [&str; 2] = ["DLPM_CHROMIUM", "DLPM_CHROMEDRIVER"];

/// Debian's packages of both.
const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];

/// The browser's names in other distributions.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Chromium and the driver that goes with it.
#[derive(Debug)]
pub struct Browser {
    /// The browser.
    pub chromium: PathBuf,
    /// The program that drives it.
    pub chromedriver: PathBuf,
}

impl Browser {
    /// The browser of this machine. Where there is none, it is installed from Debian's packages.
    pub fn ensure() -> Result<Self> {
        if let Some(browser) = Self::find() {
            return Ok(browser);
        }
        let by_hand = "install Chromium and a chromedriver of the same version by hand, so that both are in PATH";
        if find_program("apt-get").is_none() {
            bail!("there is no Chromium with chromedriver here, and no apt-get to install them: {by_hand}");
        }
        eprintln!("No Chromium with chromedriver yet. Next: install them from Debian.");
        apt_install(&PACKAGES).with_context(|| format!("Chromium cannot be installed: {by_hand}"))?;
        Self::find().with_context(|| format!("Chromium is installed, but not found: {by_hand}"))
    }

    fn find() -> Option<Self> {
        Some(Self {
            chromium: NAMES.into_iter().find_map(find_program)?,
            chromedriver: find_program("chromedriver")?,
        })
    }
}

/// Whether tests with these filters may need a browser: those that do have `html` in their names.
pub fn is_needed(filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|part| part.contains("html"))
}

/// Whether a test that cannot run is a failure.
pub fn is_required() -> bool {
    env::var_os("DLPM_REQUIRE_KERNEL").is_some_and(|value| value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_installed_only_for_tests_that_use_one() {
        let filter = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(is_needed(&filter(&[])));
        assert!(is_needed(&filter(&["time_law", "html_page"])));
        assert!(!is_needed(&filter(&["time_law"])));
    }
}
