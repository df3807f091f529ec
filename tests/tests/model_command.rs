//! `dlpm model` and `dlpm trace --model` as commands.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use dlpm_tests::{
    command::{Dlpm, NOBODY, give, world_readable},
    log::{LOG_NAME, Log},
    model_files::folder,
    require_dlpm,
};
use serde_json::Value;

fn model(name: &str) -> Dlpm {
    Dlpm::new(["model"]).arg(folder().join(name))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A copy that everybody may read, whoever owns the repository.
fn copy(name: &str, directory: &tempfile::TempDir) -> PathBuf {
    let path = world_readable(directory).path().join(name);
    fs::copy(folder().join(name), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

#[test]
fn a_model_as_a_table() {
    require_dlpm!();
    let dynamic = model("dynamic.pt2").args(["--input", "2,3,16,20", "--input", "words=2,9", "--per-layer"]);
    let text = dynamic.run().exited(0).stdout;
    for part in [
        "dynamic.pt2 (pt2, ",
        "image  float32  2×3×16×20",
        "parameters       560",
        "of them trained  540",
        "multiply-adds    144888 (144.888 k)",
        "aten.conv2d",
        "conv_transpose2d  aten.conv_transpose2d",
        "FlopCounterMode divided by 2",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[test]
fn a_model_as_json_and_in_a_folder() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("log");
    fs::create_dir(&output).unwrap();
    fs::write(output.join(LOG_NAME), "not touched").unwrap();
    let run = model("encoder.onnx")
        .args(["--format", "json", "--output"])
        .arg(&output);
    let printed = run.run().exited(0).stdout;
    let written = json(&output.join("model_summary.json"));
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), written);
    assert_eq!(written["total_mult_adds"], 63_616);
    assert_eq!(fs::read_to_string(output.join(LOG_NAME)).unwrap(), "not touched");
}

#[test]
fn a_model_is_read_and_written_as_the_calling_user() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let path = copy("encoder.onnx", &directory);
    let mine = directory.path().join("mine");
    fs::create_dir(&mine).unwrap();
    give(&mine, NOBODY);
    let run = || Dlpm::new(["model"]).arg(&path).through_sudo_of(NOBODY).arg("--output");
    run().arg(&mine).run().exited(0);
    assert_eq!(fs::metadata(mine.join("model_summary.json")).unwrap().uid(), NOBODY);

    let roots = directory.path().join("roots");
    fs::create_dir(&roots).unwrap();
    run()
        .arg(&roots)
        .run()
        .fails(1, &["model_summary.json", "Permission denied", "--output"]);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    run().arg(&mine).run().fails(1, &["encoder.onnx", "Permission denied"]);
}

#[test]
fn a_model_that_cannot_be_read_is_an_error_with_a_next_step() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    let whole = fs::read(folder().join("encoder.onnx")).unwrap();
    for (path, parts) in [
        (directory.path().join("none.onnx"), &["none.onnx", "No such file"][..]),
        (directory.path().to_owned(), &["is not a regular file"]),
        (file("empty", b""), &["it is empty", "export it as ONNX"]),
        (file("a.py", b"# text"), &["is text, and not a model"]),
        (
            file(
                "lfs.onnx",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
            ),
            &["is a Git LFS pointer", "git lfs pull"],
        ),
        (file("a.h5", b"\x89HDF\r\n\x1a\n"), &["is HDF5", "tf2onnx"]),
        (
            file("a.onnx.gz", b"\x1f\x8b\x08"),
            &["compressed with gzip", "unpack it"],
        ),
        (file("a.pkl", b"\x80\x02}q\x00."), &["it is a pickle"]),
        (file("half.onnx", &whole[..whole.len() / 2]), &["cut off"]),
        (file("a.zip", b"PK\x03\x04"), &["is not a valid model, or is cut off"]),
    ] {
        Dlpm::new(["model"]).arg(path).run().fails(1, parts);
    }
    // What dlpm says comes once.
    let said = Dlpm::new(["model"])
        .arg(directory.path().join("none.onnx"))
        .run()
        .exited(1)
        .stderr;
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    model("dynamic.onnx").run().fails(
        1,
        &[
            "open in the inputs `image`: 0 (`s40`)",
            "fix with --dim s40=N --dim s4=N",
        ],
    );
    let wrong = model("encoder.onnx").args(["--input", "2,7,17"]);
    wrong
        .run()
        .fails(1, &["dimension 2 is 17, but the file fixes it to 16"]);
    let refused = model("encoder.onnx").args(["--input", "2,,17"]).run().exited(2);
    assert!(refused.stderr.contains("is not a dimension"), "{}", refused.stderr);
}

#[test]
fn a_traced_model_lies_beside_the_log() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("log");
    let path = copy("dynamic.onnx", &directory);
    let trace = |inputs: &[&str]| Dlpm::trace(&output).arg("--model").arg(&path).args(inputs);

    // Before anything starts.
    let marker = directory.path().join("started");
    let open = trace(&[]).args(["--", "/bin/touch"]).arg(&marker);
    open.run().fails(125, &["open in the inputs `image`", "dynamic.onnx"]);
    assert!(!marker.exists() && !output.exists());

    let inputs = ["--input", "3,3,33,14", "--input", "3,5"];
    trace(&inputs).args(["--", "/bin/true"]).run().exited(0);
    let summary = json(&output.join("model_summary.json"));
    assert_eq!(summary["total_mult_adds"], 261_180);
    assert_eq!(summary["dlpm"]["source"], "dynamic.onnx");
    Log::read(&output).is_complete();

    let without = Dlpm::trace(&output).args(["--append", "--input", "1,2", "--", "/bin/true"]);
    without.run().exited(2);
}
