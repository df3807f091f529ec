//! Embeds the eBPF object that `cargo xtask` built.
//!
//! A plain `cargo check` or an editor has no BPF toolchain: then an empty object is embedded and the program says
//! at run time how to build itself properly.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=DLPM_EBPF_OBJECT");
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("dlpm.bpf.o");
    match env::var_os("DLPM_EBPF_OBJECT") {
        Some(object) => {
            let object = PathBuf::from(object);
            println!("cargo::rerun-if-changed={}", object.display());
            fs::copy(&object, &embedded)
                .map_err(|error| format!("cannot read DLPM_EBPF_OBJECT={}: {error}", object.display()))?;
        }
        None => fs::write(&embedded, [])?,
    }
    Ok(())
}
