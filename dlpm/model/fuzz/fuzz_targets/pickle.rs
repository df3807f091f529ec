//! Any bytes as the pickle of `torch.save`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dlpm_model_fuzz::archive(&[("a/data.pkl", bytes), ("a/data/0", &[0; 24])]));
