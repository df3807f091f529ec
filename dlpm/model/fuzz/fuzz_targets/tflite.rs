//! Any bytes as a file of TensorFlow Lite.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (offset, rest) = bytes.split_at(bytes.len().min(4));
    dlpm_model_fuzz::file(&[offset, b"TFL3", rest].concat());
});
