//! Which packages hold a kernel. Pure: what `apt-cache show` prints in, names of packages out.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};

use crate::targets::Arch;

/// A series of kernels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Series {
    version: Wanted,
    flavour: Flavour,
}

/// How Debian configures a kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flavour {
    /// For virtual machines, so it is small.
    Cloud,
    /// For all machines, with the drivers of their hardware.
    Generic,
    /// As that, with pages of 16 KiB, which only 64-bit Arm has.
    LargePages,
}

impl Flavour {
    const ALL: [Self; 3] = [Self::Cloud, Self::Generic, Self::LargePages];

    /// What ends the name of a series.
    fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "",
            Self::Generic => "-generic",
            Self::LargePages => "-16k",
        }
    }
}

/// Which versions belong to a series.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Wanted {
    /// Every one that begins with these numbers, such as 6.1.
    Numbered(Vec<u32>),
    /// The newest that Debian serves.
    Newest,
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = |flavour: &Flavour| *flavour != Flavour::Cloud && text.ends_with(flavour.suffix());
        let flavour = Flavour::ALL.into_iter().find(named).unwrap_or(Flavour::Cloud);
        let version = text.strip_suffix(flavour.suffix()).unwrap_or(text);
        if version == "newest" {
            let version = Wanted::Newest;
            return Ok(Self { version, flavour });
        }
        let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
        if numbers.len() != 2 || version.split('.').count() != 2 {
            bail!(
                "`{text}` is not a series of kernels: give two numbers, such as 6.1, or `newest`; with `-generic` behind it for \
                 Debian's kernel with all drivers, with `-16k` for pages of 16 KiB"
            );
        }
        let version = Wanted::Numbered(numbers);
        Ok(Self { version, flavour })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.version, self.flavour.suffix())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                f.write_str(&numbers.join("."))
            }
            Self::Newest => f.write_str("newest"),
        }
    }
}

impl Series {
    /// The meta packages that may depend on a kernel of this series.
    ///
    /// # Errors
    ///
    /// If there is no such kernel for this processor.
    pub fn meta_packages(&self, arch: Arch) -> Result<Vec<String>> {
        let flavour = match (arch, self.flavour) {
            (_, Flavour::Cloud) => format!("cloud-{arch}"),
            (_, Flavour::Generic) => arch.to_string(),
            (Arch::Arm64, Flavour::LargePages) => format!("{arch}-16k"),
            (Arch::Amd64, Flavour::LargePages) => {
                bail!("{self}: {arch} has no pages of 16 KiB; give `--arch arm64` as well")
            }
        };
        let mut packages = vec![format!("linux-image-{flavour}")];
        if let Wanted::Numbered(_) = self.version {
            // Debian's backports to its stable release have the series in their name.
            packages.push(format!("linux-image-{}-{flavour}", self.version));
        }
        Ok(packages)
    }
}

/// A kernel that Debian serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// What `uname -r` says, as in 6.1.0-56-cloud-amd64.
    pub release: String,
    /// Version of the package, as in 6.1.192-2.
    pub version: String,
    numbers: Vec<u32>,
}

impl Image {
    /// The package with the kernel.
    pub fn package(&self) -> String {
        format!("linux-image-{}", self.release)
    }
}

/// The newest kernel of the series among those that meta packages depend on.
pub fn choose(shown: &str, series: &Series) -> Option<Image> {
    let images = stanzas(shown).filter_map(|stanza| {
        let version = field(stanza, "Version")?;
        let release = dependencies(stanza).find_map(|package| package.strip_prefix("linux-image-"))?;
        let upstream = version.split(['-', '~', '+']).next()?;
        let numbers = upstream
            .split('.')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()
            .ok()?;
        Some(Image {
            release: release.to_owned(),
            version: version.to_owned(),
            numbers,
        })
    });
    images
        .filter(|image| match &series.version {
            Wanted::Numbered(wanted) => image.numbers.starts_with(wanted),
            Wanted::Newest => true,
        })
        .max_by(|one, other| one.numbers.cmp(&other.numbers))
}

/// Packages of the same build that a package of this description needs and whose name begins with `prefix`.
pub fn needs<'a>(shown: &'a str, prefix: &str) -> Vec<&'a str> {
    let first = stanzas(shown).next().unwrap_or_default();
    dependencies(first)
        .filter(|package| package.starts_with(prefix))
        .collect()
}

fn stanzas(shown: &str) -> impl Iterator<Item = &str> {
    shown.split("\n\n")
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .map(str::trim)
}

fn dependencies(stanza: &str) -> impl Iterator<Item = &str> {
    let list = field(stanza, "Depends").unwrap_or_default();
    list.split(',').filter_map(|item| item.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
Package: linux-image-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: linux-base-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)

Package: linux-image-cloud-amd64
Version: 6.1.176-1
Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)

Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1~deb12u1
Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)
";

    fn release(series: &str) -> Option<String> {
        choose(SHOWN, &series.parse().unwrap()).map(|image| image.release)
    }

    #[test]
    fn the_newest_of_a_series_is_chosen() {
        // 6.12 does not begin with the number 6.1, and 192 is more than 176 as a number only.
        assert_eq!(release("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release("6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(release("newest").as_deref(), Some("7.3.4+deb13-cloud-amd64"));
        assert_eq!(release("5.10"), None);
    }

    #[test]
    fn packages_of_the_same_build_are_found() {
        let shown = "Package: linux-image-7\nDepends: dracut | linux-initramfs-tool, linux-binary-7 (= 7), kmod\n";
        assert_eq!(needs(shown, "linux-binary-"), ["linux-binary-7"]);
        assert_eq!(needs("", "linux-"), Vec::<&str>::new());
    }

    #[test]
    fn a_series_is_two_numbers_or_newest() {
        for text in ["5.10", "6.1", "newest", "6.12-16k", "newest-16k", "6.1-generic"] {
            assert_eq!(text.parse::<Series>().unwrap().to_string(), text);
        }
        for text in [
            "6",
            "6.1.2",
            "6.x",
            "",
            "latest",
            "-16k",
            "6.12-64k",
            "6.12-16k-16k",
            "6.1-generic-16k",
            "6.1-cloud",
        ] {
            let error = text.parse::<Series>().unwrap_err().to_string();
            assert!(error.contains("newest"), "{error}");
        }
    }
    #[test]
    fn a_series_is_in_packages_of_its_processor() {
        let packages = |series: &str, arch| series.parse::<Series>().unwrap().meta_packages(arch);
        assert_eq!(
            packages("6.12", Arch::Amd64).unwrap(),
            ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"]
        );
        assert_eq!(packages("newest", Arch::Arm64).unwrap(), ["linux-image-cloud-arm64"]);
        assert_eq!(
            packages("6.12-16k", Arch::Arm64).unwrap(),
            ["linux-image-arm64-16k", "linux-image-6.12-arm64-16k"]
        );
        assert_eq!(
            packages("6.1-generic", Arch::Amd64).unwrap(),
            ["linux-image-amd64", "linux-image-6.1-amd64"]
        );
        let error = packages("6.12-16k", Arch::Amd64).unwrap_err().to_string();
        assert!(error.contains("--arch arm64"), "{error}");
    }
}
