//! What was found of a model, in the form of `model_summary.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    details::Details,
    input::{InputValue, Number},
    modules::{self, Module},
    tally::Tally,
    weights::Weights,
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
    /// Its dimensions; `None` where it is not a tensor.
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

/// A file beside the model that holds weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFile {
    /// Its name, as the model has it.
    pub name: String,
    /// Bytes of it that the model refers to; `None` where the model does not say.
    pub needed_bytes: Option<u64>,
    /// Its length; `None` where it is missing.
    pub file_bytes: Option<u64>,
}

/// What a format's reader found.
#[derive(Clone, Debug, Default)]
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
    /// The file's tensors by type, and those that do not count.
    pub weights: Weights,
    /// Files with weights that the file names.
    pub external: Vec<ExternalFile>,
    /// Modules by their path, with the parameters of each, without the modules inside.
    pub module_params: BTreeMap<String, u64>,
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
    /// Multiply-accumulate operations; `None` where the format does not have them, or none could be counted of those that
    /// there are.
    pub fn mult_adds(&self) -> Option<u64> {
        let mult_adds = self.counts.tally.as_ref()?.mult_adds;
        (mult_adds > 0 || !self.misses_operations()).then_some(mult_adds)
    }

    /// Parameters; `None` where none could be counted of those that there are.
    pub fn params(&self) -> Option<u64> {
        let params = self.counts.total_params;
        (params > 0 || !self.misses_parameters()).then_some(params)
    }

    /// Whether there are more parameters or operations than were counted.
    pub fn is_lower_bound(&self) -> bool {
        self.misses_operations() || self.misses_parameters()
    }

    /// Whether there are more parameters than were counted.
    pub fn misses_parameters(&self) -> bool {
        self.counts.weights.is_lower_bound()
    }

    /// Whether there are more operations than were counted.
    pub fn misses_operations(&self) -> bool {
        self.counts
            .tally
            .as_ref()
            .is_some_and(|tally| !tally.unsupported.is_empty())
    }

    /// The modules as a tree, where that was asked for: each after the one around it, with all that is inside.
    pub fn modules(&self) -> Vec<Module> {
        let tally = self.counts.tally.as_ref();
        modules::tree(&self.counts.module_params, tally.map(|tally| &tally.modules))
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
            "total_params": self.params(),
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
            let number = |number: &Number| match number {
                Number::Int(int) => json!(int),
                Number::Float(float) => json!(float),
            };
            let numbers = match value.numbers.as_slice() {
                [one] => number(one),
                several => several.iter().map(number).collect(),
            };
            (value.name.clone(), numbers)
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
            "lower_bound": self.misses_operations(),
            "params_lower_bound": self.misses_parameters(),
        });
        if let (Some(tally), Some(own)) = (&counts.tally, own.as_object_mut()) {
            let per_op = tally.per_op.iter().map(|(op, count)| {
                let count = json!({ "runs": count.runs, "mult_adds": count.mult_adds });
                (op.clone(), count)
            });
            let times = |factor: u64| self.mult_adds().and_then(|mult_adds| mult_adds.checked_mul(factor));
            own.insert("flops".into(), times(2).into());
            own.insert("mult_adds_forward_and_backward_estimate".into(), times(3).into());
            own.insert("per_op".into(), per_op.collect::<Map<_, _>>().into());
            let unsupported: Vec<Value> = tally
                .unsupported
                .iter()
                .map(|((op, why), missed)| {
                    json!({ "op": op, "runs": missed.runs, "why": why, "first": missed.first, "uncounted_after": missed.after })
                })
                .collect();
            own.insert("unsupported_ops".into(), unsupported.into());
            if !tally.layers.is_empty() {
                let layers: Vec<Value> = tally
                    .layers
                    .iter()
                    .map(|layer| {
                        json!({ "name": layer.name, "op": layer.op, "input": layer.input, "output": layer.output,
                            "runs": layer.runs, "mult_adds": layer.mult_adds })
                    })
                    .collect();
                own.insert("layers".into(), layers.into());
            }
        }
        if let Some(own) = own.as_object_mut() {
            self.details.add_to(own);
            self.add_weights(own);
            own.insert("notes".into(), counts.notes.clone().into());
        }
        own
    }

    /// The tensors that do not count, and files beside the model.
    fn add_weights(&self, own: &mut Map<String, Value>) {
        let left_out = self.counts.weights.left_out.iter().map(|(why, sum)| {
            json!({ "why": why.text(), "tensors": sum.tensors, "elements": sum.elements, "bytes": sum.bytes })
        });
        own.insert("not_parameters".into(), left_out.collect());
        let modules = self.modules();
        if !modules.is_empty() {
            let modules = modules
                .iter()
                .map(|module| json!({ "path": module.path, "params": module.params, "mult_adds": module.mult_adds }));
            own.insert("modules".into(), modules.collect());
        }
        if !self.counts.external.is_empty() {
            let external = self.counts.external.iter().map(
                |file| json!({ "file": file.name, "needed_bytes": file.needed_bytes, "file_bytes": file.file_bytes }),
            );
            own.insert("external_data".into(), external.collect());
        }
    }
}
