//! GGUF, the format of llama.cpp and of most models that people run at home: its header tells parameters, types and
//! what the network is made of.

mod families;
mod header;
mod network;
mod parts;
mod types;

use std::path::Path;

use header::{Header, Tensor, Value};

use super::{
    ModelError, Options,
    details::Details,
    file::ModelFile,
    language::{self, View},
    summary::Counts,
    tally::Tally,
};

/// Reads a model: one file, or all parts of one that is split.
///
/// # Errors
///
/// Where a header is malformed or too large, or a part is missing.
pub fn read(file: &ModelFile, path: &Path, options: &Options, details: &mut Details) -> Result<Counts, ModelError> {
    let mut header = Header::read(file)?;
    details.header_sha256 = Some(file.sha256(header.bytes)?);
    let mut notes = Vec::new();
    parts::add(&mut header, file, path, details)?;
    let mut total_params = 0u64;
    for tensor in &header.tensors {
        let type_name = tensor
            .element
            .map_or_else(|number| format!("type {number}"), |element| element.name.to_owned());
        details.add_tensor(&type_name, tensor.elements, tensor.bytes)?;
        if tensor.element.is_ok_and(|element| !element.is_weight()) {
            continue;
        }
        let sum = total_params.checked_add(tensor.elements);
        total_params = sum.ok_or_else(|| ModelError::TooLarge("its parameters have more than 64 bits".to_owned()))?;
    }
    if header.tensors.iter().any(|tensor| tensor.element.is_err()) {
        notes.push("dlpm does not know the type of some tensors, so that their bytes are not counted".to_owned());
    }
    let (inputs, tally) = match network::of(&header) {
        Ok(found) => {
            notes.extend(found.notes);
            let view = View::of(&found.network, &options.language)?;
            let pass = language::pass(&found.network, &view, options.per_layer)?;
            notes.extend(view.notes());
            details.language = Some(view);
            pass
        }
        Err(why) => {
            let mut tally = Tally::new(false);
            tally.cannot(&why.what, &why.why);
            (Vec::new(), tally)
        }
    };
    Ok(Counts {
        format: "gguf",
        inputs,
        total_params,
        trainable_params: None,
        tally: Some(tally),
        notes,
        ..Counts::default()
    })
}
