//! `cargo xtask screenshot`: traces real work with phases, makes the page of it, and takes the picture in `docs`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};

use super::build::{self, Profile};
use crate::{
    browser::Browser,
    process::{as_root, require_root, run, run_announced},
    workspace::Workspace,
};

/// No file of the repository may be much larger.
const LARGEST_BYTES: u64 = 300 << 10;

/// Three phases of some seconds: one process, then two side by side in turns, then 300 short ones.
const WORK: &str = r#"
work() { head -c "$1" /dev/urandom | gzip -1 | sha256sum >/dev/null; }
"$DLPM" mark load; work 150M
for epoch in 1 2 3; do
    "$DLPM" mark "epoch $epoch"; work 120M & work 120M & wait
    "$DLPM" mark validate; sleep 1; work 40M
done
"$DLPM" mark end validate
for file in $(seq 90); do work 1M; done
"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the picture goes
    #[arg(default_value = "docs/report.png")]
    output: PathBuf,
    /// A log to take instead of tracing one
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Width of the window, in pixels
    #[arg(long, default_value_t = 1280)]
    width: u32,
    /// Height of the window, in pixels
    #[arg(long, default_value_t = 1180)]
    height: u32,
    /// On a dark screen
    #[arg(long)]
    dark: bool,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    require_root()?;
    let browser = Browser::ensure()?;
    let program = build::program(workspace, &build::object(workspace)?, Profile::Debug)?;
    let folder = workspace.target().join("screenshot");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = match &args.log {
        Some(log) => log.clone(),
        None => {
            let log = folder.join("run");
            trace(&program, &log)?;
            log
        }
    };
    let page = folder.join("page.html");
    run(Command::new(&program)
        .arg("report")
        .arg(&log)
        .arg("--html")
        .arg(&page)
        .arg("--force"))?;
    picture(&browser, &page, &folder, args)?;
    let bytes = fs::metadata(&args.output)
        .with_context(|| format!("Chromium made no {}", args.output.display()))?
        .len();
    ensure!(
        bytes <= LARGEST_BYTES,
        "{} has {bytes} bytes, more than {LARGEST_BYTES}; make the window smaller",
        args.output.display()
    );
    println!("{}: {bytes} bytes", args.output.display());
    Ok(ExitCode::SUCCESS)
}

fn trace(program: &Path, log: &Path) -> Result<()> {
    // Through `env`, since sudo does not hand variables on.
    let mut variable = std::ffi::OsString::from("DLPM=");
    variable.push(program);
    let mut command = as_root("env")?;
    command.arg(variable).arg(program).args([
        "trace",
        "--interval",
        "250ms",
        "--estimate",
        "idle=40,busy=12",
        "--description",
        "Three epochs of compressing random bytes",
        "--overwrite",
        "--output",
    ]);
    command.arg(log).args(["--", "sh", "-ec", WORK]);
    run_announced(&mut command)
}

fn picture(browser: &Browser, page: &Path, folder: &Path, args: &Args) -> Result<()> {
    let page = page.canonicalize()?;
    let output = std::path::absolute(&args.output)?;
    let profile = folder.join("profile");
    let argument = |name: &str, path: &Path| {
        let mut argument = std::ffi::OsString::from(name);
        argument.push(path);
        argument
    };
    if output.exists() {
        fs::remove_file(&output).with_context(|| format!("cannot replace {}", output.display()))?;
    }
    run_announced(
        Command::new(&browser.chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg("--hide-scrollbars")
            .arg(format!("--window-size={},{}", args.width, args.height))
            // What Chromium calls dark is 0, and light 1.
            .arg(format!(
                "--blink-settings=preferredColorScheme={}",
                u8::from(!args.dark)
            ))
            .arg(argument("--user-data-dir=", &profile))
            .arg(argument("--screenshot=", &output))
            .arg(argument("file://", &page)),
    )?;
    if let Err(error) = fs::remove_dir_all(&profile) {
        bail!("cannot remove {}: {error}", profile.display());
    }
    Ok(())
}
