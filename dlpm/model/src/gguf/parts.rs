//! The parts of a split model: `NAME-00001-of-00003.gguf` and those beside it, as llama.cpp's `gguf-split` names them.

use std::path::Path;

use super::{Header, Value};
use crate::{ModelError, details::Details, file::ModelFile};

/// Most parts of a model. The names have room for 99,999, and a model of a terabyte has some hundred.
const MOST_PARTS: u64 = 1_000;

/// Adds the tensors of the other parts, if there are any. Their names come from the name that the user gave, never from
/// the file.
///
/// # Errors
///
/// Where a part is missing, malformed or not one of the same model.
pub fn add(header: &mut Header, file: &ModelFile, path: &Path, details: &mut Details) -> Result<(), ModelError> {
    let count = match header.metadata.get("split.count") {
        None | Some(Value::Int(0 | 1)) => return Ok(()),
        Some(Value::Int(count)) => u64::try_from(*count).ok().filter(|count| *count <= MOST_PARTS),
        Some(_) => None,
    };
    let count = count.ok_or_else(|| ModelError::Malformed(format!("it is not split into 1 to {MOST_PARTS} parts")))?;
    let number = part_number(header)?;
    let mut kept = std::mem::take(&mut header.tensors);
    let mut all = Vec::new();
    let mut bytes = 0u64;
    for part in 0..count {
        let name = name_of(path, number, part, count)?;
        details.files.push(crate::printable(&name));
        if part == number {
            bytes = bytes.saturating_add(file.length());
            all.append(&mut kept);
            continue;
        }
        let in_part = |error: ModelError| error.in_part(&crate::printable(&name));
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let other_file = ModelFile::open_in(folder, &name).map_err(in_part)?;
        let other = Header::read(&other_file).map_err(in_part)?;
        if part_number(&other)? != part || other.metadata.get("split.count") != Some(&Value::Int(count.into())) {
            return Err(in_part(ModelError::Malformed(format!(
                "it is not part {} of {count}",
                part + 1
            ))));
        }
        bytes = bytes.saturating_add(other_file.length());
        // The metadata is in the first part.
        if part == 0 {
            header.metadata = other.metadata;
        }
        all.extend(other.tensors);
    }
    let wanted = header.metadata.get("split.tensors.count");
    if matches!(wanted, Some(Value::Int(wanted)) if *wanted != all.len() as i128) {
        return Err(ModelError::Malformed(
            "its parts do not hold as many tensors as they say".to_owned(),
        ));
    }
    header.tensors = all;
    details.files_bytes = Some(bytes);
    Ok(())
}

fn part_number(header: &Header) -> Result<u64, ModelError> {
    match header.metadata.get("split.no") {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
    .ok_or_else(|| ModelError::Malformed("it is split, but does not say which part it is".to_owned()))
}

/// The name of another part, from that of one.
fn name_of(path: &Path, number: u64, other: u64, count: u64) -> Result<String, ModelError> {
    let suffix = |part: u64| format!("-{:05}-of-{count:05}.gguf", part.saturating_add(1));
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(&suffix(number))) else {
        return Err(ModelError::Input(format!(
            "it is part {} of {count}, and its name does not end in {}, so that the other parts cannot be found; \
             rename them, or join them with llama.cpp's gguf-split --merge",
            number.saturating_add(1),
            suffix(number)
        )));
    };
    Ok(format!("{stem}{}", suffix(other)))
}
