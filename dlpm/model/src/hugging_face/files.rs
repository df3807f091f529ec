//! The weights of a folder: one file, or the files that an index names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    ModelError,
    file::{Budget, ModelFile},
    safetensors::{self, Shape},
};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Other names under which libraries save, and what to do with them.
const OTHERS: [(&str, &str); 6] = [
    (
        "pytorch_model.bin",
        "give that file itself, or save with safe_serialization=True",
    ),
    (
        "pytorch_model.bin.index.json",
        "save the model with safe_serialization=True",
    ),
    ("tf_model.h5", "load it with from_tf=True and save it again"),
    ("flax_model.msgpack", "load it with from_flax=True and save it again"),
    ("model.onnx", "give that file itself"),
    ("onnx", "give the .onnx file in it"),
];

/// Longest index that is read. That of a model of 91,000 tensors has 9 MB.
const MOST_INDEX_BYTES: u64 = 16 << 20;

/// Most tensors in an index.
const MOST_TENSORS: usize = 300_000;

/// Most files of weights.
const MOST_SHARDS: usize = 1_000;

/// The weights.
pub struct Shards {
    /// Names of the files that were read.
    pub names: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// All tensors by name.
    pub tensors: BTreeMap<String, Shape>,
    /// Parameters.
    pub total_params: u64,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensors by the file that holds them.
struct WeightMap {
    shards: BTreeMap<String, BTreeSet<String>>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = WeightMap;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the file of each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                use serde::de::Error as _;
                let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
                let mut count = 0;
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    count += 1;
                    if count > MOST_TENSORS {
                        return Err(A::Error::custom(format!("more than {MOST_TENSORS} tensors")));
                    }
                    if shards.len() >= MOST_SHARDS && !shards.contains_key(&shard) {
                        return Err(A::Error::custom(format!("more than {MOST_SHARDS} files")));
                    }
                    shards.entry(shard).or_default().insert(tensor);
                }
                Ok(WeightMap { shards })
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl Shards {
    /// Reads the headers of all files.
    ///
    /// # Errors
    ///
    /// Where one is missing, malformed, too large or out of the folder, or the index does not fit the files.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let is_there = |name: &str| folder.join(name).symlink_metadata().is_ok();
        let mut shards = Self {
            names: Vec::new(),
            bytes: 0,
            tensors: BTreeMap::new(),
            total_params: 0,
            notes: Vec::new(),
        };
        let mut budget = Budget::default();
        if is_there(INDEX) {
            let in_index = |error: ModelError| error.in_part(INDEX);
            let file = ModelFile::open_in(folder, INDEX).map_err(in_index)?;
            let index: Index = serde_json::from_slice(&file.bytes(MOST_INDEX_BYTES).map_err(in_index)?)
                .map_err(|error| in_index(ModelError::Malformed(crate::printable(&error.to_string()))))?;
            shards.names.push(INDEX.to_owned());
            shards.bytes = file.length();
            for (name, wanted) in &index.weight_map.shards {
                shards.add(folder, name, &mut budget)?;
                if let Some(missing) = wanted.iter().find(|tensor| !shards.tensors.contains_key(*tensor)) {
                    return Err(ModelError::Malformed(format!(
                        "its index says that {} holds {}, which it does not",
                        crate::printable(name),
                        crate::printable(missing)
                    )));
                }
            }
        } else if is_there(SINGLE) {
            shards.add(folder, SINGLE, &mut budget)?;
        } else {
            let other = OTHERS.iter().find(|(name, _)| is_there(name));
            return Err(ModelError::Input(match other {
                Some((name, next)) => format!("its weights are in {name}, not in {SINGLE}; {next}"),
                None => format!("it has config.json, but neither {SINGLE} nor {INDEX}; fetch the weights, too"),
            }));
        }
        Ok(shards)
    }

    fn add(&mut self, folder: &Path, name: &str, budget: &mut Budget) -> Result<(), ModelError> {
        let in_shard = |error: ModelError| error.in_part(&crate::printable(name));
        let file = ModelFile::open_in(folder, name).map_err(in_shard)?;
        let counts = safetensors::read(&file).map_err(in_shard)?;
        let sum = self.total_params.checked_add(counts.total_params);
        self.total_params =
            sum.ok_or_else(|| ModelError::TooLarge("its parameters have more than 64 bits".to_owned()))?;
        for note in counts.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        for (tensor, shape) in safetensors::shapes(&file).map_err(in_shard)? {
            budget.charge((2 * size_of::<(String, Shape)>() + tensor.len() + 8 * shape.dims.len()) as u64)?;
            if self.tensors.contains_key(&tensor) {
                return Err(ModelError::Malformed(format!(
                    "{} is in two of its files",
                    crate::printable(&tensor)
                )));
            }
            self.tensors.insert(tensor, shape);
        }
        file.unchanged().map_err(in_shard)?;
        self.names.push(crate::printable(name));
        self.bytes = self.bytes.saturating_add(file.length());
        Ok(())
    }
}
