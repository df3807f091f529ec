//! Size and work of a model, from its file: parameters, and multiply-accumulate operations of one forward pass.
//!
//! Nothing of a model is run, and its weights are not loaded. Files are not trusted: whatever they hold,
//! reading them ends in bounded time and memory, with an error where they make no sense.

mod archive;
mod details;
mod file;
mod foreign;
mod gguf;
mod hugging_face;
pub mod input;
mod keras;
pub mod language;
mod legacy_torch;
mod modules;
mod onnx;
mod pickle;
mod products;
mod pt2;
mod safetensors;
mod summary;
mod tally;
mod tflite;
mod torch_script;
mod weights;

use std::{
    io::{self, Read as _},
    path::Path,
};

pub use details::{Details, WeightSum, bits_per_element};
pub use file::MEMORY_BYTES;
use file::ModelFile;
use input::{InputShape, InputValue, NamedDim};
pub use modules::Module;
pub use summary::{ExternalFile, FILE_NAME, InputTensor, MAC_DEFINITION, Summary};
pub use tally::{Layer, Missed, OpCount, Tally};
pub use weights::{Weights, Why};

/// What is wanted of a model, and what has to be known of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Shapes of inputs.
    pub inputs: Vec<InputShape>,
    /// Numbers of dimensions that have names.
    pub dims: Vec<NamedDim>,
    /// Values of scalar inputs.
    pub values: Vec<InputValue>,
    /// Whether each operator is listed.
    pub per_layer: bool,
    /// What is asked of a language model.
    pub language: language::Settings,
    /// Whether parameters and operations are summed by module.
    pub modules: bool,
}

/// Why a model cannot be read. Each says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A folder, a pipe, a device.
    #[error("is not a regular file; give the file of a model, or a folder with config.json")]
    NoFile,
    /// Somebody wrote to it.
    #[error("was changed while it was read; try again when it is complete")]
    Changed,
    /// None of the formats.
    #[error("is not a model that dlpm knows: {0}; export it as ONNX, or with torch.export.save as .pt2")]
    Format(String),
    /// A known format that dlpm does not read.
    #[error("is {what}; {next}")]
    Foreign {
        /// What it is.
        what: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// It contradicts its format.
    #[error("is not a valid model, or is cut off: {0}")]
    Malformed(String),
    /// It would take too much memory or time.
    #[error("is too large for dlpm: {0}")]
    TooLarge(String),
    /// What the user said of the inputs does not suffice or fit.
    #[error("{0}")]
    Input(String),
    /// A model names a file that is not in its folder.
    #[error("lies outside the model's folder, or is a link out of it; put the file itself there")]
    Elsewhere,
    /// Another file of the same model cannot be read.
    #[error("{part}, which belongs to it, {error}")]
    Part {
        /// Its name, without its folder.
        part: String,
        /// Why.
        #[source]
        error: Box<ModelError>,
    },
    /// Shapes do not go together.
    #[error("{node}: {why}; does --input give the shapes that the model is made for?")]
    Shapes {
        /// The operator.
        node: String,
        /// What does not fit.
        why: String,
    },
}

impl ModelError {
    /// The same error, of another file of the model.
    fn in_part(self, part: &str) -> Self {
        Self::Part {
            part: part.to_owned(),
            error: Box::new(self),
        }
    }
}

/// Reads a model.
///
/// # Errors
///
/// See [`ModelError`]; the messages do not hold the file's name.
pub fn read(path: &Path, options: &Options) -> Result<Summary, ModelError> {
    if path.is_dir() {
        return if hugging_face::is_model(path) {
            hugging_face::read(path, options)
        } else {
            Err(foreign::of_folder(|name| path.join(name).exists()))
        };
    }
    let file = ModelFile::open(path)?;
    let format = format_of(&file)?;
    let mut details = Details::default();
    let counts = match format {
        Format::Onnx => onnx::read(&file, path, options)?,
        Format::SafeTensors => {
            let counts = weights_only("safetensors", options, || safetensors::read(&file))?;
            details.header_sha256 = Some(safetensors::header_sha256(&file)?);
            counts
        }
        Format::Zip => archive::read(&file, options)?,
        Format::TfLite => tflite::read(&file, options, &mut details)?,
        Format::LegacyTorch => weights_only("PyTorch", options, || legacy_torch::read(&file))?,
        Format::Gguf => gguf::read(&file, path, options, &mut details)?,
    };
    if details.weights.is_empty() {
        details.weights.clone_from(&counts.weights.by_type);
    }
    // Of these formats only the header is read, and their files are as large as disks.
    let is_small = !matches!(format, Format::SafeTensors | Format::Gguf) || file.length() <= HASHED_BYTES;
    let hashed = is_small && details.files.is_empty();
    let sha256 = hashed.then(|| file.sha256(u64::MAX)).transpose()?;
    file.unchanged()?;
    Ok(Summary {
        source: source(path),
        sha256,
        file_bytes: details.files_bytes.unwrap_or(file.length()),
        values: options.values.clone(),
        counts,
        details,
    })
}

/// The name of a model for people: that of its file or folder.
fn source(path: &Path) -> String {
    printable(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

/// Longest file that is hashed where only its header is read.
const HASHED_BYTES: u64 = 64 << 20;

enum Format {
    Onnx,
    SafeTensors,
    Zip,
    Gguf,
    LegacyTorch,
    TfLite,
}

/// What a file is, by its begin.
fn format_of(file: &ModelFile) -> Result<Format, ModelError> {
    let mut begin = Vec::new();
    file.reader()?
        .take(BEGIN_BYTES)
        .read_to_end(&mut begin)
        .map_err(ModelError::Read)?;
    match begin.as_slice() {
        [] => Err(ModelError::Format("it is empty".to_owned())),
        [b'P', b'K', 3, 4, ..] => Ok(Format::Zip),
        [b'G', b'G', b'U', b'F', ..] => Ok(Format::Gguf),
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => Ok(Format::SafeTensors),
        begin if let Some(error) = foreign::of_begin(begin) => Err(error),
        begin if tflite::is_begin(begin) => Ok(Format::TfLite),
        begin if legacy_torch::is_begin(begin) => Ok(Format::LegacyTorch),
        [0x80, 2..=5, ..] => Err(ModelError::Format(
            "it is a pickle, but not one of torch.save".to_owned(),
        )),
        // ModelProto: the version, the producer or, where both are left out, the graph.
        [0x08 | 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Ok(Format::Onnx),
        _ => Err(ModelError::Format(
            "it does not begin like any of the formats".to_owned(),
        )),
    }
}

/// Bytes of a file from which its format is told.
const BEGIN_BYTES: u64 = 4096;

/// Reads a format that holds weights only.
///
/// # Errors
///
/// Where the user asked for what needs a computation, and those of `read`.
pub(crate) fn weights_only(
    format: &str,
    options: &Options,
    read: impl FnOnce() -> Result<summary::Counts, ModelError>,
) -> Result<summary::Counts, ModelError> {
    let given = [
        (!options.inputs.is_empty(), "--input"),
        (!options.dims.is_empty(), "--dim"),
        (!options.values.is_empty(), "--value"),
        (options.per_layer, "--per-layer"),
    ];
    match given.iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(ModelError::Input(format!(
            "{option}: a file of {format} holds weights and no computation; leave {option} out, or give the model as ONNX \
             or .pt2"
        ))),
        None => read(),
    }
}

/// What a reader of parameters without a program has to know.
const NAMES_NOTE: &str = "the format does not tell parameters from buffers: tensors of floats or small integers count, \
    but for those whose names are those of a batch normalisation's statistics";

/// Whether a tensor's name is that of a statistic of a batch normalisation.
fn is_statistic(name: &str) -> bool {
    let last = name.rsplit('.').next();
    matches!(last, Some("running_mean" | "running_var" | "num_batches_tracked"))
}

/// Whether a tensor's name says that it is a moving average of another one.
fn is_average(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    matches!(first, "ema" | "model_ema" | "ema_model" | "params_ema" | "ema_params")
}

/// Longest name that is shown whole.
const NAME_CHARS: usize = 120;

/// Text of a file for people: it must not control the terminal, nor fill it.
pub(crate) fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(NAME_CHARS)
        .map(|character| if character.is_control() { '?' } else { character })
        .collect();
    if text.chars().nth(NAME_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
