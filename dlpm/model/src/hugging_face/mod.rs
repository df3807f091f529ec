//! A folder as Hugging Face's libraries write it: `config.json` and the weights as `.safetensors`, in one file or several.

mod config;
mod families;
mod files;
mod names;
mod network;

use std::{collections::BTreeMap, path::Path};

use config::Config;
use files::Shards;

use super::{
    ModelError, Options, Summary,
    details::Details,
    language::{self, View},
    safetensors::Shape,
    summary::Counts,
    tally::Tally,
};

/// The file that makes a folder one of these.
const CONFIG: &str = "config.json";

/// Whether a folder is one of these.
pub fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG).symlink_metadata().is_ok()
}

/// Reads the model in a folder.
///
/// # Errors
///
/// Where a file is missing, malformed or too large, or leads out of the folder.
pub fn read(folder: &Path, options: &Options) -> Result<Summary, ModelError> {
    let mut details = Details::default();
    let (config, config_bytes) = Config::read(folder).map_err(|error| error.in_part(CONFIG))?;
    let shards = Shards::read(folder)?;
    details.files = std::iter::once(CONFIG.to_owned()).chain(shards.names).collect();
    details.files_bytes = Some(shards.bytes.saturating_add(config_bytes));
    let mut notes = shards.notes;
    let (inputs, tally) = computation(&config, &shards.tensors, options, &mut details, &mut notes)?;
    Ok(Summary {
        source: source(folder),
        sha256: None,
        file_bytes: details.files_bytes.unwrap_or_default(),
        values: options.values.clone(),
        counts: Counts {
            format: "huggingface",
            inputs,
            total_params: shards.total_params,
            trainable_params: None,
            tally: Some(tally),
            notes,
            ..Counts::default()
        },
        details,
    })
}

/// What the model computes, or why that is not known.
fn computation(
    config: &Config,
    tensors: &BTreeMap<String, Shape>,
    options: &Options,
    details: &mut Details,
    notes: &mut Vec<String>,
) -> Result<(Vec<super::InputTensor>, Tally), ModelError> {
    match network::of(config, tensors) {
        Ok(network) => {
            let view = View::of(&network, &options.language)?;
            let pass = language::pass(&network, &view, options.per_layer)?;
            notes.extend(view.notes());
            details.language = Some(view);
            Ok(pass)
        }
        Err(unknown) => {
            let mut tally = Tally::new(false);
            tally.cannot(&unknown.what, &unknown.why);
            Ok((Vec::new(), tally))
        }
    }
}

/// The folder's name, also of `.`.
fn source(folder: &Path) -> String {
    match folder.file_name() {
        Some(_) => super::source(folder),
        None => folder
            .canonicalize()
            .map_or_else(|_| super::source(folder), |whole| super::source(&whole)),
    }
}
