//! Any bytes as the configuration of a model of Keras 3.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    dlpm_model_fuzz::archive(&[
        ("metadata.json", br#"{"keras_version": "3.8.0"}"#),
        ("config.json", bytes),
        ("model.weights.h5", b""),
    ]);
});
