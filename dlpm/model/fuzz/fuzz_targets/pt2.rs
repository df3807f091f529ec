//! Any bytes as the program of `torch.export`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dlpm_model_fuzz::archive(&[("a/models/model.json", bytes)]));
