//! Any bytes as what `torch.save` wrote before PyTorch 1.6, after its magic number.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    dlpm_model_fuzz::file(&[b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", bytes].concat());
});
