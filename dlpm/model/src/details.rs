//! What some formats tell beyond parameters and operations: weights by type, and the view of a language model.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ModelError, language::View};

/// Tensors of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightSum {
    /// How many there are.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Their bytes in the file; `None` where dlpm does not know the type.
    pub bytes: Option<u64>,
}

impl WeightSum {
    /// No tensors, of no bytes.
    pub const EMPTY: Self = Self {
        tensors: 0,
        elements: 0,
        bytes: Some(0),
    };

    /// Adds a tensor.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn add(&mut self, elements: u64, bytes: Option<u64>) -> Result<(), ModelError> {
        let too_large = || ModelError::TooLarge("its tensors have more than 64 bits of elements".to_owned());
        self.tensors += 1;
        self.elements = self.elements.checked_add(elements).ok_or_else(too_large)?;
        self.bytes = match (self.bytes, bytes) {
            (Some(sum), Some(bytes)) => Some(sum.checked_add(bytes).ok_or_else(too_large)?),
            _ => None,
        };
        Ok(())
    }
}

/// What a reader found beyond [`super::summary::Counts`].
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Files that were read, if there are several: names without their folder.
    pub files: Vec<String>,
    /// Bytes of these files together.
    pub files_bytes: Option<u64>,
    /// SHA-256 of the header, where only that was read.
    pub header_sha256: Option<String>,
    /// Tensors by their type.
    pub weights: BTreeMap<String, WeightSum>,
    /// Work of a language model.
    pub language: Option<View>,
}

impl Details {
    /// Adds a tensor to those of its type.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn add_tensor(&mut self, data_type: &str, elements: u64, bytes: Option<u64>) -> Result<(), ModelError> {
        let sum = self.weights.entry(data_type.to_owned()).or_insert(WeightSum::EMPTY);
        sum.add(elements, bytes)
    }

    /// Adds its fields to `dlpm` in `model_summary.json`, those that are known.
    pub(crate) fn add_to(&self, own: &mut Map<String, Value>) {
        if !self.files.is_empty() {
            own.insert("files".into(), json!(self.files));
        }
        if let Some(sha256) = &self.header_sha256 {
            own.insert("header_sha256".into(), json!(sha256));
        }
        if !self.weights.is_empty() {
            let weights = self.weights.iter().map(|(data_type, sum)| {
                let value = json!({
                    "tensors": sum.tensors,
                    "elements": sum.elements,
                    "bytes": sum.bytes,
                    "bits_per_element": bits_per_element(*sum),
                });
                (data_type.clone(), value)
            });
            own.insert("weights".into(), weights.collect::<Map<_, _>>().into());
        }
        if let Some(language) = &self.language {
            own.insert("language_model".into(), language.to_json());
        }
    }
}

/// Bits of an element on average, its share of scales included; `None` where nothing tells.
#[expect(
    clippy::cast_precision_loss,
    reason = "a mean for people; the exact sums stand beside it"
)]
pub fn bits_per_element(sum: WeightSum) -> Option<f64> {
    let bytes = sum.bytes?;
    (sum.elements > 0).then(|| (bytes as f64 * 8.0 / sum.elements as f64 * 1e4).round() / 1e4)
}
