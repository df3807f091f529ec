//! `.safetensors`: names and shapes of tensors, in a header of JSON.
//!
//! The form is described at <https://github.com/huggingface/safetensors#format>.

mod packed;

use std::{collections::BTreeMap, io::Read as _};

use packed::Part;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ModelError, file::ModelFile, modules, summary::Counts, weights::Weights};

/// Longest header that is read.
const MOST_BYTES: u64 = 8 << 20;

/// A tensor.
#[derive(Debug, Deserialize)]
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
    let mut weights = Weights::default();
    let mut module_params = BTreeMap::new();
    for (name, entry) in &header {
        let malformed = |why: &str| ModelError::Malformed(format!("the tensor `{}` {why}", super::printable(name)));
        let (Some(dtype), Some(shape), Some((begin, end))) = (&entry.dtype, &entry.shape, entry.data_offsets) else {
            return Err(malformed("has no type, shape or place"));
        };
        if begin > end || end > data_bytes {
            return Err(malformed("lies outside the file"));
        }
        let count = shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
        let all_bits = count.and_then(|count| bits(dtype)?.checked_mul(count));
        // A type that is not known may be of any size.
        let fits = bits(dtype).is_none() || all_bits.is_some_and(|bits| bits.div_ceil(8) == end - begin);
        let Some(count) = count.filter(|_| fits) else {
            return Err(malformed("has another size than its shape"));
        };
        let all_bits = all_bits.or((end - begin).checked_mul(8));
        match packed::part(&header, name, dtype, count) {
            Part::Parameters(data_type, parameters) => {
                weights.count(&data_type, parameters, all_bits)?;
                *module_params.entry(modules::of_tensor(name)).or_default() += parameters;
            }
            Part::Not(why) => weights.leave_out(why, count, all_bits)?,
        }
    }
    Ok(Counts {
        format: "safetensors",
        inputs: Vec::new(),
        total_params: weights.parameters()?,
        weights,
        module_params,
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
    let mut text = Vec::new();
    reader.take(length).read_to_end(&mut text).map_err(ModelError::Read)?;
    let malformed = |error: serde_json::Error| ModelError::Malformed(super::printable(&error.to_string()));
    let entries: BTreeMap<String, &RawValue> = serde_json::from_slice(&text).map_err(malformed)?;
    let entries = entries.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensors = entries.map(|(name, entry)| Ok((name, serde_json::from_str(entry.get()).map_err(malformed)?)));
    let tensors = tensors.collect::<Result<_, ModelError>>()?;
    Ok((tensors, data_bytes))
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
    dtype.starts_with('F') || matches!(dtype, "BF16" | "I8" | "U8" | "C64")
}

fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F6_E2M3" | "F6_E3M2" => 6,
        "F4" => 4,
        _ => return None,
    })
}
