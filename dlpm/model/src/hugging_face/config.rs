//! `config.json`: what the library that wrote it says of the model.

use std::path::Path;

use serde_json::Value;

use super::CONFIG;
use crate::{ModelError, file::ModelFile};

/// Longest configuration that is read. Those with all words for a classifier's labels have 100 KB.
const MOST_BYTES: u64 = 1 << 20;

/// A configuration; of a model of several kinds of input, the part about text.
pub struct Config {
    all: Value,
    /// The family, as `model_type` names it.
    pub family: String,
    /// The class, as `LlamaForCausalLM`.
    pub class: String,
    has_text_part: bool,
}

impl Config {
    /// Reads it, and tells how long it is.
    ///
    /// # Errors
    ///
    /// Where it is missing or malformed.
    pub fn read(folder: &Path) -> Result<(Self, u64), ModelError> {
        let file = ModelFile::open_in(folder, CONFIG)?;
        let all: Value = serde_json::from_slice(&file.bytes(MOST_BYTES)?)
            .map_err(|error| ModelError::Malformed(crate::printable(&error.to_string())))?;
        Ok((Self::of(all), file.length()))
    }

    /// Of parsed JSON.
    pub fn of(all: Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let class = text(all.get("architectures").and_then(|classes| classes.get(0)));
        let has_text_part = all.get("text_config").is_some_and(Value::is_object);
        let of_text = if has_text_part {
            all.get("text_config")
        } else {
            Some(&all)
        };
        let own = text(of_text.and_then(|part| part.get("model_type")));
        let family = if own.is_empty() {
            text(all.get("model_type"))
        } else {
            own
        };
        Self {
            family,
            class,
            has_text_part,
            all,
        }
    }

    /// Whether it is about more than text.
    pub fn is_of_several_kinds(&self) -> bool {
        self.has_text_part
    }

    /// A value; `None` where it is missing or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let part = if self.has_text_part {
            self.all.get("text_config")?
        } else {
            &self.all
        };
        part.get(key)
            .or_else(|| self.all.get(key))
            .filter(|value| !value.is_null())
    }

    /// The first of these numbers that is there.
    pub fn number(&self, keys: &[&str]) -> Option<u64> {
        keys.iter().find_map(|key| self.get(key)?.as_u64())
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// Items of a list, or none.
    pub fn list(&self, key: &str) -> &[Value] {
        self.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Bits of a packed weight, where the weights are quantised.
    pub fn packed_bits(&self) -> Option<u64> {
        let quantised = self.get("quantization_config")?;
        let bits = |value: &Value| value.as_u64().filter(|bits| (1..=16).contains(bits));
        quantised.get("bits").and_then(bits).or_else(|| {
            quantised
                .pointer("/config_groups/group_0/weights/num_bits")
                .and_then(bits)
        })
    }
}
