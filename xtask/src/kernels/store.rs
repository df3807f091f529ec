//! The cache: kernels, what modules are built with, and the emulator. What is there is used; the network is asked where
//! something is missing or a week old.

use std::{
    cell::OnceCell,
    env,
    fs::{self, File},
    path::{self, Path, PathBuf},
    slice,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    apt::Apt,
    debian::{self, Series},
    tools::{FOR_MACHINES, Tools},
};
use crate::{process::probe, targets::Arch};

/// Names the folder of the cache.
pub const FOLDER_VARIABLE: &str = "DLPM_KERNELS_DIR";

/// Debian's kernels get security updates about that often.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// The last file of a part of the cache that is written: what has none is not complete.
const COMPLETE: &str = "complete";

/// A shell with the usual commands that needs no library.
const BUSYBOX: &str = "busybox-static";

/// What the machines have beside that, where they have another processor than this one.
const FOR_OTHERS: [&str; 3] = [BUSYBOX, "libc6", "libgcc-s1"];

/// The tools: packages that run on this machine.
fn tools_of(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["qemu-system-x86", BUSYBOX],
        // The machine, and what runs one of its programs here; this machine's busybox says which commands it has.
        Arch::Arm64 => &["qemu-system-arm", "qemu-user", BUSYBOX],
    }
}

/// The cache, locked for this process.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// The processor of the machines.
    arch: Arch,
    refresh: bool,
    apt: OnceCell<Result<Apt, String>>,
    _lock: File,
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What was asked for.
    pub series: Series,
    /// What `uname -r` says.
    pub release: String,
    /// The kernel itself.
    pub image: PathBuf,
    /// Its unpacked packages, where its modules are.
    pub folder: PathBuf,
}

impl Kernel {
    /// A module of its own, by the path below its folder of drivers and without its ending.
    pub fn driver(&self, name: &str) -> Result<PathBuf> {
        let path = self
            .folder
            .join(format!("lib/modules/{}/kernel/drivers/{name}.ko", self.release));
        if !path.exists() {
            bail!("{} has no driver {name}: {} is not there", self.release, path.display());
        }
        Ok(path)
    }
}

impl Store {
    /// Opens the cache for machines with this processor. With `refresh`, everything is fetched anew.
    pub fn open(arch: Arch, refresh: bool) -> Result<Self> {
        let folder = folder()?;
        fs::create_dir_all(&folder).with_context(|| {
            format!(
                "cannot create {}; {FOLDER_VARIABLE} names another folder",
                folder.display()
            )
        })?;
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("cannot write into {}", folder.display()))?;
        lock.lock()?;
        Ok(Self {
            folder,
            arch,
            refresh,
            apt: OnceCell::new(),
            _lock: lock,
        })
    }

    /// The emulator and busybox.
    pub fn tools(&self) -> Result<Tools> {
        let tools = |folder: &Path| Tools::new(folder, self.arch);
        let part = || {
            self.part(&self.of_machines("tools"), |apt, into| {
                apt.unpack_with_dependencies(tools_of(self.arch), into)?;
                if self.arch != Arch::Amd64 {
                    apt.unpack(&FOR_OTHERS.map(str::to_owned), &into.join(FOR_MACHINES))?;
                }
                if !tools(into).start() {
                    bail!("the emulator in {} does not start", into.display());
                }
                Ok("tools".to_owned())
            })
        };
        let (folder, _) = part()?;
        // A cache from before all libraries were fetched lacks those that its system had.
        if !tools(&folder).start() {
            fs::remove_file(folder.join(COMPLETE))?;
            return part().map(|(folder, _)| tools(&folder));
        }
        Ok(tools(&folder))
    }

    /// The name of a part that is made for the machines' processor.
    fn of_machines(&self, part: &str) -> String {
        match self.arch {
            // As it was when there was no other.
            Arch::Amd64 => part.to_owned(),
            Arch::Arm64 => format!("{part}-{}", self.arch),
        }
    }

    /// A kernel of this series.
    pub fn kernel(&self, series: &Series) -> Result<Kernel> {
        let packages = series.meta_packages(self.arch)?;
        let (folder, release) = self.part(&self.of_machines(&format!("kernel-{series}")), |apt, into| {
            let Some(image) = debian::choose(&apt.show(&packages), series) else {
                bail!(
                    "Debian serves no kernel {series} for {} any more, or apt could not read its lists",
                    self.arch
                );
            };
            // From 6.19 on the package is empty, and another one has the kernel.
            let shown = apt.show(&[image.package()]);
            let mut packages = vec![image.package()];
            packages.extend(debian::needs(&shown, "linux-binary-").into_iter().map(str::to_owned));
            apt.unpack(&packages, into)?;
            Ok(image.release)
        })?;
        let places = [
            format!("boot/vmlinuz-{release}"),
            format!("usr/lib/modules/{release}/vmlinuz"),
        ];
        let image = places.iter().map(|place| folder.join(place)).find(|path| path.exists());
        Ok(Kernel {
            series: series.clone(),
            image: image
                .with_context(|| format!("the packages of {release} hold no kernel at {}", places.join(" or ")))?,
            release,
            folder,
        })
    }

    /// The compiler of ACPI's tables, in a folder of unpacked packages.
    pub fn acpi_compiler(&self) -> Result<Tools> {
        let (folder, word) = self.part("acpi", |apt, into| {
            apt.unpack_with_dependencies(&["acpica-tools"], into)?;
            Ok("acpica-tools".to_owned())
        })?;
        let tools = Tools::new(&folder, Arch::Amd64);
        if probe(tools.program("usr/bin/iasl").arg("-v")).is_none() {
            bail!(
                "the compiler of {word} in {} does not start; remove that folder and run this again",
                folder.display()
            );
        }
        Ok(tools)
    }

    /// What modules for this kernel, one of this machine's processor, are built with: a folder of unpacked packages.
    pub fn headers(&self, kernel: &Kernel) -> Result<PathBuf> {
        let release = &kernel.release;
        let (folder, _) = self.part(&format!("headers-{release}"), |apt, into| {
            let package = format!("linux-headers-{release}");
            let shown = apt.show(slice::from_ref(&package));
            let mut packages = vec![package];
            for prefix in ["linux-headers-", "linux-kbuild-"] {
                packages.extend(debian::needs(&shown, prefix).into_iter().map(str::to_owned));
            }
            // For objtool, which is among the headers' programs.
            packages.push("libelf1".to_owned());
            apt.unpack(&packages, into)?;
            Ok(release.clone())
        })?;
        Ok(folder)
    }

    /// A disk with a release of Debian: what `make` makes, given the lines of a `sources.list`, a folder, and the file that
    /// it is to write. `recipe` is what the disk is made of: with another one, another disk is made.
    pub fn disk(
        &self,
        codename: &str,
        recipe: &str,
        make: impl Fn(&str, &Path, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        const DISK: &str = "disk.img";
        let name = format!("disk-{codename}");
        // Made for another recipe, so it is of no use, with or without a network.
        let complete = self.folder.join(&name).join(COMPLETE);
        if fs::read_to_string(&complete).is_ok_and(|made_for| made_for != recipe) {
            fs::remove_file(&complete)?;
        }
        let (folder, _) = self.part(&name, |apt, into| {
            fs::create_dir_all(into)?;
            make(&apt.sources_of(codename), into, &into.join(DISK))?;
            Ok(recipe.to_owned())
        })?;
        Ok(folder.join(DISK))
    }

    /// A part of the cache: its folder, and the word that `fetch` gave it. What is there and cannot be fetched anew is used
    /// as it is.
    fn part(&self, name: &str, fetch: impl Fn(&Apt, &Path) -> Result<String>) -> Result<(PathBuf, String)> {
        let folder = self.folder.join(name);
        let complete = folder.join(COMPLETE);
        let there = fs::read_to_string(&complete).ok();
        let fresh = fs::metadata(&complete)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < FRESH));
        if let Some(word) = there.as_ref().filter(|_| fresh && !self.refresh) {
            return Ok((folder, word.clone()));
        }
        let fetched = self.apt().and_then(|apt| {
            let new = self.folder.join(format!("{name}.new"));
            remove(&new)?;
            let word = fetch(apt, &new)?;
            fs::write(new.join(COMPLETE), &word)?;
            remove(&folder)?;
            fs::rename(&new, &folder)?;
            Ok(word)
        });
        match (fetched, there) {
            (Ok(word), _) => Ok((folder, word)),
            (Err(error), Some(word)) => {
                eprintln!("{error:#}; {} is used as it is", folder.display());
                Ok((folder, word))
            }
            (Err(error), None) => Err(error.context(format!(
                "{name} is not in the cache {} and cannot be fetched; with the network, run this again, or copy that folder \
                 from a machine where it ran",
                self.folder.display()
            ))),
        }
    }

    /// apt with fresh lists; asked once, also where it fails.
    fn apt(&self) -> Result<&Apt> {
        let apt = self.apt.get_or_init(|| {
            Apt::update(&self.folder.join(self.of_machines("apt")), self.arch).map_err(|error| format!("{error:#}"))
        });
        apt.as_ref().map_err(|reason| anyhow!("{reason}"))
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn folder() -> Result<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable(FOLDER_VARIABLE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("dlpm/kernels")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/dlpm/kernels")))
        .with_context(|| format!("there is no folder for the cache: set HOME or {FOLDER_VARIABLE}"))?;
    Ok(path::absolute(folder)?)
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use super::*;

    /// A cache in a folder of its own, whose network does not answer.
    fn offline(name: &str) -> Store {
        let folder = env::temp_dir().join(format!("dlpm-xtask-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Store {
            _lock: File::create(folder.join("lock")).unwrap(),
            folder,
            arch: Arch::Amd64,
            refresh: true,
            apt: OnceCell::from(Err("the network does not answer".to_owned())),
        }
    }

    #[test]
    fn without_the_network_the_cache_is_used() {
        let store = offline("cached");
        let kernel = store.folder.join("kernel-6.1");
        fs::create_dir_all(kernel.join("boot")).unwrap();
        fs::write(kernel.join("boot/vmlinuz-6.1.0-56"), "").unwrap();
        fs::write(kernel.join(COMPLETE), "6.1.0-56").unwrap();
        let found = store.kernel(&"6.1".parse().unwrap()).unwrap();
        assert_eq!(found.release, "6.1.0-56");
        assert_eq!(found.image, kernel.join("boot/vmlinuz-6.1.0-56"));
        fs::remove_dir_all(&store.folder).unwrap();
    }

    #[test]
    fn with_neither_it_says_what_to_do() {
        let store = offline("empty");
        let newest = "newest".parse().unwrap();
        let error = format!("{:#}", store.kernel(&newest).unwrap_err());
        for part in [
            "kernel-newest is not in the cache",
            "does not answer",
            "copy that folder",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // What was being fetched when the power went is not taken for a kernel.
        fs::create_dir_all(store.folder.join("kernel-newest/boot")).unwrap();
        assert!(store.kernel(&newest).is_err());
        fs::remove_dir_all(&store.folder).unwrap();
    }
}
