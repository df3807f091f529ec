//! Starting other programs: said before, explained after.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs `command` to its end, with the caller's terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", render(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed ({status}); what it printed above says why",
            render(command)
        );
    }
    Ok(())
}

/// Prints `command`, then runs it: for everything that changes the machine.
pub fn run_announced(command: &mut Command) -> Result<()> {
    announce(command);
    run(command)
}

/// Like [`run_announced`], but gives up after `limit`: for programs that wait on a network that may never answer.
pub fn run_bounded(command: &mut Command, limit: Duration) -> Result<()> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", render(command)))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("`{}` failed ({status})", render(command));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("`{}` did not finish within {} s", render(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What `command` prints, or `None` if it cannot be started or fails: for probes.
pub fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

/// Prints `command` as a shell would take it.
pub fn announce(command: &Command) {
    eprintln!("+ {}", render(command));
}

/// `command` with the variables that it sets, quoted where needed.
pub fn render(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", quote(name), quote(value?))));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether this process is root already.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails where [`as_root`] would: to be called before anything that takes long.
pub fn require_root() -> Result<()> {
    if !is_root() && find_program("sudo").is_none() {
        bail!("this needs root, and there is no sudo here; run it as root, or install sudo");
    }
    Ok(())
}

/// A command that runs `program` as root: through sudo where this process is not root.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    require_root()?;
    if is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// The executable that a shell would start for `name`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

/// Whether `path` is a file that may be executed by somebody.
pub fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_rendered_for_a_shell() {
        let mut command = Command::new("cargo");
        command
            .args(["build", "it's here", ""])
            .env("RUSTFLAGS", "-C debuginfo=2")
            .env_remove("RUSTC");
        assert_eq!(
            render(&command),
            r"RUSTFLAGS='-C debuginfo=2' cargo build 'it'\''s here' ''"
        );
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let error = run_bounded(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not finish"), "{error}");
    }

    #[test]
    fn failures_name_the_command() {
        let error = run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.starts_with("`false` failed (exit status: 1)"), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(error.contains("cannot start `/nonexistent/program`"), "{error}");
    }
}
