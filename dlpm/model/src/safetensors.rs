//! `.safetensors`: names and shapes of tensors, in a header of JSON.
//!
//! The form is described at <https://github.com/huggingface/safetensors#format>.

use std::{collections::BTreeMap, io::Read as _};

use serde::Deserialize;

use super::{ModelError, file::ModelFile, summary::Counts};

/// Longest header that is read.
const MOST_BYTES: u64 = 8 << 20;

/// A tensor, or the text that `__metadata__` holds.
#[derive(Deserialize)]
struct Entry {
    dtype: Option<String>,
    shape: Option<Vec<u64>>,
    data_offsets: Option<(u64, u64)>,
}

/// Counts the parameters.
///
/// # Errors
///
/// Where the header is malformed, too long, or does not fit the file.
pub fn read(file: &ModelFile) -> Result<Counts, ModelError> {
    let (header, data_bytes) = header(file)?;
    let mut total_params = 0u64;
    for (name, entry) in &header {
        if name == "__metadata__" {
            continue;
        }
        let malformed = |why: &str| ModelError::Malformed(format!("the tensor `{}` {why}", super::printable(name)));
        let (Some(dtype), Some(shape), Some((begin, end))) = (&entry.dtype, &entry.shape, entry.data_offsets) else {
            return Err(malformed("has no type, shape or place"));
        };
        if begin > end || end > data_bytes {
            return Err(malformed("lies outside the file"));
        }
        let count = shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
        let sum = count.and_then(|count| {
            let bits = bits(dtype).map(|bits| count.checked_mul(bits));
            // A type that is not known may be of any size.
            if bits.is_some_and(|bits| bits.map(|bits| bits.div_ceil(8)) != Some(end - begin)) {
                return None;
            }
            let counts = is_weight(dtype) && !super::is_statistic(name);
            total_params.checked_add(if counts { count } else { 0 })
        });
        total_params = sum.ok_or_else(|| malformed("has another size than its shape"))?;
    }
    Ok(Counts {
        format: "safetensors",
        inputs: Vec::new(),
        total_params,
        trainable_params: None,
        tally: None,
        notes: vec![super::NAMES_NOTE.to_owned()],
        ..Counts::default()
    })
}

/// The header, and how many bytes follow it.
fn header(file: &ModelFile) -> Result<(BTreeMap<String, Entry>, u64), ModelError> {
    let mut reader = file.reader()?;
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(ModelError::Read)?;
    let length = u64::from_le_bytes(length);
    let Some(data_bytes) = file.length().checked_sub(8).and_then(|rest| rest.checked_sub(length)) else {
        return Err(ModelError::Malformed("its header is longer than the file".to_owned()));
    };
    if length > MOST_BYTES {
        return Err(ModelError::TooLarge(format!(
            "its header has more than {} MiB",
            MOST_BYTES >> 20
        )));
    }
    let header: BTreeMap<String, Entry> = serde_json::from_reader(reader.take(length))
        .map_err(|error| ModelError::Malformed(super::printable(&error.to_string())))?;
    Ok((header, data_bytes))
}

/// A tensor: its type and dimensions.
pub struct Shape {
    /// Its type, as the format names it.
    pub data_type: String,
    /// Its dimensions.
    pub dims: Vec<u64>,
}

/// The tensors by name.
///
/// # Errors
///
/// Where the header is malformed or too long.
pub fn shapes(file: &ModelFile) -> Result<BTreeMap<String, Shape>, ModelError> {
    let (header, _) = header(file)?;
    let shapes = header.into_iter().filter_map(|(name, entry)| {
        let (data_type, dims) = entry.dtype.zip(entry.shape)?;
        Some((name, Shape { data_type, dims }))
    });
    Ok(shapes.collect())
}

/// SHA-256 of the header, its length included.
///
/// # Errors
///
/// The system's.
pub fn header_sha256(file: &ModelFile) -> Result<String, ModelError> {
    let mut length = [0; 8];
    file.reader()?.read_exact(&mut length).map_err(ModelError::Read)?;
    file.sha256(u64::from_le_bytes(length).saturating_add(8))
}

/// Floats, and the small integers of quantised models.
fn is_weight(dtype: &str) -> bool {
    dtype.starts_with('F') || matches!(dtype, "BF16" | "I8" | "U8")
}

fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        _ => return None,
    })
}
