//! What the targets share: bytes become the file of a model, or a file in it, and are read with everything that is counted.
//!
//! A panic, more than libFuzzer's limits of time and memory, or a file outside the folder of the model is a finding.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use dlpm_model::{Options, language::Settings, read};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Reads a model as a user who wants to see everything would, and as one who does not.
fn all(path: &Path) {
    let _ = read(path, &Options::default());
    let everything = Options {
        per_layer: true,
        modules: true,
        language: Settings {
            batches: vec![1, 7],
            contexts: vec![1, 100_000],
            ..Settings::default()
        },
        ..Options::default()
    };
    let _ = read(path, &everything);
}

/// Bytes as the file of a model.
pub fn file(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("model");
    fs::write(&path, bytes).expect("a file");
    all(&path);
}

/// Bytes as files in an archive, whose checksums are right: the targets are the readers of what is inside.
pub fn archive(files: &[(&str, &[u8])]) {
    let folder = folder();
    let path = folder.path().join("model");
    let mut writer = ZipWriter::new(File::create(&path).expect("a file"));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        writer.start_file(*name, options).expect("a name");
        writer.write_all(bytes).expect("a file");
    }
    writer.finish().expect("an archive");
    all(&path);
}

/// Bytes as files of a folder.
pub fn files(files: &[(&str, &[u8])]) {
    let folder = folder();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    all(folder.path());
}
