//! Any bytes as the header of `.safetensors`, and no more data than its length.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let header = [b"{", bytes].concat();
    let length = (header.len() as u64).to_le_bytes();
    dlpm_model_fuzz::file(&[&length[..], &header, &vec![0; bytes.len()]].concat());
});
