//! Any bytes as the pickle and as the code of TorchScript.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (&[u8], &[u8])| {
    dlpm_model_fuzz::archive(&[
        ("a/data.pkl", files.0),
        ("a/code/__torch__.py", files.1),
        ("a/constants.pkl", b"\x80\x02).\n"),
        ("a/data/0", &[0; 24]),
    ]);
});
