//! What compilers and linkers say about themselves.

use std::fmt;

/// A rustc that can build for BPF.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rustc {
    /// Its release, such as `1.96.0`.
    pub release: String,
    /// The major version of its LLVM. A linker with an older one cannot read what this compiler writes.
    pub llvm: u32,
}

impl Rustc {
    /// Reads what `rustc -vV` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Self {
            release: field("release")?.trim().to_owned(),
            llvm: major(field("LLVM version")?)?,
        })
    }
}

impl fmt::Display for Rustc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} (LLVM {})", self.release, self.llvm)
    }
}

/// The major LLVM version in what LLVM's own `--version` prints.
pub fn llvm_major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("LLVM version ")?;
    major(version)
}

fn major(version: &str) -> Option<u32> {
    version.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether an `/etc/os-release` is Debian's or that of a distribution made from it.
pub fn is_debian_like(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim().trim_matches(['"', '\'']).split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
        LLVM version: 22.1.8\n";

    #[test]
    fn rustc_is_read() {
        assert_eq!(
            Rustc::parse(RUSTC),
            Some(Rustc {
                release: "1.96.0".to_owned(),
                llvm: 22
            })
        );
        let nightly = RUSTC.replace("release: 1.96.0", "release: 1.97.0-nightly");
        assert_eq!(Rustc::parse(&nightly).unwrap().release, "1.97.0-nightly");
    }

    #[test]
    fn a_rustc_without_llvm_is_none() {
        assert_eq!(Rustc::parse(&RUSTC.replace("LLVM version", "cranelift version")), None);
        assert_eq!(Rustc::parse(""), None);
    }

    #[test]
    fn llvm_is_read() {
        assert_eq!(llvm_major("Debian LLVM version 22.1.8\n  Optimized build.\n"), Some(22));
        assert_eq!(
            llvm_major("LLVM (http://llvm.org/):\n  LLVM version 23.0.0git\n"),
            Some(23)
        );
        assert_eq!(llvm_major("bpf-linker 0.13.0"), None);
    }

    #[test]
    fn distributions_are_told_apart() {
        assert!(is_debian_like("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian_like("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nVERSION_ID=42\n"));
        assert!(!is_debian_like("NAME=debian\nBUG_REPORT_ID=debian\n"));
        assert!(!is_debian_like(""));
    }
}
