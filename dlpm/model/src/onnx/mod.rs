//! ONNX: shapes are computed through the graph, and from them the operations.

mod call;
mod control;
mod data_type;
mod ops;
mod parameters;
mod proto;
mod run;
pub mod value;
mod wire;

use std::collections::HashSet;

use super::{
    ModelError, Options,
    file::ModelFile,
    input::{self, Declared, Number},
    summary::{Counts, InputTensor},
    tally::Tally,
};
use proto::ValueInfo;
use run::Runner;
use value::{Data, Tensor};

/// Counts a model.
///
/// # Errors
///
/// Where the file is malformed or too large, or its inputs are not known.
pub fn read(file: &ModelFile, options: &Options) -> Result<Counts, ModelError> {
    let (model, budget) = proto::read(file.reader()?, file.length())?;
    let graph = &model.graph;
    let constants: HashSet<&str> = graph
        .initializers
        .iter()
        .map(|constant| constant.name.as_str())
        .collect();
    // Files of old versions list the initializers among the inputs.
    let inputs: Vec<&ValueInfo> = graph
        .inputs
        .iter()
        .filter(|info| !constants.contains(info.name.as_str()))
        .collect();
    let declared: Vec<Declared> = inputs
        .iter()
        .map(|info| Declared {
            name: info.name.clone(),
            dims: info.dims.clone(),
        })
        .collect();
    let (dims, named) = input::resolve(&declared, &options.inputs, &options.values)?;

    let mut runner = Runner::new(&model, budget, Tally::new(options.per_layer));
    runner.dims = named;
    let mut tensors = Vec::new();
    let mut listed = Vec::new();
    for (info, dims) in inputs.iter().zip(dims) {
        let value = options.values.iter().find(|value| value.name == info.name);
        let mut tensor = dims.clone().map(Tensor::of).unwrap_or_default();
        if let Some(value) = value {
            tensor = tensor.with(Some(data_of(value.number, info)));
            if tensor.data.is_none() {
                return Err(ModelError::Input(format!(
                    "--value: the input `{}` is no scalar",
                    super::printable(&info.name)
                )));
            }
        } else if info.data_type.is_some_and(|of| !data_type::is_float(of)) {
            runner.open_values.push(&info.name);
        }
        listed.push(InputTensor {
            name: super::printable(&info.name),
            data_type: info.data_type.map(|of| data_type::name(of).to_owned()),
            element_bits: info.data_type.and_then(data_type::bits),
            dims,
        });
        tensors.push((info.name.as_str(), tensor));
    }
    runner.graph(graph, tensors, None)?;
    let total_params = runner
        .parameters
        .total()
        .ok_or_else(|| ModelError::TooLarge("its parameters have more than 64 bits".to_owned()))?;
    Ok(Counts {
        format: "onnx",
        inputs: listed,
        total_params,
        trainable_params: None,
        tally: Some(runner.tally),
        notes: vec!["ONNX does not tell which constants were trained: every constant tensor of floats that an operator reads counts as a parameter".to_owned()],
    })
}

/// A scalar of the input's type.
fn data_of(number: Number, info: &ValueInfo) -> Data {
    let float = info.data_type.is_some_and(data_type::is_float);
    match number {
        #[expect(clippy::cast_precision_loss, reason = "the input is a float")]
        Number::Int(int) if float => Data::Floats([int as f64].into()),
        Number::Int(int) => Data::Ints([int].into()),
        Number::Float(value) => Data::Floats([value].into()),
    }
}
