//! Which zones the powercap tree has: by their names, never by their numbers, and each once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::vendor::Vendor;
use crate::interval::ZoneKind;

/// What a zone of the tree covers. Two directories with the same key are the same counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ZoneKey {
    /// `None` for psys, which comes last.
    pub package: PackageOrder,
    pub kind: ZoneKind,
    /// `None` if a package has one zone for all its dies.
    pub die: Option<u32>,
}

/// Packages in order, then what belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PackageOrder {
    Package(u32),
    None,
}

impl ZoneKey {
    pub fn package(self) -> Option<u32> {
        match self.package {
            PackageOrder::Package(package) => Some(package),
            PackageOrder::None => None,
        }
    }

    /// The zone's name in the log; dies of a package are one zone there.
    pub fn zone_name(self) -> String {
        zone_name(self.kind, self.package())
    }
}

/// Name in the log.
pub(super) fn zone_name(kind: ZoneKind, package: Option<u32>) -> String {
    match (kind, package) {
        (ZoneKind::Package, Some(package)) => format!("package-{package}"),
        (ZoneKind::Dram, Some(package)) => format!("dram-{package}"),
        (ZoneKind::SingleCore, Some(package)) => format!("package-{package}/single-core"),
        (kind, Some(package)) => format!("package-{package}/{}", kind.as_str()),
        (kind, None) => kind.as_str().to_owned(),
    }
}

/// Name in the log of the zone of one core.
pub(super) fn core_zone_name(package: u32, core: u32) -> String {
    format!("package-{package}/core-{core}")
}

/// Directories with an energy counter by what they cover.
pub(super) type Directories = BTreeMap<ZoneKey, Vec<PathBuf>>;

/// Directories with an energy counter by what they cover, and what is there and not counted, a sentence each.
///
/// The same counter can be listed twice: by the MSR and the MMIO driver on client Intel (the names are the same), or by
/// a package and its dies. Whole packages win. Of directories with the same name the first is the one to read, in the
/// order MSR driver, lowest number; each of the others can take its place.
///
/// # Errors
///
/// Where the directory of the tree cannot be listed.
pub(super) fn find(root: &Path, vendor: Vendor) -> io::Result<(Directories, Vec<String>)> {
    let (names, mut notes) = list(root)?;
    let mut found = Directories::new();
    let mut ids: Vec<&str> = names.keys().map(String::as_str).collect();
    ids.sort_by_cached_key(|id| (!id.starts_with("intel-rapl:"), numbers_of(id), (*id).to_owned()));
    for id in ids {
        let name = &names[id];
        match classify(id, name, &names, vendor) {
            Err(reason) => notes.push(format!("{id} ({name}) is not counted: {reason}")),
            Ok(key) => found.entry(key).or_default().push(root.join(id)),
        }
    }
    let whole: BTreeSet<_> = found
        .keys()
        .filter(|key| key.die.is_none())
        .map(|key| (key.package, key.kind))
        .collect();
    found.retain(|key, directories| {
        let keep = key.die.is_none() || !whole.contains(&(key.package, key.kind));
        if !keep {
            notes.extend(directories.iter().map(|directory| {
                format!(
                    "{} is not counted: it is a die of a package that has a zone of its own",
                    id_of(directory)
                )
            }));
        }
        keep
    });
    Ok((found, notes))
}

/// A zone's directory without the way to it.
pub(super) fn id_of(directory: &Path) -> String {
    directory
        .file_name()
        .map_or_else(String::new, |id| id.to_string_lossy().into_owned())
}

/// Whether the entries of a directory are links that lead nowhere.
pub(super) fn are_dangling(root: &Path) -> bool {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let leads_nowhere = |path: PathBuf| path.is_symlink() && !path.exists();
    entries.map(|entry| entry.path()).any(leads_nowhere)
}

/// Directory names of all zones with an energy counter and what their `name` files say.
fn list(root: &Path) -> io::Result<(BTreeMap<String, String>, Vec<String>)> {
    let mut names = BTreeMap::new();
    let mut notes = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let name = fs::read_to_string(path.join("name"));
        let counts = path.join("energy_uj").try_exists().unwrap_or(true);
        match name {
            Ok(name) if counts => {
                names.insert(id, name.trim().to_owned());
            }
            Ok(name) => notes.push(format!(
                "{id} ({}) is not counted: it has no energy counter",
                name.trim()
            )),
            Err(error) if counts => notes.push(format!("{id} is not counted: its name cannot be read: {error}")),
            // A control type (`intel-rapl`) holds zones and is none itself.
            Err(_) => {}
        }
    }
    Ok((names, notes))
}

fn classify(id: &str, name: &str, names: &BTreeMap<String, String>, vendor: Vendor) -> Result<ZoneKey, String> {
    let kind = match name {
        "psys" => {
            return Ok(ZoneKey {
                package: PackageOrder::None,
                kind: ZoneKind::Psys,
                die: None,
            });
        }
        // MSR_AMD_CORE_ENERGY_STATUS belongs to a core, and the driver reads it on one CPU of the package.
        "core" if vendor == Vendor::Amd => ZoneKind::SingleCore,
        "core" => ZoneKind::Core,
        "uncore" => ZoneKind::Uncore,
        "dram" => ZoneKind::Dram,
        _ => {
            return match package_of(name) {
                Some((package, die)) => Ok(ZoneKey {
                    package: PackageOrder::Package(package),
                    kind: ZoneKind::Package,
                    die,
                }),
                None => Err("dlpm does not know what a zone of this name covers".to_owned()),
            };
        }
    };
    let parent = id.rsplit_once(':').map_or("", |(parent, _)| parent);
    match names.get(parent).map(|name| (name, package_of(name))) {
        Some((_, Some((package, die)))) => Ok(ZoneKey {
            package: PackageOrder::Package(package),
            kind,
            die,
        }),
        Some((name, None)) => Err(format!("it is part of {parent} ({name}), which is not a package")),
        None => Err("it is not part of a package".to_owned()),
    }
}

/// `package-1` → (1, None); `package-0-die-1` → (0, Some(1)).
fn package_of(name: &str) -> Option<(u32, Option<u32>)> {
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        digits.parse().ok()
    };
    let rest = name.strip_prefix("package-")?;
    match rest.split_once("-die-") {
        Some((package, die)) => Some((number(package)?, Some(number(die)?))),
        None => Some((number(rest)?, None)),
    }
}

/// `intel-rapl:0:a` → [0, 10]: the kernel writes zone numbers in hexadecimal.
fn numbers_of(id: &str) -> Vec<u32> {
    id.split(':')
        .filter_map(|part| u32::from_str_radix(part, 16).ok())
        .collect()
}
