//! What a model costs to run: joules per inference, and energy per multiply-add.

use std::path::Path;

use dlpm_model::FILE_NAME;
use serde::Deserialize;

use crate::files;

/// The summary of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Model {
    /// Number of parameters.
    pub total_params: Option<u64>,
    /// Multiply-adds of one inference.
    pub total_mult_adds: Option<u64>,
    #[serde(default)]
    dlpm: Details,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Details {
    #[serde(default)]
    unsupported_ops: Vec<serde_json::Value>,
    #[serde(default)]
    language_model: Option<Language>,
}

/// A model of text: what its multiply-adds are those of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Language {
    kind: String,
    #[serde(default)]
    sweep: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Step {
    batch: u64,
    context: u64,
}

impl Model {
    /// The model of a folder; `None` without one.
    ///
    /// # Errors
    ///
    /// A sentence, if the file cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(FILE_NAME);
        let failed = |error: &dyn std::fmt::Display| {
            format!(
                "{} cannot be read: {error}; write it anew with `dlpm model`, or move it away",
                path.display()
            )
        };
        let Some(text) = files::small(&path).map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| failed(&error))
    }

    /// Whether some operations of the model were not counted, so that there are more multiply-adds.
    pub fn is_lower_bound(&self) -> bool {
        !self.dlpm.unsupported_ops.is_empty()
    }

    /// The first batch and context of a model that makes tokens; its multiply-adds are those of one for each sequence.
    fn step(&self) -> Option<&Step> {
        let language = self.dlpm.language_model.as_ref()?;
        language.sweep.first().filter(|_| language.kind != "encoder")
    }

    /// What its multiply-adds are those of.
    pub fn unit(&self) -> &'static str {
        match self.step() {
            Some(_) => "one new token of each sequence",
            None => "one inference",
        }
    }

    /// Multiply-adds of a new token, if the model makes tokens.
    pub fn mult_adds_per_token(&self) -> Option<f64> {
        let step = self.step().filter(|step| step.batch > 0)?;
        Some(self.total_mult_adds? as f64 / step.batch as f64)
    }

    /// The context in which such a token is made, itself included.
    pub fn context(&self) -> Option<u64> {
        self.step().map(|step| step.context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::phases::Inferences;

    fn inferences(model: &Model, count: u64) -> Inferences {
        Inferences {
            count,
            mult_adds: model.total_mult_adds,
        }
    }

    #[test]
    fn energy_of_a_multiply_add() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Model::of_folder(folder.path()), Ok(None));
        let write = |text: &str| std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
        write("{\"total_params\":7,\"total_mult_adds\":4000000,\"dlpm\":{\"unsupported_ops\":[],\"x\":1}}");
        let model = Model::of_folder(folder.path()).unwrap().unwrap();
        // 8 J for 1000 inferences of 4 M multiply-adds.
        assert_eq!(inferences(&model, 1000).picojoules(8_000_000), Some(2000.0));
        assert_eq!(inferences(&model, 1000).joules(8_000_000), 0.008);
        assert!(!model.is_lower_bound());
        write("{\"total_mult_adds\":null,\"dlpm\":{\"unsupported_ops\":[\"Loop\"]}}");
        let model = Model::of_folder(folder.path()).unwrap().unwrap();
        assert!(model.is_lower_bound() && inferences(&model, 1).picojoules(1).is_none());
        write("[");
        assert!(Model::of_folder(folder.path()).is_err_and(|error| error.contains("dlpm model")));
    }
}
