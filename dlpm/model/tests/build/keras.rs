//! Files of Keras 3.

use std::io::{Cursor, Write as _};

use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// An archive with this configuration.
pub fn file(config: &[u8]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let metadata = json!({ "keras_version": "3.8.0" }).to_string();
    for (name, contents) in [
        ("metadata.json", metadata.as_bytes()),
        ("config.json", config),
        ("model.weights.h5", b""),
    ] {
        writer.start_file(name, options).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Layers one after the other.
pub fn sequential(layers: &[Value]) -> Value {
    json!({ "class_name": "Sequential", "config": { "layers": layers } })
}

/// A layer of a class, with its configuration and the shape that it was made for.
pub fn layer(class: &str, config: Value, input_shape: &Value) -> Value {
    let mut config = config;
    let name = json!(class.to_lowercase());
    config.as_object_mut().unwrap().insert("name".to_owned(), name);
    json!({ "class_name": class, "config": config, "build_config": { "input_shape": input_shape } })
}

/// A convolution, a dense layer, attention in both directions of a recurrent one.
pub fn small() -> Value {
    let lstm = json!({ "class_name": "LSTM", "config": { "name": "inner", "units": 4, "use_bias": true } });
    sequential(&[
        layer(
            "Conv2D",
            json!({ "filters": 8, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "groups": 1, "use_bias": true }),
            &json!([null, 16, 16, 3]),
        ),
        layer("Dense", json!({ "units": 10, "use_bias": true }), &json!([null, 5])),
        layer("Bidirectional", json!({ "layer": lstm }), &json!([null, 7, 3])),
        layer(
            "Embedding",
            json!({ "input_dim": 100, "output_dim": 8 }),
            &json!([null, 12]),
        ),
    ])
}
