//! `.keras`: an archive with the configuration of each layer, from which its sizes follow. The weights are not read.
//!
//! Layers keep in `build_config` for which shape they were made; see `keras/src/saving/serialization_lib.py` and
//! `keras/src/layers/layer.py` (`get_build_config`) in Keras 3.

mod layers;

use serde_json::Value;

use super::{
    ModelError, Options,
    archive::Archive,
    summary::{Counts, InputTensor},
    tally::Tally,
};
use layers::{Cost, Unknown};

/// The configuration in the archive.
pub const CONFIG: &str = "config.json";

/// What else is in every archive.
pub const METADATA: &str = "metadata.json";

/// Longest configuration that is read.
const MOST_BYTES: usize = 2 << 20;

/// Most layers, those of inner models each time.
const MOST_LAYERS: u64 = 100_000;

/// Models in models.
const MOST_DEPTH: u32 = 16;

/// Reads a model.
///
/// # Errors
///
/// Where it is malformed or too large.
pub fn read(archive: &mut Archive<'_>, options: &Options) -> Result<Counts, ModelError> {
    if !options.inputs.is_empty() || !options.dims.is_empty() || !options.values.is_empty() {
        return Err(ModelError::Input(
            "the shapes of a .keras file are those that its layers were made for; leave --input, --dim and --value out"
                .to_owned(),
        ));
    }
    let bytes = archive.bytes(CONFIG)?;
    if bytes.len() > MOST_BYTES {
        return Err(ModelError::TooLarge(format!(
            "its {CONFIG} has more than {} MiB",
            MOST_BYTES >> 20
        )));
    }
    let root: Value =
        serde_json::from_slice(&bytes).map_err(|error| ModelError::Malformed(super::printable(&error.to_string())))?;
    let mut machine = Machine {
        tally: Tally::new(options.per_layer),
        params: 0,
        trained: 0,
        left_layers: MOST_LAYERS,
        inputs: Vec::new(),
    };
    machine.layer(&root, true, 1, 0)?;
    Ok(Counts {
        format: "keras",
        inputs: machine.inputs,
        total_params: machine.params,
        trainable_params: Some(machine.trained),
        tally: Some(machine.tally),
        notes: vec![
            "the batch counts as 1; the parameters are those of the configuration, the weights are not read".to_owned(),
        ],
        ..Counts::default()
    })
}

struct Machine {
    tally: Tally,
    params: u64,
    trained: u64,
    left_layers: u64,
    inputs: Vec<InputTensor>,
}

/// The class of a layer.
fn class(layer: &Value) -> &str {
    layer.get("class_name").and_then(Value::as_str).unwrap_or_default()
}

impl Machine {
    /// Counts a layer, or the layers of a model, which is used so often in one pass.
    fn layer(&mut self, layer: &Value, is_trained: bool, uses: u64, depth: u32) -> Result<(), ModelError> {
        self.left_layers = self
            .left_layers
            .checked_sub(1)
            .ok_or_else(|| ModelError::TooLarge(format!("it has more than {MOST_LAYERS} layers")))?;
        if depth > MOST_DEPTH {
            return Err(ModelError::Malformed(format!(
                "it has models in models, more than {MOST_DEPTH} deep"
            )));
        }
        let class = class(layer);
        if class.is_empty() {
            return Err(ModelError::Malformed(
                "a layer in its configuration has no class_name".to_owned(),
            ));
        }
        let config = layer.get("config").unwrap_or(&Value::Null);
        let is_trained = is_trained && config.get("trainable").and_then(Value::as_bool) != Some(false);
        if let Some(inner) = config.get("layers").and_then(Value::as_array) {
            for inner in inner {
                self.layer(inner, is_trained, uses.saturating_mul(nodes(inner)), depth + 1)?;
            }
            return Ok(());
        }
        if class == "InputLayer" {
            if depth == 1 {
                self.inputs.push(input(config));
            }
            return Ok(());
        }
        let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
        match layers::cost(layer) {
            Ok(cost) => self.add(class, name, &cost, is_trained, uses),
            Err(Unknown(why)) => {
                self.tally.cannot(&super::printable(class), &why);
                Ok(())
            }
        }
    }

    fn add(&mut self, class: &str, name: &str, cost: &Cost, is_trained: bool, uses: u64) -> Result<(), ModelError> {
        let too_large = || ModelError::TooLarge("its parameters or operations have more than 64 bits".to_owned());
        self.params = self.params.checked_add(cost.params).ok_or_else(too_large)?;
        if is_trained {
            self.trained += cost.params;
        }
        if let Some(why) = &cost.open {
            self.tally.cannot(&super::printable(class), why);
        }
        if cost.mult_adds > 0 {
            let mult_adds = cost.mult_adds.checked_mul(uses).ok_or_else(too_large)?;
            let key = usize::try_from(self.left_layers).unwrap_or_default();
            self.tally
                .count(&super::printable(class), (key, name), &cost.output, mult_adds)?;
        }
        Ok(())
    }
}

/// How often a layer is used in its model: a layer that is shared has several nodes.
fn nodes(layer: &Value) -> u64 {
    let nodes = layer.get("inbound_nodes").and_then(Value::as_array);
    nodes.map_or(1, |nodes| (nodes.len() as u64).max(1))
}

fn input(config: &Value) -> InputTensor {
    let shape = config.get("batch_shape").or_else(|| config.get("batch_input_shape"));
    let dims = shape.and_then(Value::as_array).map(|dims| {
        let dims = dims.iter().enumerate();
        let dims = dims.map(|(at, dim)| {
            if at == 0 && dim.is_null() {
                Some(1)
            } else {
                dim.as_u64()
            }
        });
        dims.collect::<Option<Vec<u64>>>()
    });
    let text = |key: &str| Some(super::printable(config.get(key)?.as_str()?));
    InputTensor {
        name: text("name").unwrap_or_default(),
        data_type: text("dtype"),
        element_bits: None,
        dims: dims.flatten(),
    }
}
