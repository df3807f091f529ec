//! The disks of a node: the system, which is made once and copied; the test, a tar that is read as a disk; and an empty one
//! that becomes a tar with what the node leaves.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    kernels::store::Kernel,
    process::{as_root, find_program, run, run_announced},
    toolchain::install::apt_install,
    workspace::Workspace,
};

/// The release of Debian that is on the disk.
pub const CODENAME: &str = "bookworm";

/// The kernel that it boots, whose driver for disks and whose ext4 are built in, so that it needs no initramfs.
pub const SERIES: &str = "6.1";

/// Room for what a node leaves, in bytes.
const OUT_BYTES: u64 = 256 << 20;

/// What the disk of the system is made of: its files, and the kernel whose modules are on it.
pub fn recipe(workspace: &Workspace, kernel: &Kernel) -> Result<String> {
    let folder = workspace.root().join("tests/node");
    let mut recipe = format!("{}\n", kernel.release);
    for place in [&folder.join("packages"), &folder.join("build.sh"), &folder.join("root")] {
        append(place, &folder, &mut recipe)?;
    }
    Ok(recipe)
}

fn append(path: &Path, above: &Path, recipe: &mut String) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        return paths.iter().try_for_each(|path| append(path, above, recipe));
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.strip_prefix(above)?.display();
    recipe.push_str(&format!("{name}: {} bytes\n{text}\n", text.len()));
    Ok(())
}

/// Makes the disk of the system in `image`, with packages from `sources`; `folder` is for what lies beside it.
pub fn make_disk(workspace: &Workspace, kernel: &Kernel, sources: &str, folder: &Path, image: &Path) -> Result<()> {
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")] {
        // The second is in a folder that only root's search path has.
        if find_program(program).is_none() && !Path::new("/usr/sbin").join(program).exists() {
            apt_install(&[package])?;
        }
    }
    let list = folder.join("sources.list");
    fs::write(&list, sources)?;
    let modules = modules(kernel)?;
    let owner = fs::metadata(folder)?;
    run_announced(
        as_root("sh")?
            .arg(workspace.root().join("tests/node/build.sh"))
            .arg(folder.join("tree"))
            .arg(&list)
            .arg(modules)
            .arg(&kernel.release)
            .arg(image)
            .arg(format!("{}:{}", owner.uid(), owner.gid())),
    )
    .context("the disk of the node could not be made")
}

/// The modules in the unpacked packages of a kernel.
fn modules(kernel: &Kernel) -> Result<PathBuf> {
    let release = format!("lib/modules/{}", kernel.release);
    let above = kernel.image.ancestors().skip(1);
    let mut places = above.flat_map(|folder| [folder.join(&release), folder.join("usr").join(&release)]);
    places
        .find(|place| place.is_dir())
        .with_context(|| format!("the packages of {} hold no modules", kernel.release))
}

/// The disks of one node, in a folder.
#[derive(Debug)]
pub struct Disks {
    /// The system.
    pub system: PathBuf,
    /// The test.
    pub test: PathBuf,
    /// What it leaves.
    pub out: PathBuf,
}

impl Disks {
    /// Those of the node of this name.
    pub fn in_folder(folder: &Path, name: &str) -> Self {
        let path = |end: &str| folder.join(format!("{name}-{end}"));
        Self {
            system: path("system.img"),
            test: path("test.tar"),
            out: path("out.tar"),
        }
    }

    /// A fresh copy of the system.
    pub fn copy_system(&self, from: &Path) -> Result<()> {
        run(Command::new("cp").arg("--sparse=always").arg(from).arg(&self.system))
    }

    /// What is in these folders becomes the test, and what was left before is emptied.
    pub fn put_test(&self, folders: &[&Path]) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&self.test);
        for folder in folders {
            tar.arg("-C").arg(folder).arg(".");
        }
        run(&mut tar)?;
        // A disk ends with a whole block, with room for the end of the tar.
        let test = File::options().write(true).open(&self.test)?;
        test.set_len(test.metadata()?.len().next_multiple_of(1 << 20))?;
        let out = File::create(&self.out)?;
        out.set_len(OUT_BYTES)?;
        Ok(())
    }

    /// Unpacks what the node left.
    pub fn unpack_out(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        run(Command::new("tar").arg("-C").arg(folder).arg("-xf").arg(&self.out))
    }
}
