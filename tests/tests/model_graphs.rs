//! Small ONNX graphs, built here, with what the published ones do not have: loops, branches, functions, operators that cannot
//! be counted.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use dlpm_model::{self as model, ModelError, Options, Summary};
use dlpm_tests::onnx_build::{
    AttributeProto, DataType,
    Dim::{self, Is, Named},
    GraphProto, NodeProto, graph_attribute, int, int_constant, ints, model, names, node, text, truth, value, weights,
};

fn read(bytes: &[u8], inputs: &[&str]) -> Result<Summary, ModelError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let options = Options {
        inputs: inputs.iter().map(|text| text.parse().unwrap()).collect(),
        ..Options::default()
    };
    model::read(file.path(), &options)
}

/// A graph from `x` to `y`.
fn graph(dims: &[Dim], nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        node: nodes,
        input: vec![value("x", DataType::FLOAT, dims)],
        output: names(&["y"]),
        ..GraphProto::default()
    }
}

fn matmul(left: &str, right: &str, output: &str) -> NodeProto {
    node("MatMul", &[left, right], &[output], vec![])
}

/// Operations, and what could not be counted.
#[track_caller]
fn counts(graph: GraphProto) -> (u64, Vec<String>) {
    let summary = read(&model(graph), &[]).unwrap();
    let tally = summary.counts.tally.unwrap();
    let unsupported = tally.unsupported.into_keys().map(|(op, why)| format!("{op}: {why}"));
    (tally.mult_adds, unsupported.collect())
}

#[track_caller]
fn exactly(graph: GraphProto, mult_adds: u64) {
    assert_eq!(counts(graph), (mult_adds, vec![]));
}

#[test]
fn recurrent_layers() {
    for (op, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let layer = node(
            op,
            &["x", "w", "r"],
            &["y"],
            vec![int("hidden_size", 5), text("direction", "bidirectional")],
        );
        let mut graph = graph(&[Is(7), Is(2), Is(3)], vec![layer]);
        graph.initializer = vec![
            weights("w", &[2, gates * 5, 3], true),
            weights("r", &[2, gates * 5, 5], true),
        ];
        let gates = u64::try_from(gates).unwrap();
        // Steps, sequences, directions, gates × hidden, input and state.
        exactly(graph, 7 * 2 * 2 * gates * 5 * (3 + 5));
    }
}

#[test]
fn a_loop_counts_each_turn() {
    let body = GraphProto {
        node: vec![
            matmul("carried", "w", "next"),
            node("Identity", &["condition"], &["goes_on"], vec![]),
        ],
        input: names(&["turn", "condition", "carried"]),
        output: names(&["goes_on", "next", "next"]),
        ..GraphProto::default()
    };
    let turns = node(
        "Loop",
        &["turns", "", "x"],
        &["last", "all"],
        vec![graph_attribute("body", body)],
    );
    // All turns, stacked, times 4 more columns.
    let mut graph = graph(&[Is(2), Is(3)], vec![turns, matmul("all", "v", "y")]);
    graph.initializer = vec![
        int_constant("turns", &[], &[5]),
        weights("w", &[3, 3], true),
        weights("v", &[3, 4], true),
    ];
    exactly(graph, 5 * 2 * 3 * 3 + 5 * 2 * 3 * 4);
}

#[test]
fn a_loop_of_unknown_length_is_listed() {
    let body = GraphProto {
        node: vec![
            matmul("carried", "w", "next"),
            node("Identity", &["condition"], &["goes_on"], vec![]),
        ],
        input: names(&["turn", "condition", "carried"]),
        output: names(&["goes_on", "next"]),
        ..GraphProto::default()
    };
    let turns = node("Loop", &["n", "", "x"], &["y"], vec![graph_attribute("body", body)]);
    let mut graph = graph(&[Is(2), Is(3)], vec![turns]);
    graph.input.push(value("n", DataType::INT64, &[]));
    graph.initializer = vec![weights("w", &[3, 3], true)];
    let (mult_adds, unsupported) = counts(graph);
    assert_eq!(mult_adds, 0);
    assert_eq!(
        unsupported,
        ["Loop: its number of turns is only known when the model runs; --value NAME=NUMBER gives one to an input (n)"]
    );
}

#[test]
fn a_scan_counts_each_step() {
    let body = GraphProto {
        node: vec![
            matmul("row", "w", "out"),
            node("Add", &["state", "out"], &["next"], vec![]),
        ],
        input: names(&["state", "row"]),
        output: names(&["next", "out"]),
        ..GraphProto::default()
    };
    let scan = node(
        "Scan",
        &["zero", "x"],
        &["last", "all"],
        vec![
            int("num_scan_inputs", 1),
            ints("scan_input_axes", &[1]),
            graph_attribute("body", body),
        ],
    );
    // 7 steps along axis 1 of 2×7×3; the outputs are 7×2×4.
    let mut graph = graph(&[Is(2), Is(7), Is(3)], vec![scan, matmul("all", "v", "y")]);
    graph.initializer = vec![
        weights("zero", &[2, 4], true),
        weights("w", &[3, 4], true),
        weights("v", &[4, 5], true),
    ];
    exactly(graph, 7 * 2 * 3 * 4 + 7 * 2 * 4 * 5);
}

fn branch(columns: i64, name: &str) -> GraphProto {
    GraphProto {
        node: vec![matmul("x", name, "z")],
        initializer: vec![weights(name, &[3, columns], true)],
        output: names(&["z"]),
        ..GraphProto::default()
    }
}

#[test]
fn a_branch_is_taken_by_what_is_known() {
    for (size, columns) in [(2, 4), (9, 5)] {
        let attributes = vec![
            graph_attribute("then_branch", branch(4, "a")),
            graph_attribute("else_branch", branch(5, "b")),
        ];
        let nodes = vec![
            node("Shape", &["x"], &["dims"], vec![]),
            node("Gather", &["dims", "first"], &["batch"], vec![]),
            node("Less", &["batch", "limit"], &["condition"], vec![]),
            node("If", &["condition"], &["y"], attributes),
        ];
        let mut graph = graph(&[Is(size), Is(3)], nodes);
        graph.initializer = vec![int_constant("first", &[], &[0]), int_constant("limit", &[], &[5])];
        let summary = read(&model(graph), &[]).unwrap();
        let columns = u64::try_from(columns).unwrap();
        assert_eq!(summary.mult_adds(), Some(u64::try_from(size).unwrap() * 3 * columns));
        // Weights of the other branch are not read.
        assert_eq!(summary.counts.total_params, 3 * columns);
    }
}

#[test]
fn an_open_branch_makes_a_lower_bound() {
    let attributes = vec![
        graph_attribute("then_branch", branch(4, "a")),
        graph_attribute("else_branch", branch(5, "b")),
    ];
    let mut graph = graph(&[Is(2), Is(3)], vec![node("If", &["flag"], &["y"], attributes)]);
    graph.input.push(value("flag", DataType::BOOL, &[]));
    let (mult_adds, unsupported) = counts(graph);
    assert_eq!(mult_adds, 2 * 3 * 4);
    assert!(
        unsupported[0].contains("--value NAME=NUMBER gives one to an input (flag)"),
        "{unsupported:?}"
    );
}

#[test]
fn what_cannot_be_counted_is_listed() {
    let mut custom = node("Mystery", &["x"], &["a"], vec![]);
    custom.domain = Some("example.com".to_owned());
    let nodes = vec![
        matmul("x", "w", "b"),
        custom,
        // Of a shape that nobody knows.
        matmul("a", "w", "c"),
        node("Relu", &["c"], &["d"], vec![]),
        matmul("d", "v", "e"),
        node("Add", &["b", "b"], &["y"], vec![]),
    ];
    let mut graph = graph(&[Is(2), Is(3)], nodes);
    graph.initializer = vec![weights("w", &[3, 4], true), weights("v", &[4, 3], true)];
    let bytes = model(graph);
    let summary = read(&bytes, &[]).unwrap();
    assert!(summary.is_lower_bound());
    let json = summary.to_json();
    assert_eq!(json["total_mult_adds"], 2 * 3 * 4);
    assert_eq!(json["dlpm"]["lower_bound"], true);
    let listed = json["dlpm"]["unsupported_ops"].as_array().unwrap();
    let ops: Vec<_> = listed.iter().map(|op| op["op"].as_str().unwrap()).collect();
    // The first one that is not known, once, with what is not known because of it.
    assert_eq!(ops, ["example.com.Mystery"]);
    assert_eq!(listed[0]["runs"], 1);
    assert_eq!(listed[0]["first"], "a");
    assert_eq!(listed[0]["uncounted_after"]["MatMul"], 2);
}

#[test]
fn quantised_layers_count() {
    let nodes = vec![
        node("QLinearConv", &["q", "s", "z", "w", "s", "z", "s", "z"], &["c"], vec![]),
        node("Flatten", &["c"], &["f"], vec![]),
        node("MatMulInteger", &["f", "m"], &["y"], vec![]),
        node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
    ];
    let mut nodes = nodes;
    nodes.rotate_right(1);
    let mut graph = graph(&[Is(1), Is(2), Is(6), Is(6)], nodes);
    let bytes = |name: &str, dims: &[i64]| {
        let mut weights = weights(name, dims, false);
        weights.data_type = Some(DataType::INT8);
        weights
    };
    graph.initializer = vec![
        weights("s", &[], true),
        bytes("z", &[]),
        bytes("w", &[3, 2, 3, 3]),
        bytes("m", &[48, 5]),
    ];
    let summary = read(&model(graph), &[]).unwrap();
    assert_eq!(summary.mult_adds(), Some(3 * 4 * 4 * 2 * 9 + 48 * 5));
    assert_eq!(summary.counts.total_params, 3 * 2 * 9 + 48 * 5);
    assert!(!summary.is_lower_bound());
}

#[test]
fn attention_with_fewer_heads_of_keys() {
    let layer = node(
        "Attention",
        &["x", "k", "v"],
        &["y"],
        vec![int("q_num_heads", 4), int("kv_num_heads", 2)],
    );
    let mut graph = graph(&[Is(2), Is(5), Is(4 * 8)], vec![layer]);
    graph
        .input
        .push(value("k", DataType::FLOAT, &[Is(2), Is(7), Is(2 * 8)]));
    graph
        .input
        .push(value("v", DataType::FLOAT, &[Is(2), Is(7), Is(2 * 6)]));
    exactly(graph, 2 * 4 * 5 * 7 * (8 + 6));
}

#[test]
fn shapes_are_computed_through_integers() {
    // reshape(x, concat(shape(x)[:1], [-1], [4])), then a product.
    let nodes = vec![
        node("Shape", &["x"], &["dims"], vec![]),
        node("Slice", &["dims", "zero", "one"], &["batch"], vec![]),
        node("Concat", &["batch", "rest", "four"], &["target"], vec![int("axis", 0)]),
        node("Reshape", &["x", "target"], &["r"], vec![]),
        matmul("r", "w", "y"),
    ];
    let mut graph = graph(&[Named("batch"), Is(6), Named("length")], nodes);
    graph.initializer = vec![
        int_constant("zero", &[1], &[0]),
        int_constant("one", &[1], &[1]),
        int_constant("rest", &[1], &[-1]),
        int_constant("four", &[1], &[4]),
        weights("w", &[4, 5], true),
    ];
    let bytes = model(graph);
    let summary = read(&bytes, &["3,6,8"]).unwrap();
    assert_eq!(summary.mult_adds(), Some(3 * 12 * 4 * 5));
    let error = read(&bytes, &[]).unwrap_err().to_string();
    assert!(error.contains("0 (`batch`), 2 (`length`)"), "{error}");
    // 6 × 9 has no 4 in it.
    let error = read(&bytes, &["1,6,9"]).unwrap_err().to_string();
    assert!(error.contains("1×6×9 cannot become 1×13×4"), "{error}");
}

/// What a graph that is not in order, or refers to itself, gets.
#[test]
fn a_cycle_is_refused() {
    let nodes = vec![
        node("Add", &["x", "z"], &["y"], vec![]),
        node("Add", &["y", "y"], &["z"], vec![]),
    ];
    let error = read(&model(graph(&[Is(1)], nodes)), &[]).unwrap_err().to_string();
    assert!(error.contains("reads `z`, which nothing before it makes"), "{error}");
}

#[test]
fn hostile_sizes_end_with_an_error_or_a_lower_bound() {
    let far = i64::MAX;
    let constant = |name: &str, values: &[i64]| int_constant(name, &[i64::try_from(values.len()).unwrap()], values);
    let cases: Vec<(&str, Vec<AttributeProto>, Vec<_>)> = vec![
        ("ConstantOfShape", vec![], vec![constant("a", &[far, far])]),
        (
            "Expand",
            vec![],
            vec![weights("b", &[1], true), constant("a", &[far, far])],
        ),
        ("Tile", vec![], vec![weights("b", &[8], true), constant("a", &[far])]),
    ];
    for (op, attributes, constants) in cases {
        let inputs: Vec<String> = constants
            .iter()
            .map(|constant| constant.name.clone().unwrap())
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let nodes = vec![node(op, &inputs, &["big"], attributes), matmul("big", "big", "y")];
        let mut graph = graph(&[Is(1)], nodes);
        graph.initializer = constants;
        read(&model(graph), &[]).unwrap_err();
    }

    // 10^18 turns, each with another loop of as many.
    let mut body = GraphProto {
        node: vec![node("Identity", &["condition"], &["goes_on"], vec![])],
        input: names(&["turn", "condition"]),
        output: names(&["goes_on"]),
        initializer: vec![truth("unused", true)],
        ..GraphProto::default()
    };
    for _ in 0..3 {
        let inner = node("Loop", &["n", ""], &[], vec![graph_attribute("body", body)]);
        body = GraphProto {
            node: vec![inner, node("Identity", &["condition"], &["goes_on"], vec![])],
            input: names(&["turn", "condition"]),
            output: names(&["goes_on"]),
            ..GraphProto::default()
        };
    }
    for (turns, part) in [(9_000, "more than 300000 operators"), (1_000_000_000_000_000_000, "")] {
        let nodes = vec![
            node("Loop", &["n", ""], &[], vec![graph_attribute("body", body.clone())]),
            node("Identity", &["x"], &["y"], vec![]),
        ];
        let mut graph = graph(&[Is(1)], nodes);
        graph.initializer = vec![int_constant("n", &[], &[turns])];
        match read(&model(graph), &[]) {
            Ok(summary) => assert!(summary.is_lower_bound() && part.is_empty()),
            Err(error) => assert!(error.to_string().contains(part) && !part.is_empty(), "{error}"),
        }
    }
}

#[test]
fn graphs_that_are_nested_too_deep_are_refused() {
    let mut inner = graph(&[Is(1)], vec![node("Identity", &["x"], &["y"], vec![])]);
    for _ in 0..60 {
        inner = graph(
            &[Is(1)],
            vec![node("If", &["x"], &["y"], vec![graph_attribute("then_branch", inner)])],
        );
    }
    let error = read(&model(inner), &[]).unwrap_err().to_string();
    assert!(error.contains("nested too deep"), "{error}");
}
