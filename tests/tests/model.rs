//! `dlpm model` against figures that others made: published models, and exports whose operations PyTorch counted.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use dlpm_model::{self as model, Options, Summary};
use dlpm_tests::{
    kernel::skip,
    model_files::{Published, archive, folder, safetensors},
};
use serde_json::Value;

/// Where downloads are kept between runs.
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

fn options(inputs: &[&str], values: &[&str]) -> Options {
    Options {
        inputs: inputs.iter().map(|text| text.parse().unwrap()).collect(),
        values: values.iter().map(|text| text.parse().unwrap()).collect(),
        per_layer: true,
        ..Options::default()
    }
}

/// Parameters, operations, and whether these are all.
#[track_caller]
fn sizes(summary: &Summary) -> (u64, Option<u64>, bool) {
    (
        summary.counts.total_params,
        summary.mult_adds(),
        !summary.is_lower_bound(),
    )
}

#[track_caller]
fn published(package: &'static str, file: &'static str, sha256: &'static str, options: &Options, expected: (u64, u64)) {
    let model = Published { package, file, sha256 };
    let path = match model.fetch(&Path::new(CACHE).join("models")) {
        Ok(path) => path,
        Err(reason) => return skip(&reason),
    };
    let summary = model::read(&path, options).unwrap();
    assert_eq!(sizes(&summary), (expected.0, Some(expected.1), true), "{file}");
    assert_eq!(summary.sha256.as_deref(), Some(sha256));
    let of_layers: u64 = summary
        .counts
        .tally
        .unwrap()
        .layers
        .iter()
        .map(|layer| layer.mult_adds)
        .sum();
    assert_eq!(of_layers, expected.1);
}

#[test]
fn resnet_50_of_onnx() {
    published(
        "onnx==1.23.2",
        "onnx/backend/test/data/light/light_resnet50.onnx",
        "05e77a5c9c9ce0913f549a50d6ebaced5e0ff6817b61e09bae26e4c5bd9055e4",
        &options(&[], &[]),
        (25_557_032, 4_089_184_256),
    );
}

#[test]
fn squeezenet_of_onnx() {
    published(
        "onnx==1.23.2",
        "onnx/backend/test/data/light/light_squeezenet.onnx",
        "770b0f3c8623e18bf58b53754d710051b4c268248422142980a132bbe6dfe908",
        &options(&["1,3,224,224"], &[]),
        (1_235_496, 349_151_936),
    );
}

#[test]
fn silero_whose_branch_depends_on_a_value() {
    let (package, file, sha256) = (
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    );
    let inputs = ["1,576", "state=2,1,128"];
    let with_value = options(&inputs, &["sr=16000"]);
    published(package, file, sha256, &with_value, (309_633, 679_552));
    // Without the value, the error names what lacks.
    let model = Published { package, file, sha256 };
    if let Ok(path) = model.fetch(&Path::new(CACHE).join("models")) {
        let error = model::read(&path, &options(&inputs, &[])).unwrap_err().to_string();
        assert!(
            error.contains("--value NAME=NUMBER") && error.ends_with("inputs sr"),
            "{error}"
        );
    }
}

#[test]
fn text_detector_with_dynamic_dimensions() {
    published(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        &options(&["1,3,320,320"], &[]),
        (1_171_617, 575_567_744),
    );
}

/// The figures of PyTorch that `export.py` wrote beside the models.
fn figures() -> Value {
    serde_json::from_slice(&fs::read(folder().join("figures.json")).unwrap()).unwrap()
}

#[test]
fn exports_have_the_operations_that_pytorch_counts() {
    let figures = figures();
    for (name, formats) in [
        ("encoder", &["onnx", "pt2"][..]),
        ("dynamic", &["onnx", "pt2"]),
        ("recurrent", &["pt2"]),
    ] {
        let of_model = &figures[name];
        for pass in of_model["passes"].as_array().unwrap() {
            let inputs = pass["inputs"].as_array().unwrap().iter().map(|dims| {
                let dims: Vec<String> = dims.as_array().unwrap().iter().map(Value::to_string).collect();
                dims.join(",").parse().unwrap()
            });
            let options = Options {
                inputs: inputs.collect(),
                ..Options::default()
            };
            for format in formats {
                let path = folder().join(format!("{name}.{format}"));
                let summary = model::read(&path, &options).unwrap();
                let (params, mult_adds, complete) = sizes(&summary);
                assert_eq!(
                    (mult_adds, complete),
                    (pass["mult_adds"].as_u64(), true),
                    "{name}.{format}"
                );
                if *format == "pt2" {
                    assert_eq!(Some(params), of_model["total_params"].as_u64(), "{name}");
                    assert_eq!(
                        summary.counts.trainable_params,
                        of_model["trainable_params"].as_u64(),
                        "{name}"
                    );
                }
            }
        }
    }
}

/// The constants of an exported ONNX file are not one to one the parameters of the model: see docs/model.md.
#[test]
fn parameters_of_exported_onnx_files() {
    for (name, inputs, expected) in [
        ("encoder", &[][..], 4448 + 1),
        ("dynamic", &["2,3,16,20", "2,9"], 560 + 60 - 16),
    ] {
        let path = folder().join(format!("{name}.onnx"));
        let summary = model::read(&path, &options(inputs, &[])).unwrap();
        assert_eq!(summary.counts.total_params, expected, "{name}");
        assert_eq!(summary.counts.trainable_params, None);
    }
}

#[test]
fn a_dimension_that_is_open_is_named() {
    for (format, names) in [("onnx", ["0 (`", "2 (`", "3 (`"]), ("pt2", ["0 (`", "2 (`", "3 (`"])] {
        let path = folder().join(format!("dynamic.{format}"));
        let error = model::read(&path, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("open in the inputs `image`"), "{error}");
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
        assert!(error.contains("fix with --dim s40=N --dim s4=N"), "{error}");
    }
}

fn write(directory: &tempfile::TempDir, name: &str, contents: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}

#[test]
fn weights_without_a_program_have_parameters_only() {
    let directory = tempfile::tempdir().unwrap();
    let header = r#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
        "bn.running_mean":{"dtype":"F32","shape":[4],"data_offsets":[24,40]},"n":{"dtype":"I64","shape":[1],"data_offsets":[40,48]}}"#;
    let path = write(&directory, "a.safetensors", &safetensors(header, 48));
    let summary = model::read(&path, &Options::default()).unwrap();
    assert_eq!(sizes(&summary), (6, None, true));
    let json = summary.to_json();
    assert_eq!(json["total_mult_adds"], Value::Null);
    assert_eq!(json["dlpm"]["format"], "safetensors");
    assert!(json["dlpm"].get("unsupported_ops").is_none());

    // torch.save({"w": torch.zeros(2, 3), "twice": the same}), as Python's pickle writes it.
    let tensor =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\
        K\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR";
    let mut pickle = b"\x80\x02}(X\x01\0\0\0w".to_vec();
    pickle.extend_from_slice(tensor);
    pickle.extend_from_slice(b"X\x05\0\0\0twice");
    pickle.extend_from_slice(tensor);
    pickle.extend_from_slice(b"u.");
    let path = write(&directory, "a.pt", &archive(&[("a/data.pkl", &pickle)]));
    let summary = model::read(&path, &Options::default()).unwrap();
    assert_eq!(sizes(&summary), (6, None, true));
    assert_eq!(summary.counts.trainable_params, None);
}

#[test]
fn the_file_has_the_form_of_aipowermeter() {
    let path = folder().join("dynamic.pt2");
    let json = model::read(&path, &options(&["2,3,16,20", "2,9"], &[]))
        .unwrap()
        .to_json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "input_size",
            "total_params",
            "trainable_params",
            "total_input",
            "total_mult_adds",
            "dlpm"
        ]
    );
    assert_eq!(json["input_size"], serde_json::json!([[2, 3, 16, 20], [2, 9]]));
    assert_eq!(json["total_input"], 2 * 3 * 16 * 20 * 4 + 2 * 9 * 8);
    assert_eq!(json["total_params"], 560);
    assert_eq!(json["trainable_params"], 540);
    assert_eq!(json["dlpm"]["lower_bound"], false);
    assert_eq!(json["dlpm"]["per_op"]["aten.conv2d"]["runs"], 2);
    assert_eq!(json["dlpm"]["source"], "dynamic.pt2");
    assert_eq!(json["dlpm"]["unsupported_ops"], serde_json::json!([]));

    let json = model::read(&folder().join("encoder.onnx"), &Options::default())
        .unwrap()
        .to_json();
    assert_eq!(json["input_size"], serde_json::json!([2, 7, 16]));
}
