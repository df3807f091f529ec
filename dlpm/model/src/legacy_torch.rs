//! What `torch.save` wrote before version 1.6, and still writes with `_use_new_zipfile_serialization=False`: pickles one after
//! the other, and then the storages.
//!
//! The pickles are a number by which the format is known, a version, facts of the machine, the object itself, and the list
//! of storages in the order in which they follow; see `_legacy_save` in PyTorch's `torch/serialization.py`. A storage is
//! its number of elements in 64 bits, and these.

use std::collections::HashMap;

use super::{
    ModelError,
    file::ModelFile,
    pickle::{self, Object, Objects},
    summary::Counts,
    torch_script,
};

/// Bytes in which the pickles have to end. They have no weights.
const MOST_BYTES: u64 = 32 << 20;

/// The only version there is.
const VERSION: i64 = 1001;

/// The number by which the format is known, 0x1950a86a20f9469cfc6c, as a pickle writes it.
const NUMBER: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file begins as these do.
pub fn is_begin(begin: &[u8]) -> bool {
    matches!(begin, [0x80, 2..=5, rest @ ..] if rest.starts_with(&NUMBER))
}

/// Counts the parameters.
///
/// # Errors
///
/// Where a pickle is malformed or too large, or a storage is missing.
pub fn read(file: &ModelFile) -> Result<Counts, ModelError> {
    let bytes = file.bytes_up_to(MOST_BYTES)?;
    let too_large = |error: ModelError| {
        // The end of what was read is not the end of the file.
        if file.length() > MOST_BYTES && matches!(error, ModelError::Malformed(_)) {
            ModelError::TooLarge(format!(
                "its pickles have more than {} MiB, or are malformed",
                MOST_BYTES >> 20
            ))
        } else {
            error
        }
    };
    let (_, rest) = pickle::read_first(&bytes)?;
    let (version, rest) = pickle::read_first(rest)?;
    if *version.get(version.root) != Object::Int(VERSION) {
        return Err(ModelError::Malformed(format!(
            "its version of torch.save's format is not {VERSION}"
        )));
    }
    let (_, rest) = pickle::read_first(rest)?;
    let (objects, rest) = pickle::read_first(rest).map_err(too_large)?;
    let (keys, rest) = pickle::read_first(rest).map_err(too_large)?;
    let begin = (bytes.len() - rest.len()) as u64;
    let storages = storages_bytes(&objects, &keys)?;
    if begin.checked_add(storages).is_none_or(|end| end > file.length()) {
        return Err(ModelError::Malformed(
            "its storages are longer than the file".to_owned(),
        ));
    }
    torch_script::count(&objects, "torch.save-legacy")
}

/// Bytes of the storages in a list, from what the object says of each.
fn storages_bytes(objects: &Objects, keys: &Objects) -> Result<u64, ModelError> {
    let mut sizes = HashMap::new();
    for object in objects.iter() {
        let Object::Persistent(id) = object else { continue };
        if let [_, class, key, _, elements, ..] = objects.items(*id)
            && let (Some(class), Some(key)) = (objects.global(*class), objects.text(*key))
            && let Object::Int(elements) = objects.get(*elements)
        {
            let elements = u64::try_from(*elements).ok();
            let bytes = element_bytes(class).and_then(|bytes| elements?.checked_mul(bytes)?.checked_add(8));
            sizes.insert(key, bytes);
        }
    }
    let mut sum = 0u64;
    for key in keys.items(keys.root) {
        let known = keys.text(*key).and_then(|key| sizes.get(key)).copied();
        let Some(bytes) = known else {
            return Err(ModelError::Malformed(
                "it lists a storage that no tensor has".to_owned(),
            ));
        };
        // Of a class that is not known, at least its length is there.
        let next = sum.checked_add(bytes.unwrap_or(8));
        sum = next.ok_or_else(|| ModelError::Malformed("its storages are longer than any file".to_owned()))?;
    }
    Ok(sum)
}

/// Bytes of an element, by the class of its storage.
fn element_bytes(class: &str) -> Option<u64> {
    Some(match class.rsplit('.').next()? {
        "ComplexDoubleStorage" => 16,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" | "QInt32Storage" => 4,
        "HalfStorage" | "ShortStorage" | "BFloat16Storage" => 2,
        "ByteStorage" | "CharStorage" | "BoolStorage" | "QInt8Storage" | "QUInt8Storage" => 1,
        _ => return None,
    })
}
