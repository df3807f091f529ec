//! Any bytes as a file of ONNX.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dlpm_model_fuzz::file(&[b"\x08\x08", bytes].concat()));
