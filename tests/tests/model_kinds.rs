//! Kinds of model files that people have: weights beside the file, checkpoints with an optimizer, rare types, operators in any
//! order, loops that would take minutes, modules under their names.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::PathBuf};

use dlpm_model::{self as model, ModelError, Options, Summary};
use dlpm_tests::{
    command::Dlpm,
    model_files::{archive, checkpoint, pt2},
    onnx_build::{
        DataType,
        Dim::{Is, Named},
        GraphProto, NodeProto, external, graph_attribute, int, int_constant, model as onnx, model_of, names, node,
        value, weights,
    },
    require_dlpm,
};
use serde_json::json;

fn read_as(name: &str, bytes: &[u8], options: &Options) -> Result<Summary, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    model::read(&path, options)
}

fn read(bytes: &[u8]) -> Summary {
    read_as("model", bytes, &Options::default()).unwrap()
}

fn matmul(left: &str, right: &str, output: &str) -> NodeProto {
    node("MatMul", &[left, right], &[output], vec![])
}

/// `y = x × w`, 2×3 and 3×4.
fn product() -> GraphProto {
    GraphProto {
        node: vec![matmul("x", "w", "y")],
        input: vec![value("x", DataType::FLOAT, &[Is(2), Is(3)])],
        output: names(&["y"]),
        initializer: vec![weights("w", &[3, 4], true)],
        ..GraphProto::default()
    }
}

#[test]
fn files_beside_the_model_are_listed_with_their_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let of = |location: &str| {
        let mut graph = product();
        graph.initializer = vec![external("w", &[3, 4], location, 64, 48)];
        fs::write(&path, onnx(graph)).unwrap();
        model::read(&path, &Options::default())
    };
    let missing = of("weights.bin").unwrap();
    let [file] = missing.counts.external.as_slice() else {
        panic!("{missing:?}")
    };
    assert_eq!(
        (file.name.as_str(), file.needed_bytes, file.file_bytes),
        ("weights.bin", Some(112), None)
    );
    assert!(
        missing.counts.notes.iter().any(|note| note.contains("weights.bin")),
        "{missing:?}"
    );
    // Operations and parameters do not depend on it.
    assert_eq!((missing.counts.total_params, missing.mult_adds()), (12, Some(24)));

    fs::write(folder.path().join("weights.bin"), [0; 111]).unwrap();
    let short = of("weights.bin").unwrap();
    assert_eq!(short.counts.external[0].file_bytes, Some(111));
    assert!(
        short.counts.notes.iter().any(|note| note.contains("weights.bin")),
        "{short:?}"
    );
    fs::write(folder.path().join("weights.bin"), [0; 112]).unwrap();
    let whole = of("weights.bin").unwrap();
    assert!(
        !whole.counts.notes.iter().any(|note| note.contains("weights.bin")),
        "{whole:?}"
    );
    assert_eq!(whole.to_json()["dlpm"]["external_data"][0]["needed_bytes"], 112);

    for outside in ["../weights.bin", "/etc/passwd", "a/../../b"] {
        let error = of(outside).unwrap_err().to_string();
        assert!(error.contains("which is not in the folder of the model"), "{error}");
    }
}

#[test]
fn operators_may_stand_in_any_order() {
    let mut graph = product();
    graph.node = vec![
        matmul("b", "w", "y"),
        matmul("a", "v", "b"),
        node("Relu", &["x"], &["a"], vec![]),
    ];
    graph.initializer.push(weights("v", &[3, 3], true));
    let summary = read(&onnx(graph));
    assert_eq!(summary.mult_adds(), Some(2 * 3 * 3 + 2 * 3 * 4));
    assert!(!summary.is_lower_bound());
}

/// A loop of 10,000 turns, whose body is `nodes` and makes `next` of `carried`.
fn loop_of(nodes: Vec<NodeProto>, change: impl Fn(&mut GraphProto)) -> Vec<u8> {
    let mut body = GraphProto {
        node: nodes,
        input: names(&["turn", "condition", "carried"]),
        output: names(&["goes_on", "next"]),
        ..GraphProto::default()
    };
    body.node.push(node("Identity", &["condition"], &["goes_on"], vec![]));
    change(&mut body);
    let mut graph = product();
    graph.node = vec![node(
        "Loop",
        &["n", "", "x"],
        &["y"],
        vec![graph_attribute("body", body)],
    )];
    graph.initializer = vec![int_constant("n", &[], &[10_000])];
    onnx(graph)
}

/// Each of these would be read for minutes, if what a turn costs had no limit.
#[test]
fn the_work_of_loops_has_a_limit() {
    let relu = || vec![node("Relu", &["carried"], &["next"], vec![])];
    let inputs = vec!["carried"; 20_000];
    for (what, bytes) in [
        ("inputs", loop_of(vec![node("Sum", &inputs, &["next"], vec![])], |_| {})),
        (
            "constants",
            loop_of(relu(), |body| {
                body.initializer = (0..2_000).map(|at| weights(&format!("c{at}"), &[1], true)).collect();
            }),
        ),
        (
            "descriptions",
            loop_of(relu(), |body| {
                let described = (0..20_000).map(|at| value(&format!("v{at}"), DataType::FLOAT, &[Is(1)]));
                body.value_info = described.collect();
            }),
        ),
    ] {
        let error = read_as("model", &bytes, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("have more than 4000000"), "{what}: {error}");
    }
    // As many turns of a small body are counted; what a turn kept is gone after it.
    let small = loop_of(relu(), |body| {
        body.initializer = (0..20).map(|at| weights(&format!("c{at}"), &[1], true)).collect();
    });
    assert_eq!(read(&small).mult_adds(), Some(0));
}

#[test]
fn each_item_of_a_sequence_is_counted() {
    let body = GraphProto {
        node: vec![matmul("item", "w", "made")],
        input: names(&["item"]),
        output: names(&["made"]),
        ..GraphProto::default()
    };
    let mut graph = product();
    graph.node = vec![
        node("SplitToSequence", &["x", "parts"], &["items"], vec![int("axis", 0)]),
        node("SequenceMap", &["items"], &["all"], vec![graph_attribute("body", body)]),
        node("ConcatFromSequence", &["all"], &["joined"], vec![int("axis", 0)]),
        matmul("joined", "v", "y"),
    ];
    graph.input = vec![value("x", DataType::FLOAT, &[Is(7), Is(3)])];
    graph.initializer.push(weights("v", &[4, 5], true));
    graph.initializer.push(int_constant("parts", &[3], &[1, 4, 2]));
    let summary = read(&onnx(graph));
    assert_eq!(summary.mult_adds(), Some(7 * 3 * 4 + 7 * 4 * 5));
    assert!(!summary.is_lower_bound());
}

/// In version 8, everything is a batch: 2 sequences of 7 steps, each a row of 3.
#[test]
fn a_scan_of_version_8_counts_each_step_of_each_sequence() {
    let body = GraphProto {
        node: vec![
            node(
                "Unsqueeze",
                &["row"],
                &["r"],
                vec![dlpm_tests::onnx_build::ints("axes", &[0])],
            ),
            matmul("r", "w", "made"),
        ],
        input: names(&["row"]),
        output: names(&["made"]),
        ..GraphProto::default()
    };
    let scan = vec![int("num_scan_inputs", 1), graph_attribute("body", body)];
    let mut graph = product();
    graph.node = vec![node("Scan", &["", "x"], &["all"], scan), matmul("all", "v", "y")];
    graph.input = vec![value("x", DataType::FLOAT, &[Is(2), Is(7), Is(3)])];
    graph.initializer.push(weights("v", &[4, 5], true));
    let summary = read(&model_of(graph, 8));
    // The result is 2×7×1×4.
    assert_eq!(summary.mult_adds(), Some(2 * 7 * 3 * 4 + 2 * 7 * 4 * 5));
}

#[test]
fn a_vector_on_which_a_size_depends_is_given_by_its_values() {
    let mut graph = product();
    graph.node = vec![
        node("Expand", &["x", "size"], &["wide"], vec![]),
        matmul("wide", "w", "y"),
    ];
    graph.input = vec![
        value("x", DataType::FLOAT, &[Is(1), Is(3)]),
        value("size", DataType::INT64, &[Named("rank")]),
    ];
    let bytes = onnx(graph);
    let options = Options {
        values: vec!["size=6,1,3".parse().unwrap()],
        ..Options::default()
    };
    let summary = read_as("model", &bytes, &options).unwrap();
    assert_eq!(summary.mult_adds(), Some(6 * 3 * 4));
    assert_eq!(summary.to_json()["dlpm"]["values"], json!({ "size": [6, 1, 3] }));
    let options = Options {
        inputs: vec!["size=2".parse().unwrap()],
        ..options
    };
    let error = read_as("model", &bytes, &options).unwrap_err().to_string();
    assert!(error.contains("`size` is 2, which is not for 3 values"), "{error}");
}

#[test]
fn of_a_checkpoint_the_model_counts() {
    for (key, beside, why) in [
        ("net", "optimizer", "the state of an optimizer"),
        ("module", "optimizer_states", "the state of an optimizer"),
        ("model_state", "optim", "the state of an optimizer"),
        ("params", "params_ema", "a moving average of the parameters"),
        ("state_dict", "model_ema", "a moving average of the parameters"),
    ] {
        let pickle = checkpoint(&[
            (key, &[("a.weight", "FloatStorage", &[2, 3])]),
            (beside, &[("b", "FloatStorage", &[5])]),
        ]);
        let summary = read(&archive(&[("a/data.pkl", &pickle)]));
        assert_eq!(summary.counts.total_params, 6, "{key}");
        let left_out: Vec<_> = summary.counts.weights.left_out.iter().collect();
        let [(found, sum)] = left_out.as_slice() else {
            panic!("{key}: {left_out:?}")
        };
        assert_eq!((found.text(), sum.elements), (why, 5), "{key}");
    }
}

/// Floats of all widths, complex and quantised ones count; integers are listed; of an unknown type, the number is a lower
/// bound.
#[test]
fn tensors_of_rare_kinds_are_counted_or_listed() {
    let of = |storage: &str| {
        let pickle = checkpoint(&[("model", &[("a", storage, &[2, 3]), ("b", "FloatStorage", &[1])])]);
        read(&archive(&[("a/data.pkl", &pickle)]))
    };
    for counted in [
        "ComplexFloatStorage",
        "BFloat16Storage",
        "QInt8Storage",
        "DoubleStorage",
        "HalfStorage",
    ] {
        let summary = of(counted);
        assert_eq!(summary.counts.total_params, 7, "{counted}");
        assert!(!summary.is_lower_bound(), "{counted}");
    }
    let integers = of("LongStorage");
    assert_eq!(integers.counts.total_params, 1);
    assert!(
        integers
            .counts
            .weights
            .left_out
            .keys()
            .any(|why| why.text() == "integers or truth values")
    );
    let unknown = of("Float3Storage");
    assert!(
        unknown.is_lower_bound() && unknown.counts.total_params == 1,
        "{unknown:?}"
    );
}

/// Rows of 8 in groups, each with a matrix of its own.
fn grouped(module: &str) -> Vec<u8> {
    pt2(
        &[("_grouped_mm.default", &["x", "w", "offsets"], "y", module)],
        &[("x", &[8, 16]), ("w", &[2, 16, 32]), ("offsets", &[2]), ("y", &[8, 32])],
        &[("experts.weight", "w")],
    )
}

#[test]
fn grouped_products_count_each_row_once() {
    let summary = read(&grouped("experts"));
    assert_eq!(summary.mult_adds(), Some(8 * 16 * 32));
    assert_eq!(summary.counts.total_params, 2 * 16 * 32);
    assert!(!summary.is_lower_bound());
}

#[test]
fn modules_under_the_names_of_their_author() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let show = |path: &PathBuf, options: &[&str]| Dlpm::new(["model"]).arg(path).args(options).run().exited(0).stdout;
    let two = pt2(
        &[
            ("linear.default", &["x", "a"], "h", "layers.0.up"),
            ("linear.default", &["h", "b"], "y", "layers.1.down"),
        ],
        &[
            ("x", &[5, 4]),
            ("a", &[6, 4]),
            ("b", &[2, 6]),
            ("h", &[5, 6]),
            ("y", &[5, 2]),
        ],
        &[("layers.0.up.weight", "a"), ("layers.1.down.weight", "b")],
    );
    let path = write("two.pt2", &two);
    let tree = show(&path, &["--modules"]);
    for row in [
        "(model) 36 180 100.00 %",
        "  layers 36 180 100.00 %",
        "    0 24 120 66.67 %",
        "      up 24 120 66.67 %",
        "      down 12 60 33.33 %",
    ] {
        let is_it = |line: &&str| {
            let indent = line.len() - line.trim_start().len();
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{}{}", " ".repeat(indent), words.join(" ")) == row
        };
        assert!(tree.lines().any(|line| is_it(&line)), "no `{row}` in:\n{tree}");
    }
    let top = show(&path, &["--modules", "--top", "1", "--per-layer"]);
    assert!(top.contains("(model)") && !top.contains("layers.0  "), "{top}");
    // Modules, and layers.
    assert_eq!(
        (top.matches("and 5 more").count(), top.matches("and 1 more").count()),
        (1, 1),
        "{top}"
    );

    // Without names of modules in the program, only the parameters are known of each.
    let unnamed = show(&write("unnamed.pt2", &grouped("")), &["--modules"]);
    let row = unnamed.lines().find(|line| line.trim().starts_with("experts")).unwrap();
    assert!(row.contains("1024") && row.contains("not known"), "{unnamed}");
    // The types of the weights are shown once, as text and as JSON.
    assert_eq!(unnamed.matches("bits per element").count(), 1, "{unnamed}");
    let json = show(&path, &["--modules", "--format", "json"]);
    assert_eq!(json.matches("\"weights\"").count(), 1, "{json}");
}

#[test]
fn a_lower_bound_exits_with_3() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let mut graph = product();
    graph.node = vec![
        matmul("x", "w", "h"),
        node("NonZero", &["h"], &["n"], vec![]),
        matmul("n", "n", "y"),
    ];
    let path = folder.path().join("open.onnx");
    fs::write(&path, onnx(graph)).unwrap();
    let run = Dlpm::new(["model"]).arg(&path).run().exited(3);
    assert!(run.stdout.contains("at least 24"), "{}", run.stdout);
    // Nothing could be counted: no number, and never 0.
    let mut graph = product();
    graph.node = vec![node("NonZero", &["x"], &["n"], vec![]), matmul("n", "n", "y")];
    fs::write(&path, onnx(graph)).unwrap();
    let run = Dlpm::new(["model"])
        .arg(&path)
        .args(["--format", "json"])
        .run()
        .exited(3);
    let summary: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(
        summary["total_mult_adds"].is_null() && summary["dlpm"]["lower_bound"] == true,
        "{summary}"
    );
}
