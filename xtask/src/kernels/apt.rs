//! Debian's packages, fetched and unpacked in a folder of their own: nothing is installed, and root is not needed.
//!
//! apt works with lists, a cache and a status of its own, for the releases that have the kernels. To it nothing is
//! installed, so that what it fetches does not depend on what is. From where, the system's own sources say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    process::{find_program, is_root, probe, run, run_bounded},
    targets::Arch,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Files in the folder of the state.
const SOURCES: &str = "sources.list";
const CONFIGURATION: &str = "apt.conf";
const STATUS: &str = "status";

/// Releases with kernels: 5.10; 6.1 and 6.12; the newest.
const SECURITY: [&str; 2] = ["bullseye-security", "bookworm-security"];
const BACKPORTS: &str = "trixie-backports";

/// How long apt may take for one step where the network answers slowly or not at all.
const LIMIT: Duration = Duration::from_secs(300);

/// apt with a state of its own.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    places: Places,
    /// The processor of the machines.
    arch: Arch,
}

/// Where the system itself fetches Debian from.
#[derive(Debug)]
struct Places {
    codename: String,
    debian: String,
    security: String,
}

impl Apt {
    /// Writes the sources, and fetches the lists of packages: for this machine, and for those with this processor.
    pub fn update(folder: &Path, arch: Arch) -> Result<Self> {
        if find_program("apt-get").is_none() || !Path::new(KEYRING).exists() {
            bail!(
                "kernels come from Debian's packages, and this machine has no apt-get with {KEYRING}. Run this on Debian \
                 (or with its package debian-archive-keyring installed)"
            );
        }
        let format = "$(RELEASE) $(REPO_URI)";
        let targets = probe(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]));
        let places = places(&targets.unwrap_or_default())?;
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(folder.join(SOURCES), places.of_kernels())?;
        fs::write(folder.join(CONFIGURATION), configuration(folder, arch))?;
        fs::write(folder.join(STATUS), "")?;
        let apt = Self {
            folder: folder.to_owned(),
            places,
            arch,
        };
        run_bounded(apt.command("apt-get").arg("update"), LIMIT)?;
        Ok(apt)
    }

    /// Lines of a `sources.list` for a release of Debian with its security updates.
    pub fn sources_of(&self, codename: &str) -> String {
        let security = format!("{codename}-security");
        let Places {
            debian,
            security: place,
            ..
        } = &self.places;
        line(debian, codename) + &line(place, &security)
    }

    /// What apt knows of these packages for the machines, in all versions.
    pub fn show(&self, packages: &[String]) -> String {
        // It fails where one of them is unknown, having shown the others.
        let output = self
            .command("apt-cache")
            .arg("show")
            .args(self.of_machines(packages))
            .output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    /// Fetches these packages for the machines alone, and unpacks them.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let archives = self.empty_archives()?;
        let mut download = self.command("apt-get");
        download
            .arg("download")
            .args(self.of_machines(packages))
            .current_dir(&archives);
        run_bounded(&mut download, LIMIT)?;
        unpack_all(&archives, into)
    }

    /// Fetches these packages for this machine with all that they need, and unpacks that.
    pub fn unpack_with_dependencies(&self, packages: &[&str], into: &Path) -> Result<()> {
        let archives = self.empty_archives()?;
        let mut download = self.command("apt-get");
        download
            .args(["install", "--download-only", "-y", "--no-install-recommends"])
            .args(packages);
        run_bounded(&mut download, LIMIT)?;
        unpack_all(&archives, into)
    }

    /// Names of packages with the processor that they are for.
    fn of_machines(&self, packages: &[String]) -> impl Iterator<Item = String> {
        packages.iter().map(|package| format!("{package}:{}", self.arch))
    }

    fn empty_archives(&self) -> Result<PathBuf> {
        let archives = self.folder.join("cache/archives");
        fs::remove_dir_all(&archives)?;
        fs::create_dir_all(archives.join("partial"))?;
        Ok(archives)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join(CONFIGURATION)).arg("-qq");
        command
    }
}

/// What apt is to do otherwise than usual, when its state is in `folder` and it fetches for machines with this processor.
fn configuration(folder: &Path, arch: Arch) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut options = vec![
        ("Dir::State", path("state")),
        // With the system's, a newer package that is installed can make it impossible to fetch an older one.
        ("Dir::State::status", path(STATUS)),
        ("Dir::Cache", path("cache")),
        ("Dir::Etc::sourcelist", path(SOURCES)),
        ("Dir::Etc::sourceparts", "-".to_owned()),
        // Which versions the system prefers is for what is installed.
        ("Dir::Etc::preferences", "-".to_owned()),
        ("Dir::Etc::preferencesparts", "-".to_owned()),
        ("APT::Default-Release", String::new()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
        ("Acquire::http::Timeout", "30".to_owned()),
        // A release that is kept as it is has lists that are out of date by their own word; they are signed.
        ("Acquire::Check-Valid-Until", "false".to_owned()),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Architectures::", "amd64".to_owned()),
        ("APT::Architectures::", arch.to_string()),
        // The state is its own, so the system's locks are not needed.
        ("Debug::NoLocking", "1".to_owned()),
    ];
    if is_root() {
        // The user that apt would become cannot write into a folder of root's.
        options.push(("APT::Sandbox::User", "root".to_owned()));
    }
    options
        .iter()
        .map(|(name, value)| format!("{name} \"{value}\";\n"))
        .collect()
}

/// The places that the system itself fetches Debian from. `targets`: lines of release and address.
fn places(targets: &str) -> Result<Places> {
    let targets = || targets.lines().filter_map(|line| line.split_once(' '));
    // Sources of others have no release beside which there is one of security updates.
    let known = targets().find_map(|(release, security)| {
        let codename = release.strip_suffix("-security")?;
        let (_, debian) = targets().find(|(release, _)| *release == codename)?;
        Some(Places {
            codename: codename.to_owned(),
            debian: debian.to_owned(),
            security: security.to_owned(),
        })
    });
    known.context(
        "kernels come from Debian's packages, and apt has no sources of Debian and of its security updates here; add them \
         (as /etc/apt/sources.list of a Debian release has them)",
    )
}

impl Places {
    /// The sources for the kernels and for the emulator.
    fn of_kernels(&self) -> String {
        let security = SECURITY.map(|suite| line(&self.security, suite));
        line(&self.debian, &self.codename) + &line(&self.debian, BACKPORTS) + &security.concat()
    }
}

fn line(place: &str, suite: &str) -> String {
    format!("deb [signed-by={KEYRING}] {place} {suite} main\n")
}

fn unpack_all(archives: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(into))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Arch, configuration, places};

    #[test]
    fn what_is_installed_makes_no_difference() {
        let text = configuration(Path::new("/cache/apt"), Arch::Amd64);
        for line in [
            r#"Dir::State::status "/cache/apt/status";"#,
            r#"Dir::Etc::preferencesparts "-";"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("/var/lib/dpkg"), "{text}");
    }

    #[test]
    fn sources_are_those_of_the_system() {
        let targets = "nodistro http://other.example/\nbookworm http://mirror.example/debian/\nbookworm-updates \
                       http://mirror.example/debian/\nbookworm-security http://mirror.example/security/\n";
        let text = places(targets).unwrap().of_kernels();
        let suites: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once("] "))
            .map(|(_, rest)| rest)
            .collect();
        assert_eq!(
            suites,
            [
                "http://mirror.example/debian/ bookworm main",
                "http://mirror.example/debian/ trixie-backports main",
                "http://mirror.example/security/ bullseye-security main",
                "http://mirror.example/security/ bookworm-security main",
            ]
        );
    }

    #[test]
    fn without_sources_of_debian_it_says_so() {
        let error = places("noble http://mirror.example/ubuntu/\n").unwrap_err().to_string();
        assert!(error.contains("apt has no sources of Debian"), "{error}");
    }
}
