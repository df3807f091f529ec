//! What was found of a model, in the form of `model_summary.json`.

use serde_json::{Map, Value, json};

use super::{
    details::Details,
    input::{InputValue, Number},
    tally::Tally,
};

/// Name of the file in a log's folder, as AIPowerMeter has it.
pub const FILE_NAME: &str = "model_summary.json";

/// What is counted. Tools differ in this, so that the definition is a part of the result.
pub const MAC_DEFINITION: &str = "multiply-accumulate operations of convolutions, matrix products, Einstein sums, \
    recurrent layers and attention in one forward pass; without biases, elementwise operations, normalisation and \
    pooling (PyTorch's FlopCounterMode divided by 2)";

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputTensor {
    /// Its name.
    pub name: String,
    /// Of what its elements are.
    pub data_type: Option<String>,
    /// Bits of an element.
    pub element_bits: Option<u64>,
    /// Its dimensions; `None` where it is no tensor.
    pub dims: Option<Vec<u64>>,
}

impl InputTensor {
    fn bytes(&self) -> Option<u64> {
        let elements = self
            .dims
            .as_ref()?
            .iter()
            .try_fold(1u64, |all, dim| all.checked_mul(*dim))?;
        Some(elements.checked_mul(self.element_bits?)?.div_ceil(8))
    }
}

/// What a format's reader found.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Name of the format.
    pub format: &'static str,
    /// Inputs of the forward pass; empty where the format has none.
    pub inputs: Vec<InputTensor>,
    /// Parameters.
    pub total_params: u64,
    /// Those of them that are trained, where the format tells.
    pub trainable_params: Option<u64>,
    /// Operations; `None` where the format has parameters only.
    pub tally: Option<Tally>,
    /// What a reader has to know, a sentence each.
    pub notes: Vec<String>,
}

/// A model's size and work.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Name of the file, without its folder.
    pub source: String,
    /// SHA-256 of the file; `None` where it is so large that only its header was read, and for several files.
    pub sha256: Option<String>,
    /// Its length, or that of all files.
    pub file_bytes: u64,
    /// Values of inputs, as the user gave them.
    pub values: Vec<InputValue>,
    /// What was found.
    pub counts: Counts,
    /// What the format tells beyond that.
    pub details: Details,
}

impl Summary {
    /// Multiply-accumulate operations; `None` where the format does not have them.
    pub fn mult_adds(&self) -> Option<u64> {
        self.counts.tally.as_ref().map(|tally| tally.mult_adds)
    }

    /// Whether there is more than was counted.
    pub fn is_lower_bound(&self) -> bool {
        self.counts
            .tally
            .as_ref()
            .is_some_and(|tally| !tally.unsupported.is_empty())
    }

    /// The contents of `model_summary.json`: AIPowerMeter's fields, and `dlpm`.
    pub fn to_json(&self) -> Value {
        let counts = &self.counts;
        let shapes: Vec<&[u64]> = counts.inputs.iter().filter_map(|input| input.dims.as_deref()).collect();
        // With several inputs, a list for each.
        let input_size = match shapes.as_slice() {
            [] => Value::Null,
            [shape] => json!(shape),
            shapes => json!(shapes),
        };
        let bytes = counts.inputs.iter().map(InputTensor::bytes);
        let bytes = bytes.reduce(|sum, bytes| sum?.checked_add(bytes?)).flatten();
        json!({
            "input_size": input_size,
            "total_params": counts.total_params,
            "trainable_params": counts.trainable_params,
            "total_input": bytes.filter(|_| !shapes.is_empty()),
            "total_mult_adds": self.mult_adds(),
            "dlpm": self.own_part(),
        })
    }

    fn own_part(&self) -> Value {
        let counts = &self.counts;
        let inputs: Vec<Value> = counts
            .inputs
            .iter()
            .map(|input| json!({ "name": input.name, "type": input.data_type, "dims": input.dims }))
            .collect();
        let values = self.values.iter().map(|value| {
            let number = match value.number {
                Number::Int(int) => json!(int),
                Number::Float(float) => json!(float),
            };
            (value.name.clone(), number)
        });
        let mut own = json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "source": self.source,
            "format": counts.format,
            "sha256": self.sha256,
            "file_bytes": self.file_bytes,
            "inputs": inputs,
            "values": values.collect::<Map<_, _>>(),
            "mac_definition": counts.tally.as_ref().map(|_| MAC_DEFINITION),
            "lower_bound": self.is_lower_bound(),
        });
        if let (Some(tally), Some(own)) = (&counts.tally, own.as_object_mut()) {
            let per_op = tally.per_op.iter().map(|(op, count)| {
                let count = json!({ "runs": count.runs, "mult_adds": count.mult_adds });
                (op.clone(), count)
            });
            own.insert("per_op".into(), per_op.collect::<Map<_, _>>().into());
            let unsupported: Vec<Value> = tally
                .unsupported
                .iter()
                .map(|((op, why), runs)| json!({ "op": op, "runs": runs, "why": why }))
                .collect();
            own.insert("unsupported_ops".into(), unsupported.into());
            if !tally.layers.is_empty() {
                let layers: Vec<Value> = tally
                    .layers
                    .iter()
                    .map(|layer| {
                        json!({ "name": layer.name, "op": layer.op, "output": layer.output, "runs": layer.runs,
                            "mult_adds": layer.mult_adds })
                    })
                    .collect();
                own.insert("layers".into(), layers.into());
            }
        }
        if let Some(own) = own.as_object_mut() {
            self.details.add_to(own);
            own.insert("notes".into(), counts.notes.clone().into());
        }
        own
    }
}
