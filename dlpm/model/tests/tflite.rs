//! TensorFlow Lite: parameters and operations by the shapes in the file.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::fs;

use build::tflite::{Graph, Operator, file, small};
use dlpm_model::{self as model, ModelError, Options, Summary};

fn read_with(bytes: &[u8], options: &Options) -> Result<Summary, ModelError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.tflite");
    fs::write(&path, bytes).unwrap();
    model::read(&path, options)
}

fn read(graphs: &[Graph]) -> Summary {
    let options = Options {
        per_layer: true,
        ..Options::default()
    };
    read_with(&file(graphs), &options).unwrap()
}

/// What could not be counted, as text.
fn unsupported(summary: &Summary) -> String {
    format!("{:?}", summary.counts.tally.as_ref().unwrap().unsupported)
}

#[test]
fn parameters_operations_and_layers() {
    let (graph, params, mult_adds) = small();
    let summary = read(&[graph]);
    assert_eq!(summary.counts.format, "tflite");
    assert_eq!(
        (summary.counts.total_params, summary.mult_adds()),
        (params, Some(mult_adds))
    );
    assert!(!summary.is_lower_bound());
    let json = summary.to_json();
    assert_eq!(json["input_size"], serde_json::json!([1, 8, 8, 3]));
    assert_eq!(json["total_input"], 8 * 8 * 3);
    let layers = &summary.counts.tally.unwrap().layers;
    let names: Vec<(&str, &str)> = layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.op.as_str()))
        .collect();
    assert_eq!(names, [("features", "CONV_2D"), ("result", "FULLY_CONNECTED")]);
}

#[test]
fn an_open_batch_is_a_note_and_another_open_dimension_a_lower_bound() {
    for (signature, is_lower_bound) in [(vec![-1, 4, 4, 16], false), (vec![1, -1, 4, 16], true)] {
        let (mut graph, ..) = small();
        graph.tensors[3].signature = signature;
        let summary = read(&[graph]);
        assert_eq!(summary.is_lower_bound(), is_lower_bound);
        let has_note = summary
            .counts
            .notes
            .iter()
            .any(|note| note.contains("leaves the batch open"));
        assert_eq!(has_note, !is_lower_bound);
    }
}

/// A subgraph with one operator that runs others.
fn caller(code: u32, options: Vec<i32>) -> Graph {
    Graph {
        operators: vec![Operator {
            code,
            options,
            ..Operator::default()
        }],
        ..Graph::default()
    }
}

#[test]
fn subgraphs_are_run_where_they_are_called() {
    let (graph, _, mult_adds) = small();
    let empty = Graph::default();
    for (code, options, expected, why) in [
        (31, vec![1], mult_adds, ""),
        // The cheaper branch.
        (118, vec![1, 2], 0, "its condition is not known"),
        (118, vec![1, 1], mult_adds, ""),
        (119, vec![2, 1], 0, "how many turns"),
        (119, vec![2, 2], 0, ""),
        // What runs once, before the first pass.
        (129, vec![1], 0, ""),
    ] {
        let summary = read(&[caller(code, options), graph.clone(), empty.clone()]);
        let found = summary.counts.tally.as_ref().unwrap().mult_adds;
        assert_eq!(found, expected, "{code}");
        assert_eq!(summary.is_lower_bound(), !why.is_empty(), "{code}");
        assert!(unsupported(&summary).contains(why), "{}", unsupported(&summary));
    }
}

#[test]
fn an_operator_without_a_rule_is_named() {
    for (code, custom, name) in [
        (32, "FlexMatMul", "FlexMatMul"),
        (171, "", "STABLEHLO_CONVOLUTION"),
        (400, "", "operator 400"),
    ] {
        let (mut graph, _, mult_adds) = small();
        graph.operators.push(Operator {
            code,
            custom,
            ..Operator::default()
        });
        let summary = read(&[graph]);
        assert_eq!(summary.mult_adds(), Some(mult_adds));
        assert!(
            summary.is_lower_bound() && unsupported(&summary).contains(name),
            "{}",
            unsupported(&summary)
        );
    }
}

#[test]
fn a_file_that_contradicts_itself_or_never_ends_is_refused() {
    let whole = file(&[small().0]);
    let (mut other_size, ..) = small();
    other_size.tensors[1].dims[0] = 17;
    let endless = [caller(31, vec![0])];
    // 2^16 runs of a subgraph: each one calls the next twice.
    let twice = |next: i32| Graph {
        operators: vec![caller(31, vec![next]).operators[0].clone(); 40],
        ..Graph::default()
    };
    let wide: Vec<Graph> = (1..10).map(twice).chain([Graph::default()]).collect();
    for (bytes, why) in [
        (whole[..whole.len() / 2].to_vec(), "is "),
        (file(&[other_size]), "has another size than its shape"),
        (file(&endless), "more than 16 deep"),
        (file(&[caller(31, vec![7])]), "a subgraph that it does not have"),
        (file(&wide), "more than 300000 operators"),
        (file(&[]), "no subgraph"),
    ] {
        let error = read_with(&bytes, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(why), "no `{why}` in {error}");
    }
}

#[test]
fn other_shapes_than_those_of_the_file_are_refused() {
    let bytes = file(&[small().0]);
    let with = |input: &str| Options {
        inputs: vec![input.parse().unwrap()],
        ..Options::default()
    };
    read_with(&bytes, &with("1,8,8,3")).unwrap();
    read_with(&bytes, &with("image=1,8,8,3")).unwrap();
    for wrong in ["2,8,8,3", "other=1,8,8,3"] {
        let error = read_with(&bytes, &with(wrong)).unwrap_err().to_string();
        assert!(error.contains("leave --input out"), "{error}");
    }
}
