//! What to install next. Pure: a state of the machine in, one step out.

use std::{fmt, path::PathBuf};

use super::state::{LINKER_LLVMS, Nightly, State};
use super::version::Rustc;

/// One thing to install.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// `rust-src` for the nightly that is there.
    RustSource,
    /// rustup's nightly with `rust-src`.
    Nightly,
    /// Debian's rustc with its ready-built `core` for BPF.
    DebianRustc,
    /// Debian's headers and library of this LLVM.
    DebianLlvm(u32),
    /// A bpf-linker built with this LLVM.
    Linker {
        /// LLVM's major version.
        llvm: u32,
        /// Where that LLVM is.
        prefix: PathBuf,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RustSource => f.write_str("add the component rust-src to rustup's nightly"),
            Self::Nightly => f.write_str("install rustup's nightly with the component rust-src"),
            Self::DebianRustc => f.write_str("install Debian's rustc with `core` for BPF (rustup's stays as it is)"),
            Self::DebianLlvm(llvm) => write!(f, "install the development files of LLVM {llvm} from Debian"),
            Self::Linker { llvm, .. } => write!(f, "build bpf-linker with LLVM {llvm} (one to three minutes, once)"),
        }
    }
}

/// Which compiler and which linker build the eBPF object, where both are there. Nightly is preferred.
pub fn complete(state: &State) -> Option<(Choice, PathBuf)> {
    let nightly = state.nightly_rustc().map(|rustc| (Choice::Nightly, rustc));
    let system = state.system.as_ref().map(|rustc| (Choice::System, rustc));
    [nightly, system]
        .into_iter()
        .flatten()
        .find_map(|(choice, rustc)| Some((choice, state.linker_for(rustc)?.path.clone())))
}

/// Where the compiler for BPF comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// rustup's nightly, which builds `core` from source.
    Nightly,
    /// The distribution's rustc, which ships `core` for BPF.
    System,
}

/// The next step towards a complete toolchain, without those that failed already. `None`: nothing is left to try.
///
/// A compiler that is there only lacks its linker, so that comes first, and a new compiler after it.
pub fn next(state: &State, failed: &[Step]) -> Option<Step> {
    let compilers = state.nightly_rustc().into_iter().chain(state.system.as_ref());
    let compiler = match &state.nightly {
        Some(Nightly::Absent) => Some(Step::Nightly),
        Some(Nightly::WithoutSource(_)) => Some(Step::RustSource),
        Some(Nightly::Ready(_)) | None => None,
    };
    let debian = (state.apt && state.system.is_none()).then_some(Step::DebianRustc);
    compilers
        .flat_map(|rustc| linker_steps(state, rustc))
        .chain(compiler)
        .chain(debian)
        .find(|step| !failed.contains(step))
}

/// The ways to a linker for this rustc: with an LLVM that is there, else with one that Debian may have.
fn linker_steps(state: &State, rustc: &Rustc) -> Vec<Step> {
    let fits = |llvm: &u32| *llvm >= rustc.llvm;
    let there = state.llvms.iter().filter(|llvm| fits(&llvm.major));
    let build = there.map(|llvm| Step::Linker {
        llvm: llvm.major,
        prefix: llvm.prefix.clone(),
    });
    let absent = |major: &u32| !state.llvms.iter().any(|llvm| llvm.major == *major);
    let fetch = LINKER_LLVMS
        .filter(fits)
        .filter(absent)
        .filter(|_| state.apt)
        .map(Step::DebianLlvm);
    build.chain(fetch).collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::{Linker, Llvm};
    use super::*;

    fn rustc(llvm: u32) -> Rustc {
        Rustc {
            release: "1.96.0".to_owned(),
            llvm,
        }
    }

    fn linker(llvm: u32) -> Linker {
        Linker {
            path: format!("/bin/linker-{llvm}").into(),
            llvm,
        }
    }

    fn llvm(major: u32) -> Llvm {
        Llvm {
            major,
            prefix: format!("/usr/lib/llvm-{major}").into(),
        }
    }

    fn nothing() -> State {
        State {
            nightly: None,
            system: None,
            linkers: Vec::new(),
            llvms: Vec::new(),
            apt: false,
        }
    }

    #[test]
    fn a_linker_must_not_be_older_than_the_compiler() {
        let mut state = State {
            system: Some(rustc(22)),
            linkers: vec![linker(21)],
            ..nothing()
        };
        assert_eq!(complete(&state), None);
        state.linkers.push(linker(23));
        assert_eq!(complete(&state), Some((Choice::System, "/bin/linker-23".into())));
    }

    #[test]
    fn nightly_is_preferred_but_not_waited_for() {
        let state = State {
            nightly: Some(Nightly::Ready(rustc(22))),
            system: Some(rustc(22)),
            linkers: vec![linker(22)],
            ..nothing()
        };
        assert_eq!(complete(&state).unwrap().0, Choice::Nightly);
        let newer = State {
            nightly: Some(Nightly::Ready(rustc(23))),
            ..state.clone()
        };
        assert_eq!(complete(&newer).unwrap().0, Choice::System);
        let bare = State {
            nightly: Some(Nightly::WithoutSource(rustc(22))),
            ..state
        };
        assert_eq!(complete(&bare).unwrap().0, Choice::System);
    }

    #[test]
    fn a_machine_that_can_install_nothing_has_no_step() {
        assert_eq!(next(&nothing(), &[]), None);
        assert_eq!(
            next(
                &State {
                    system: Some(rustc(22)),
                    ..nothing()
                },
                &[]
            ),
            None
        );
    }

    #[test]
    fn debian_is_the_way_where_rustup_fails() {
        let mut state = State {
            nightly: Some(Nightly::Absent),
            apt: true,
            ..nothing()
        };
        assert_eq!(next(&state, &[]), Some(Step::Nightly));
        let mut failed = vec![Step::Nightly];
        assert_eq!(next(&state, &failed), Some(Step::DebianRustc));
        state.system = Some(rustc(22));
        assert_eq!(next(&state, &failed), Some(Step::DebianLlvm(22)));
        state.llvms.push(llvm(22));
        let build = Step::Linker {
            llvm: 22,
            prefix: "/usr/lib/llvm-22".into(),
        };
        assert_eq!(next(&state, &failed), Some(build.clone()));
        failed.push(build);
        assert_eq!(next(&state, &failed), Some(Step::DebianLlvm(23)));
        failed.push(Step::DebianLlvm(23));
        assert_eq!(next(&state, &failed), None);
    }

    #[test]
    fn the_source_is_added_to_the_nightly_that_is_there() {
        let state = State {
            nightly: Some(Nightly::WithoutSource(rustc(22))),
            ..nothing()
        };
        assert_eq!(next(&state, &[]), Some(Step::RustSource));
    }

    #[test]
    fn a_nightly_too_new_for_every_linker_is_left_alone() {
        let newest = *LINKER_LLVMS.end();
        let state = State {
            nightly: Some(Nightly::Ready(rustc(newest + 1))),
            apt: true,
            ..nothing()
        };
        assert_eq!(next(&state, &[]), Some(Step::DebianRustc));
    }
}
