//! `cargo xtask setup`: the toolchain for eBPF, explicitly.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    toolchain::{
        self, Toolchain, install,
        plan::{self, Choice},
        state::{Nightly, SYSTEM_RUSTC, State, TARGET},
    },
    workspace::Workspace,
};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Environment:\n  \
    DLPM_TOOLCHAIN_DIR  The folder for the linker that is built for this project alone, instead of target/toolchain in \
    the workspace. Several clones may share one.")]
pub struct Args {
    /// Say what is there and what would be done, and do nothing. The exit code is 1 where something is missing
    #[arg(long)]
    check: bool,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let folder = toolchain::folder(workspace)?;
    if !args.check {
        Toolchain::ensure(workspace)?;
    }
    let state = State::probe(&folder);
    print!("{}", inventory(&state));
    let missing = match plan::complete(&state) {
        Some((choice, linker)) => {
            let compiler = match choice {
                Choice::Nightly => "rustup's nightly",
                Choice::System => SYSTEM_RUSTC,
            };
            println!("eBPF is built with {compiler} and {}", linker.display());
            false
        }
        None => {
            print!("{}", outlook(&state));
            true
        }
    };
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn inventory(state: &State) -> String {
    let nightly = match &state.nightly {
        None => "no rustup".to_owned(),
        Some(Nightly::Absent) => "not installed".to_owned(),
        Some(Nightly::WithoutSource(rustc)) => format!("{rustc}, without rust-src"),
        Some(Nightly::Ready(rustc)) => format!("{rustc}, with rust-src"),
    };
    let system = match &state.system {
        Some(rustc) => format!("{rustc}, with `core` for {TARGET}"),
        None => format!("none with `core` for {TARGET}"),
    };
    let mut text = format!("rustup's nightly: {nightly}\n{SYSTEM_RUSTC}: {system}\n");
    if state.linkers.is_empty() {
        text.push_str("bpf-linker: none that starts\n");
    }
    for linker in &state.linkers {
        text.push_str(&format!(
            "bpf-linker: {} (LLVM {})\n",
            linker.path.display(),
            linker.llvm
        ));
    }
    text
}

/// What would be done. The version of LLVM is known only once the compiler is there, so what follows is said in words.
fn outlook(state: &State) -> String {
    let Some(step) = plan::next(state, &[]) else {
        return format!("Nothing can be installed here: {}\n", install::by_hand());
    };
    let mut text = format!("missing; `cargo xtask setup` would first {step}");
    match step {
        plan::Step::Linker { .. } => {}
        plan::Step::DebianLlvm(_) => text.push_str(", then build bpf-linker with it"),
        _ => text.push_str(", then, where no bpf-linker fits, build one with the LLVM of this rustc"),
    }
    if let Some(other) = plan::next(state, std::slice::from_ref(&step)) {
        text.push_str(&format!("; where that fails: {other}"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outlook_names_the_first_step_and_the_one_after_a_failure() {
        let state = State {
            nightly: Some(Nightly::Absent),
            system: None,
            linkers: Vec::new(),
            llvms: Vec::new(),
            apt: true,
        };
        let text = outlook(&state);
        assert!(text.contains("would first install rustup's nightly"), "{text}");
        assert!(text.contains("where that fails: install Debian's rustc"), "{text}");
        assert!(inventory(&state).contains("bpf-linker: none that starts"));
        let text = outlook(&State {
            nightly: None,
            apt: false,
            ..state
        });
        assert!(text.contains("by hand"), "{text}");
    }
}
