//! Builds what gives a machine energy meters, `tests/kernel-module`: modules, and a table of ACPI.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{store::Kernel, tools::Tools};
use crate::{
    process::{find_program, run},
    toolchain::install::apt_install,
    workspace::Workspace,
};

/// Compilers in the order in which they are tried: that of Debian's kernel 6.1, then whatever is there. A module needs none
/// in particular, but one that knows the flags of its kernel.
const COMPILERS: [&str; 2] = ["gcc-12", "gcc"];

/// Those with energy zones of powercap, and with the energy of each core.
const MODULES: [&str; 2] = ["dlpm_rapl", "dlpm_cores"];

/// Builds the modules for this kernel with its unpacked headers, in a folder below `folder`: the one with energy zones, and
/// the one with the energy of each core.
pub fn build(workspace: &Workspace, unpacked: &Path, kernel: &Kernel, folder: &Path) -> Result<[PathBuf; 2]> {
    let find_compiler = || COMPILERS.into_iter().find(|name| find_program(name).is_some());
    if find_compiler().is_none() || find_program("make").is_none() {
        apt_install(&["gcc", "make"])?;
    }
    let compiler = find_compiler().context("gcc was installed and is not found; is /usr/bin in PATH?")?;
    let headers = unpacked
        .join("usr/src")
        .join(format!("linux-headers-{}", kernel.release));
    adopt(&headers)?;
    let built_in = folder.join(format!("module-{}", kernel.release));
    fs::create_dir_all(&built_in)?;
    let sources = MODULES.map(|name| format!("{name}.c"));
    for name in sources.iter().map(String::as_str).chain(["Kbuild"]) {
        let source = workspace.root().join("tests/kernel-module").join(name);
        fs::copy(&source, built_in.join(name)).with_context(|| format!("cannot copy {}", source.display()))?;
    }
    let mut make = Command::new("make");
    make.args(["--silent", "-C"])
        .arg(&headers)
        .arg(format!("M={}", built_in.display()));
    // Warnings are errors: a module that reads a pointer as a number would crash the guest.
    make.args([format!("CC={compiler}").as_str(), "KCFLAGS=-Werror", "modules"]);
    make.env("LD_LIBRARY_PATH", unpacked.join("usr/lib/x86_64-linux-gnu"));
    run(&mut make).context("the kernel modules could not be built")?;
    Ok(MODULES.map(|name| built_in.join(format!("{name}.ko"))))
}

/// Debian's makefile names the folder where its package is installed; here it is unpacked elsewhere.
fn adopt(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("cannot read {}", makefile.display()))?;
    let root = headers.parent().context("the headers lie in no folder")?;
    let adopted = text.replace("include /usr/src/", &format!("include {}/", root.display()));
    if adopted != text {
        fs::write(&makefile, adopted)?;
    }
    Ok(())
}

/// Compiles the table with ACPI's power meters, in a folder.
pub fn power_meters(workspace: &Workspace, compiler: &Tools, folder: &Path) -> Result<PathBuf> {
    let table = folder.join("power-meter.aml");
    let mut compile = compiler.program("usr/bin/iasl");
    compile.arg("-vs").arg("-p").arg(&table);
    compile.arg(workspace.root().join("tests/kernel-module/power-meter.asl"));
    run(&mut compile).context("the table with power meters could not be compiled")?;
    Ok(table)
}
