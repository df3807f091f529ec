//! What `torch.save` wrote before version 1.6.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::fs;

use build::legacy_torch::file;
use dlpm_model::{self as model, ModelError, Options, Summary};

fn read(bytes: &[u8]) -> Result<Summary, ModelError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.pth");
    fs::write(&path, bytes).unwrap();
    model::read(&path, &Options::default())
}

const TENSORS: [(&str, &str, [u8; 2]); 4] = [
    ("a.weight", "FloatStorage", [4, 3]),
    ("b.weight", "HalfStorage", [2, 5]),
    ("bn.running_mean", "FloatStorage", [2, 2]),
    ("bn.num_batches_tracked", "LongStorage", [1, 1]),
];

#[test]
fn parameters_are_counted() {
    let summary = read(&file(&TENSORS)).unwrap();
    assert_eq!(
        (summary.counts.format, summary.counts.total_params),
        ("torch.save-legacy", 4 * 3 + 2 * 5)
    );
    assert_eq!(summary.mult_adds(), None);
    assert_eq!(summary.counts.trainable_params, None);
}

#[test]
fn texts_of_python_2_are_names() {
    let whole = file(&TENSORS);
    let at = whole.windows(5).position(|part| part == b"X\x0f\x00\x00\x00").unwrap();
    let short = [&whole[..at], b"U\x0f", &whole[at + 5..]].concat();
    assert_eq!(read(&short).unwrap().counts.total_params, 4 * 3 + 2 * 5);
}

#[test]
fn a_file_that_is_cut_off_or_of_another_kind_is_refused() {
    let whole = file(&TENSORS);
    for (bytes, why) in [
        (whole[..whole.len() - 1].to_vec(), "storages are longer than the file"),
        (whole[..200].to_vec(), "cut off"),
        (b"\x80\x02}q\x00.".to_vec(), "a pickle"),
    ] {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(why), "no `{why}` in {error}");
    }
    let version = whole.windows(3).position(|part| part == b"M\xe9\x03").unwrap();
    let mut other = whole;
    other[version + 1] = 0xea;
    assert!(read(&other).unwrap_err().to_string().contains("is not 1001"));
}
