//! `.pt2`: a program of `torch.export`, which holds the size of every tensor.
//!
//! The form is that of PyTorch's `torch/_export/serde/schema.py`. Archives of PyTorch 2.15 have `models/NAME.json`;
//! earlier ones had `serialized_exported_program.json`, of the same form.

mod count;
mod schema;
mod sizes;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    ModelError, Options,
    archive::Archive,
    input::{self, Declared, Dim},
    modules,
    summary::{Counts, InputTensor},
    tally::Tally,
    weights::{Weights, Why},
};
use schema::{Program, Size, Tensor, WeightsConfig};
use sizes::Sizes;

/// Whether a file in an archive is such a program.
pub fn is_program(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some("serialized_exported_program.json"), _) => true,
        (Some(file), Some("models")) => file.ends_with(".json"),
        _ => false,
    }
}

/// Counts a program.
///
/// # Errors
///
/// Where it is malformed or too large, or its inputs are not known.
pub fn read(archive: &mut Archive<'_>, name: &str, options: &Options) -> Result<Counts, ModelError> {
    let program: Program = parse(&archive.bytes(name)?)?;
    let mut notes = Vec::new();
    let weights = match archive.find(|name| name.ends_with("_weights_config.json")) {
        Some(config) => parse::<WeightsConfig>(&archive.bytes(&config)?)?,
        None => {
            notes.push(
                "parameters that share a tensor count several times: this version of the format does not tell"
                    .to_owned(),
            );
            WeightsConfig::default()
        }
    };
    let module = &program.graph_module;
    let tensors = &module.graph.tensor_values;
    let found = parameters(&program, &weights)?;

    let user_inputs = module
        .signature
        .input_specs
        .iter()
        .filter_map(|spec| spec.user_input.as_ref()?.arg.tensor());
    let inputs: Vec<(&str, Option<&Tensor>)> = user_inputs.map(|name| (name, tensors.get(name))).collect();
    let declared: Vec<Declared> = inputs
        .iter()
        .map(|(name, tensor)| Declared {
            name: (*name).to_owned(),
            dims: tensor.map(|tensor| tensor.sizes.iter().map(dim).collect()),
        })
        .collect();
    if let Some(value) = options.values.first() {
        return Err(ModelError::Input(format!(
            "--value {}: a .pt2 has no inputs that steer it by their value",
            super::printable(&value.name)
        )));
    }
    let (dims, symbols) = input::resolve(&declared, &options.inputs, &options.dims, &[])?;
    let inputs = inputs.iter().zip(dims).map(|((name, tensor), dims)| InputTensor {
        name: super::printable(name),
        data_type: tensor.map(|tensor| schema::type_name(tensor.dtype).to_owned()),
        element_bits: tensor.and_then(|tensor| schema::type_bits(tensor.dtype)),
        dims,
    });
    let inputs = inputs.collect();
    let mut tally = Tally::new(options.per_layer);
    count::graph(&module.graph, &Sizes::new(symbols), &mut tally, options.modules, 0)?;
    Ok(Counts {
        format: "pt2",
        inputs,
        total_params: found.weights.parameters()?,
        trainable_params: Some(found.trained),
        weights: found.weights,
        module_params: if options.modules {
            found.modules
        } else {
            BTreeMap::new()
        },
        tally: Some(tally),
        notes,
        ..Counts::default()
    })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(bytes).map_err(|error| ModelError::Malformed(super::printable(&error.to_string())))
}

fn dim(size: &Size) -> Dim {
    match size {
        Size::Number(0) => Dim::Zero,
        Size::Number(number) => u64::try_from(*number).map_or(Dim::Open, Dim::Fixed),
        Size::Expression(text) => sizes::symbol(text).map_or(Dim::Open, |name| Dim::Named(name.to_owned())),
    }
}

/// The parameters of a program.
#[derive(Default)]
struct Found {
    weights: Weights,
    trained: u64,
    modules: BTreeMap<String, u64>,
}

fn parameters(program: &Program, weights: &WeightsConfig) -> Result<Found, ModelError> {
    let module = &program.graph_module;
    let tensors = &module.graph.tensor_values;
    let specs = module.signature.input_specs.iter();
    let parameters = specs.filter_map(|spec| spec.parameter.as_ref());
    let mut seen = HashSet::new();
    let mut found = Found::default();
    let none = Sizes::new(HashMap::new());
    for parameter in parameters {
        let tensor = tensors.get(&parameter.arg.name);
        let count = tensor.and_then(|tensor| none.elements(&tensor.sizes));
        let (Some(tensor), Some(count)) = (tensor, count) else {
            return Err(ModelError::Malformed(format!(
                "the parameter `{}` has no size",
                super::printable(&parameter.parameter_name)
            )));
        };
        // One tensor under two names counts once.
        if let Some(stored) = weights.config.get(&parameter.parameter_name)
            && !seen.insert((&stored.path_name, &tensor.sizes, tensor.storage_offset()))
        {
            continue;
        }
        let bits = bits_of(tensor, count);
        found.weights.count(schema::type_name(tensor.dtype), count, bits)?;
        // No part is larger than the sum of all, which has been checked.
        let all = found.weights.parameters()?;
        found.trained = all.min(
            found
                .trained
                .saturating_add(if tensor.requires_grad { count } else { 0 }),
        );
        *found
            .modules
            .entry(modules::of_tensor(&parameter.parameter_name))
            .or_default() += count;
    }
    let buffers = module
        .signature
        .input_specs
        .iter()
        .filter_map(|spec| spec.buffer.as_ref());
    for buffer in buffers {
        let tensor = tensors.get(&buffer.arg.name);
        if let Some((tensor, count)) = tensor.and_then(|tensor| Some((tensor, none.elements(&tensor.sizes)?))) {
            found.weights.leave_out(Why::Buffer, count, bits_of(tensor, count))?;
        }
    }
    Ok(found)
}

fn bits_of(tensor: &Tensor, count: u64) -> Option<u64> {
    schema::type_bits(tensor.dtype)?.checked_mul(count)
}
