//! Any bytes as the configuration and the header of the weights in a folder of Hugging Face.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (&[u8], &[u8])| {
    let length = (files.1.len() as u64).to_le_bytes();
    let weights = [&length[..], files.1].concat();
    dlpm_model_fuzz::files(&[("config.json", files.0), ("model.safetensors", &weights)]);
});
