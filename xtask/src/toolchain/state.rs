//! What this machine has for building eBPF. Probed anew each time: nothing is remembered that can go stale.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use super::version::{self, Rustc};
use crate::process::{find_program, is_executable, probe};

/// The BPF target of this project.
pub const TARGET: &str = "bpfel-unknown-none";

/// The distribution's rustc. A fixed path, since `rustc` in PATH is usually rustup's.
pub const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// The LLVMs that [`super::install::LINKER_VERSION`] of bpf-linker can be built with.
pub const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// rustup's nightly toolchain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Nightly {
    /// Not installed.
    Absent,
    /// Installed without the component `rust-src`, from which `core` is built.
    WithoutSource(Rustc),
    /// Can build for BPF.
    Ready(Rustc),
}

/// A bpf-linker that starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// The major version of its LLVM.
    pub llvm: u32,
}

/// LLVM's headers and library.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Llvm {
    /// Its major version.
    pub major: u32,
    /// The folder that holds its `bin`, `include` and `lib`.
    pub prefix: PathBuf,
}

/// What this machine has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// rustup's nightly, or `None` if there is no rustup.
    pub nightly: Option<Nightly>,
    /// The distribution's rustc, where it ships `core` for BPF.
    pub system: Option<Rustc>,
    /// Every usable linker, ours first.
    pub linkers: Vec<Linker>,
    /// Every LLVM that a linker could be built with.
    pub llvms: Vec<Llvm>,
    /// Whether Debian's packages can be installed.
    pub apt: bool,
}

impl State {
    /// Looks around. `folder` holds the linker that this project built for itself.
    pub fn probe(folder: &Path) -> Self {
        Self {
            nightly: find_program("rustup").map(|_| nightly()),
            system: system(),
            linkers: linkers(folder),
            llvms: LINKER_LLVMS.filter_map(llvm).collect(),
            apt: find_program("apt-get").is_some()
                && fs::read_to_string("/etc/os-release").is_ok_and(|text| version::is_debian_like(&text)),
        }
    }

    /// The nightly rustc, where it can build for BPF.
    pub fn nightly_rustc(&self) -> Option<&Rustc> {
        match &self.nightly {
            Some(Nightly::Ready(rustc)) => Some(rustc),
            _ => None,
        }
    }

    /// A linker that can read what a rustc with this LLVM writes.
    pub fn linker_for(&self, rustc: &Rustc) -> Option<&Linker> {
        self.linkers.iter().find(|linker| linker.llvm >= rustc.llvm)
    }
}

/// A call of rustup that installs nothing behind our back, and whose errors are short.
pub fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Where rustup's nightly is.
pub fn nightly_sysroot() -> Option<PathBuf> {
    let sysroot = probe(rustup().args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    Some(sysroot.trim().into())
}

fn nightly() -> Nightly {
    let version = probe(rustup().args(["run", "nightly", "rustc", "-vV"]));
    let Some(rustc) = version.and_then(|text| Rustc::parse(&text)) else {
        return Nightly::Absent;
    };
    let source = nightly_sysroot().map(|root| root.join("lib/rustlib/src/rust/library"));
    if source.is_some_and(|path| path.is_dir()) {
        Nightly::Ready(rustc)
    } else {
        Nightly::WithoutSource(rustc)
    }
}

fn system() -> Option<Rustc> {
    // The outer cargo's library path would load another rustc's libraries.
    let ask = |arguments: &[&str]| probe(Command::new(SYSTEM_RUSTC).args(arguments).env_remove("LD_LIBRARY_PATH"));
    let rustc = Rustc::parse(&ask(&["-vV"])?)?;
    let sysroot = ask(&["--print", "sysroot"])?;
    Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .is_dir()
        .then_some(rustc)
}

fn linkers(folder: &Path) -> Vec<Linker> {
    let ours = folder.join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(ours)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("bpf-linker"))
        .filter(|path| is_executable(path))
        .filter_map(|path| linker_llvm(&path).map(|llvm| Linker { path, llvm }))
        .collect()
}

/// bpf-linker prints no LLVM version of its own, but hands `--version` to its LLVM, which prints it and exits before
/// anything is read or written.
fn linker_llvm(path: &Path) -> Option<u32> {
    let output = env::temp_dir().join(format!("dlpm-bpf-linker-probe-{}", process::id()));
    let mut command = Command::new(path);
    command
        .arg("--llvm-args=--version")
        .arg("-o")
        .arg(output)
        .arg("/dev/null")
        .env_remove("LD_LIBRARY_PATH");
    version::llvm_major(&probe(&mut command)?)
}

fn llvm(major: u32) -> Option<Llvm> {
    let by_name = find_program(&format!("llvm-config-{major}"));
    let asked = by_name.or_else(|| find_program("llvm-config")).and_then(|config| {
        let said = probe(Command::new(&config).arg("--version"))?;
        let prefix = probe(Command::new(&config).arg("--prefix"))?;
        (said.trim().split('.').next() == Some(major.to_string().as_str())).then(|| PathBuf::from(prefix.trim()))
    });
    [Some(PathBuf::from(format!("/usr/lib/llvm-{major}"))), asked]
        .into_iter()
        .flatten()
        .find(|prefix| prefix.join("include/llvm-c/Core.h").is_file())
        .map(|prefix| Llvm { major, prefix })
}
