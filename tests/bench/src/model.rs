//! Reading a model beside reading and hashing its bytes, and the memory that it takes.

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use dlpm_model::{self as model, Options};
use sha2::{Digest, Sha256};

use super::stats::{Spread, float};
use dlpm_tests::onnx_build::{self, DataType, Dim, GraphProto, node, value, weights};

/// What reading a model may take, as a ratio to reading and hashing its bytes.
pub const LARGEST_RATIO: f64 = 2.0;

/// Rows and columns of a weight: 4 MiB each.
const SIDE: i64 = 1024;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Alternating rounds.
    pub rounds: usize,
    /// Weights of 4 MiB in the file.
    pub layers: usize,
}

/// A chain of matrix products with their weights in the file.
fn write_model(path: &Path, layers: usize) -> Result<()> {
    let names: Vec<String> = (0..=layers).map(|layer| format!("x{layer}")).collect();
    let of = |layer: usize| names.get(layer).map_or("", String::as_str);
    let graph = GraphProto {
        node: (0..layers)
            .map(|layer| node("MatMul", &[of(layer), &format!("w{layer}")], &[of(layer + 1)], vec![]))
            .collect(),
        initializer: (0..layers)
            .map(|layer| weights(&format!("w{layer}"), &[SIDE, SIDE], true))
            .collect(),
        input: vec![value("x0", DataType::FLOAT, &[Dim::Is(1), Dim::Is(SIDE)])],
        output: onnx_build::names(&[of(layers)]),
        ..GraphProto::default()
    };
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&onnx_build::model(graph))?;
    file.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    Ok(())
}

/// What is compared: every byte is read once, and hashed.
fn hash(path: &Path) -> Result<Vec<u8>> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().to_vec()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .context("/proc/self/status has no VmHWM")?
        .parse()
        .context("VmHWM")
}

fn nanoseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(float(u64::try_from(start.elapsed().as_nanos())?))
}

/// Whether the median of the ratios is within its bound.
///
/// # Errors
///
/// Where the model cannot be written or read.
pub fn run(rounds: &Rounds) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.onnx");
    write_model(&path, rounds.layers)?;
    let bytes = fs::metadata(&path)?.len();
    // What building it took is not to be seen in the peak.
    fs::write("/proc/self/clear_refs", "5").context("the peak of memory cannot be reset")?;
    let before_kib = peak_kib()?;
    let read = || -> Result<()> {
        let summary = model::read(&path, &Options::default())?;
        let expected = u64::try_from(rounds.layers)? * 1024 * 1024;
        ensure!(summary.mult_adds() == Some(expected), "the model was not counted");
        Ok(())
    };
    // Once, so that the file is in the page cache for both.
    read()?;
    let mut ratios = Vec::new();
    for round in 0..rounds.rounds {
        let reading = || nanoseconds(read);
        let hashing = || nanoseconds(|| hash(&path).map(drop));
        let (model_ns, bytes_ns) = if round % 2 == 0 {
            (reading()?, hashing()?)
        } else {
            let bytes_ns = hashing()?;
            (reading()?, bytes_ns)
        };
        ratios.push(model_ns / bytes_ns);
    }
    let after_kib = peak_kib()?;
    println!("{}\n", super::machine()?);
    println!(
        "{} rounds, alternating, of an ONNX file of {} MB with its weights in it; median (min to max).\n",
        rounds.rounds,
        bytes / 1_000_000
    );
    println!("| dlpm's reading / reading and hashing the bytes | peak of memory above that before, KiB |\n|---|---|");
    let ratio = Spread::of(ratios).context("no rounds")?;
    println!("| {} | {} |", ratio.show(1.0, 3), after_kib.saturating_sub(before_kib));
    Ok(ratio.median < LARGEST_RATIO)
}
