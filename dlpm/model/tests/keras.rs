//! `.keras`: parameters and operations from the configuration of the layers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::fs;

use build::keras::{file, layer, sequential};
use dlpm_model::{self as model, ModelError, Options, Summary};
use serde_json::{Value, json};

fn read(config: &Value) -> Result<Summary, ModelError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.keras");
    fs::write(&path, file(config.to_string().as_bytes())).unwrap();
    model::read(&path, &Options::default())
}

/// A class, its configuration, the shape of its input; parameters and operations, `None` where they are not known.
type Case = (&'static str, Value, Value, u64, Option<u64>);

#[test]
fn layers_by_their_rules() {
    let image = json!([null, 20, 24, 6]);
    let window = |more: Value| {
        let mut config = json!({ "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "dilation_rate": [1, 1],
            "groups": 1, "data_format": "channels_last", "use_bias": true });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let cases: [Case; 14] = [
        (
            "Dense",
            json!({ "units": 5, "use_bias": true }),
            json!([null, 7, 4]),
            25,
            Some(7 * 20),
        ),
        (
            "Dense",
            json!({ "units": 5, "use_bias": false }),
            json!([null, null, 4]),
            20,
            None,
        ),
        (
            "Conv2D",
            window(json!({ "filters": 8 })),
            image.clone(),
            8 * 54 + 8,
            Some(20 * 24 * 8 * 54),
        ),
        (
            "Conv2D",
            window(json!({ "filters": 8, "groups": 3, "strides": [2, 5] })),
            image.clone(),
            8 * 18 + 8,
            Some(10 * 5 * 8 * 18),
        ),
        (
            "Conv2D",
            window(json!({ "filters": 8, "padding": "valid", "dilation_rate": [2, 2] })),
            image.clone(),
            8 * 54 + 8,
            Some(16 * 20 * 8 * 54),
        ),
        (
            "DepthwiseConv2D",
            window(json!({ "depth_multiplier": 2 })),
            image.clone(),
            12 * 9 + 12,
            Some(20 * 24 * 12 * 9),
        ),
        (
            "SeparableConv2D",
            window(json!({ "depth_multiplier": 1, "filters": 4, "use_bias": false })),
            image.clone(),
            6 * 9 + 24,
            Some(20 * 24 * (6 * 9 + 24)),
        ),
        (
            "Conv2DTranspose",
            window(json!({ "filters": 4, "strides": [2, 2] })),
            image.clone(),
            4 * 54 + 4,
            Some(20 * 24 * 4 * 54),
        ),
        (
            "BatchNormalization",
            json!({ "axis": -1, "scale": true, "center": true }),
            image.clone(),
            12,
            Some(0),
        ),
        (
            "LayerNormalization",
            json!({ "axis": -1, "scale": true, "center": false }),
            image.clone(),
            6,
            Some(0),
        ),
        (
            "Embedding",
            json!({ "input_dim": 50, "output_dim": 6 }),
            json!([null, 9]),
            300,
            Some(0),
        ),
        (
            "LSTM",
            json!({ "units": 4 }),
            json!([null, 9, 6]),
            4 * (4 * 10 + 4),
            Some(9 * 4 * 40),
        ),
        (
            "GRU",
            json!({ "units": 4, "reset_after": true }),
            json!([null, 9, 6]),
            3 * (4 * 10 + 8),
            Some(9 * 3 * 40),
        ),
        ("MaxPooling2D", json!({}), image, 0, Some(0)),
    ];
    for (class, config, input_shape, params, mult_adds) in cases {
        let summary = read(&sequential(&[layer(class, config, &input_shape)])).unwrap();
        assert_eq!(summary.counts.format, "keras");
        assert_eq!(summary.counts.total_params, params, "{class}");
        assert_eq!(summary.is_lower_bound(), mult_adds.is_none(), "{class}");
        let found = summary.counts.tally.unwrap().mult_adds;
        assert_eq!(found, mult_adds.unwrap_or(0), "{class}");
    }
}

#[test]
fn attention_and_both_directions() {
    let shapes = json!({ "query_shape": [null, 7, 12], "value_shape": [null, 5, 10], "key_shape": [null, 5, 10] });
    let attention = json!({ "class_name": "MultiHeadAttention", "config": { "num_heads": 3, "key_dim": 4, "value_dim": 2,
        "use_bias": true }, "build_config": { "shapes_dict": shapes } });
    let inner = json!({ "class_name": "LSTM", "config": { "units": 4 } });
    let both = layer("Bidirectional", json!({ "layer": inner }), &json!([null, 9, 6]));
    let summary = read(&sequential(&[attention, both])).unwrap();
    let (keys, values) = (3 * 4, 3 * 2);
    let weights = 12 * keys + 10 * keys + 10 * values + values * 12;
    let lstm = 2 * 4 * (4 * 10 + 4);
    assert_eq!(summary.counts.total_params, weights + 2 * keys + values + 12 + lstm);
    let products = 7 * (12 * keys + values * 12) + 5 * (10 * keys + 10 * values) + 7 * 5 * (keys + values);
    assert_eq!(summary.mult_adds(), Some(products + 2 * 9 * 4 * 40));
}

#[test]
fn models_in_models_shared_layers_and_frozen_ones() {
    let dense = |units: u64, trainable: bool| {
        layer(
            "Dense",
            json!({ "units": units, "use_bias": true, "trainable": trainable }),
            &json!([null, 6]),
        )
    };
    let mut shared = dense(6, true);
    shared
        .as_object_mut()
        .unwrap()
        .insert("inbound_nodes".to_owned(), json!([{}, {}]));
    let input =
        json!({ "class_name": "InputLayer", "config": { "batch_shape": [null, 6], "dtype": "float32", "name": "x" } });
    let inner = sequential(&[dense(5, true)]);
    let summary = read(&sequential(&[input, shared, inner, dense(2, false)])).unwrap();
    assert_eq!(summary.counts.total_params, 42 + 35 + 14);
    assert_eq!(summary.counts.trainable_params, Some(42 + 35));
    assert_eq!(summary.mult_adds(), Some(2 * 36 + 30 + 12));
    assert_eq!(summary.to_json()["input_size"], json!([1, 6]));
}

#[test]
fn a_layer_without_a_rule_is_named_and_hostile_sizes_are_not_believed() {
    for (class, config, shape) in [
        ("Lambda", json!({}), json!([null, 6])),
        ("Dense", json!({ "units": u64::MAX }), json!([null, 6])),
        ("Dense", json!({ "units": -1 }), json!([null, 6])),
        ("Dense", json!({ "units": 3 }), json!(null)),
        (
            "Conv2D",
            json!({ "filters": 3, "kernel_size": [3], "strides": [0, 0] }),
            json!([null, 6, 6, 1]),
        ),
        (
            "Conv2D",
            json!({ "filters": 3, "kernel_size": [3, 3], "strides": [0, 0] }),
            json!([null, 6, 6, 1]),
        ),
        (
            "Conv2D",
            json!({ "filters": 3, "kernel_size": [3, 3], "strides": [1, 1], "groups": 0 }),
            json!([null, 6, 6, 1]),
        ),
    ] {
        let summary = read(&sequential(&[layer(class, config, &shape)])).unwrap();
        assert!(summary.is_lower_bound(), "{class}");
        assert!(
            summary
                .counts
                .tally
                .unwrap()
                .unsupported
                .keys()
                .any(|(op, _)| op == class)
        );
    }
    let mut deep = sequential(&[]);
    for _ in 0..20 {
        deep = sequential(&[deep]);
    }
    assert!(read(&deep).unwrap_err().to_string().contains("more than 16 deep"));
    assert!(read(&json!({})).unwrap_err().to_string().contains("class_name"));
}
