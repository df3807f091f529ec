//! Size and work of a model, from its file: parameters, and multiply-accumulate operations of one forward pass.
//!
//! Nothing of a model is run, and its weights are not loaded. Files are not trusted: whatever they hold,
//! reading them ends in bounded time and memory, with an error where they make no sense.

mod einsum;
mod file;
pub mod input;
mod onnx;
mod summary;
mod tally;

use std::{
    io::{self, Read as _},
    path::Path,
};

pub use file::MEMORY_BYTES;
use file::ModelFile;
use input::{InputShape, InputValue};
pub use summary::{FILE_NAME, InputTensor, MAC_DEFINITION, Summary};
pub use tally::{Layer, OpCount, Tally};

/// What is wanted of a model, and what has to be known of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Shapes of inputs.
    pub inputs: Vec<InputShape>,
    /// Values of scalar inputs.
    pub values: Vec<InputValue>,
    /// Whether each operator is listed.
    pub per_layer: bool,
}

/// Why a model cannot be read. Each says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// A folder, a pipe, a device.
    #[error("is no regular file; give the file of a model")]
    NoFile,
    /// Somebody wrote to it.
    #[error("was changed while it was read; try again when it is complete")]
    Changed,
    /// None of the formats.
    #[error("is no model that dlpm knows: {0}; export it as ONNX, or with torch.export.save as .pt2")]
    Format(String),
    /// It contradicts its format.
    #[error("is no valid model, or is cut off: {0}")]
    Malformed(String),
    /// It would take too much memory or time.
    #[error("is too large for dlpm: {0}")]
    TooLarge(String),
    /// What the user said of the inputs does not suffice or fit.
    #[error("{0}")]
    Input(String),
    /// Shapes do not go together.
    #[error("{node}: {why}; does --input give the shapes that the model is made for?")]
    Shapes {
        /// The operator.
        node: String,
        /// What does not fit.
        why: String,
    },
}

/// Reads a model.
///
/// # Errors
///
/// See [`ModelError`]; the messages do not hold the file's name.
pub fn read(path: &Path, options: &Options) -> Result<Summary, ModelError> {
    let file = ModelFile::open(path)?;
    let counts = match format_of(&file)? {
        Format::Onnx => onnx::read(&file, options)?,
    };
    file.unchanged()?;
    let source = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    Ok(Summary {
        source: printable(&source),
        sha256: file.sha256.clone(),
        file_bytes: file.length(),
        values: options.values.clone(),
        counts,
    })
}

enum Format {
    Onnx,
}

/// What a file is, by its begin.
fn format_of(file: &ModelFile) -> Result<Format, ModelError> {
    let mut begin = Vec::new();
    file.reader()?
        .take(16)
        .read_to_end(&mut begin)
        .map_err(ModelError::Read)?;
    match begin.as_slice() {
        [] => Err(ModelError::Format("it is empty".to_owned())),
        _ => Ok(Format::Onnx),
    }
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
