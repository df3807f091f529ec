//! Any bytes as an archive.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dlpm_model_fuzz::file(&[b"PK\x03\x04", bytes].concat()));
