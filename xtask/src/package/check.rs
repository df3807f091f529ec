//! Whether the package does what it promises: installed, used and removed on this machine.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::debian::VERSION;
use crate::{
    process::{as_root, find_program, probe, render, run_announced},
    toolchain::install::apt_install,
};

/// What the package installs, of which nothing may be left after its removal.
const INSTALLED: [&str; 7] = [
    "/usr/bin/dlpm",
    "/usr/share/man/man1/dlpm-trace.1.gz",
    "/usr/share/bash-completion/completions/dlpm",
    "/usr/share/zsh/vendor-completions/_dlpm",
    "/usr/share/fish/vendor_completions.d/dlpm.fish",
    "/usr/lib/python3/dist-packages/dlpm/__init__.py",
    "/usr/share/doc/dlpm",
];

/// Installs `package`, uses it, and removes it again.
pub fn debian(package: &Path) -> Result<()> {
    let there = INSTALLED.iter().find(|path| Path::new(path).exists());
    if let Some(path) = there {
        bail!("{path} is there already: remove that dlpm first (`sudo dpkg -r dlpm`), or leave --check out");
    }
    run_announced(as_root("dpkg")?.arg("--install").arg(package))?;
    // Removed also where something fails.
    let used = use_it();
    run_announced(as_root("dpkg")?.args(["--remove", "dlpm"]))?;
    used?;
    for path in INSTALLED {
        ensure!(
            !Path::new(path).exists(),
            "{path} is still there after the package was removed"
        );
    }
    eprintln!("the package was installed, used and removed");
    Ok(())
}

/// Whether the program that needs no library runs, and says that it measures no GPU.
pub fn without_libraries(program: &Path) -> Result<()> {
    let mut doctor = as_root(program)?;
    // It fails where dlpm cannot trace, and has spoken all the same.
    let output = doctor
        .arg("doctor")
        .output()
        .context("the static program cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("linked statically"),
        "the static `dlpm doctor` says {text}"
    );
    Ok(())
}

fn use_it() -> Result<()> {
    for path in INSTALLED {
        ensure!(Path::new(path).exists(), "{path} was not installed");
    }
    let version = said(Command::new("/usr/bin/dlpm").arg("--version"))?;
    ensure!(
        version.trim() == format!("dlpm {VERSION}"),
        "`dlpm --version` says {version:?}"
    );

    if find_program("man").is_none() {
        apt_install(&["man-db"])?;
    }
    // Some small images leave manual pages out when they install packages; the file itself is there, and readable.
    let page = said(
        Command::new("man")
            .args(["--local-file", INSTALLED[1]])
            .env("MANWIDTH", "80"),
    )?;
    ensure!(
        page.contains("SYNOPSIS") && page.contains("--cgroup"),
        "the manual page reads {page:?}"
    );

    // As bash does it when Tab is pressed behind `dlpm cal`.
    let script = format!(
        "source {}; COMP_WORDS=(dlpm cal); COMP_CWORD=1; _dlpm dlpm cal dlpm; echo \"${{COMPREPLY[@]}}\"",
        INSTALLED[2]
    );
    let completed = said(Command::new("bash").args(["-c", &script]))?;
    ensure!(
        completed.trim() == "calibrate",
        "bash completes `dlpm cal` to {completed:?}"
    );

    // The package for Python, found without a path by the system's Python. In the workspace, a folder has its name.
    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        let client = said(
            Command::new(python)
                .args(["-B", "-c", "import dlpm; print(dlpm.__file__)"])
                .current_dir("/"),
        )?;
        ensure!(client.trim() == INSTALLED[5], "python3 imports dlpm from {client:?}");
    }

    // A trace of the installed program, proved by itself.
    let folder = std::env::temp_dir().join(format!("dlpm-package-{}", std::process::id()));
    let result = trace(&folder);
    if folder.exists() {
        run_announced(as_root("rm")?.arg("-rf").arg(&folder))?;
    }
    result
}

fn trace(folder: &Path) -> Result<()> {
    run_announced(
        as_root("/usr/bin/dlpm")?
            .args(["trace", "--energy-source", "estimate", "--estimate", "idle=40,busy=12"])
            .args(["--quiet", "--duration", "1500ms", "--output"])
            .arg(folder),
    )?;
    ensure!(
        fs::metadata(folder).is_ok_and(|folder| folder.is_dir()),
        "the trace wrote no folder"
    );
    let verdict = said(Command::new("/usr/bin/dlpm").arg("verify").arg(folder))?;
    ensure!(
        verdict.contains("close in all of them"),
        "`dlpm verify` says {verdict:?}"
    );
    Ok(())
}

fn said(command: &mut Command) -> Result<String> {
    probe(command).with_context(|| format!("`{}` failed", render(command)))
}
