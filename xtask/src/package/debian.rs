//! The Debian package.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    program::Product,
    tree::{self, DEBIAN},
};
use crate::{
    process::{find_program, run_announced},
    targets::{Arch, OLDEST_GLIBC},
    workspace::Workspace,
};

/// The version of everything that is packaged.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What Debian wants to be told about licences.
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: dlpm

Files: *
Copyright: The dlpm developers
License: MIT or Apache-2.0

License: MIT
 The text is in the file LICENSE-MIT in this folder.

License: Apache-2.0
 The text is in the file LICENSE-APACHE in this folder.

Comment: The program contains the work of others. Their names, licences and texts are in the file THIRD-PARTY in this folder.
";

/// Makes the package in `output` and returns its path. `epoch_s` is the time of all its files.
pub fn build(workspace: &Workspace, product: &Product, output: &Path, epoch_s: u64) -> Result<PathBuf> {
    if find_program("dpkg-deb").is_none() {
        bail!("a Debian package is made by dpkg-deb, which is not here; make one on Debian, or use --archives");
    }
    let root = workspace.target().join("package/debian");
    tree::build(workspace, &root, &DEBIAN, product)?;
    compress(&root.join(DEBIAN.man))?;
    tree::put(&root.join(DEBIAN.doc).join("copyright"), COPYRIGHT.as_bytes())?;
    let arch = product.target.arch();
    let control_folder = root.join("DEBIAN");
    let installed_kib = size_kib(&root)?;
    tree::put(&control_folder.join("control"), control(arch, installed_kib).as_bytes())?;
    for name in ["postinst", "prerm", "postrm"] {
        let script = workspace.root().join("contrib/debian").join(name);
        let text = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
        put_script(&control_folder.join(name), &text)?;
    }

    let package = output.join(format!("dlpm_{VERSION}_{arch}.deb"));
    let mut command = Command::new("dpkg-deb");
    command
        .args(["--build", "--root-owner-group", "-Zxz"])
        .arg(&root)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", epoch_s.to_string());
    run_announced(&mut command)?;
    Ok(package)
}

fn put_script(path: &Path, text: &[u8]) -> Result<()> {
    tree::put(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

fn control(arch: Arch, installed_kib: u64) -> String {
    let [major, minor] = OLDEST_GLIBC;
    format!(
        "Package: dlpm\n\
         Version: {VERSION}\n\
         Architecture: {arch}\n\
         Maintainer: The dlpm developers <dlpm@localhost>\n\
         Installed-Size: {installed_kib}\n\
         Depends: libc6 (>= {major}.{minor})\n\
         Suggests: libnvidia-ml1\n\
         Section: utils\n\
         Priority: optional\n\
         Description: joules that each process, container and job really used\n \
         dlpm counts CPU time at every context switch with eBPF, reads energy meters (RAPL,\n \
         NVML), and splits what they counted in integers that add up to the meter. It writes\n \
         a JSON log that AIPowerMeter's reader understands and that `dlpm verify` can prove.\n"
    )
}

/// Manual pages are compressed in Debian.
fn compress(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        run_announced(Command::new("gzip").args(["--best", "--no-name"]).arg(entry?.path()))?;
    }
    Ok(())
}

fn size_kib(folder: &Path) -> Result<u64> {
    let mut kib = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        kib += if metadata.is_dir() {
            size_kib(&entry.path())?
        } else {
            metadata.len().div_ceil(1024)
        };
    }
    Ok(kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_for_its_processor() {
        let text = control(Arch::Arm64, 12);
        for line in [
            "Architecture: arm64\n",
            "Depends: libc6 (>= 2.28)\n",
            "Installed-Size: 12\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(control(Arch::Amd64, 12).contains("Architecture: amd64\n"));
    }
}
