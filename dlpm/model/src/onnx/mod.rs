//! ONNX: shapes are computed through the graph, and from them the operations.

mod call;
mod control;
mod data_type;
mod external;
mod ops;
mod order;
mod parameters;
pub mod proto;
mod run;
pub mod value;
mod wire;

use std::{collections::HashSet, path::Path};

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

/// What a reader of the parameters has to know.
const PARAMETERS_NOTE: &str = "ONNX does not tell which constants were trained: every constant tensor of floats that an operator \
    reads counts as a parameter";

/// Counts a model.
///
/// # Errors
///
/// Where the file is malformed or too large, or its inputs are not known.
pub fn read(file: &ModelFile, path: &Path, options: &Options) -> Result<Counts, ModelError> {
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
    let (dims, named) = input::resolve(&declared, &options.inputs, &options.dims, &options.values)?;

    let mut runner = Runner::new(&model, budget, Tally::new(options.per_layer));
    runner.dims = named;
    runner.with_modules = options.modules;
    let mut tensors = Vec::new();
    let mut listed = Vec::new();
    for (info, dims) in inputs.iter().zip(dims) {
        let value = options.values.iter().find(|value| value.name == info.name);
        let mut tensor = dims.clone().map(Tensor::of).unwrap_or_default();
        if let Some(value) = value {
            tensor = tensor.with(Some(data_of(&value.numbers, info)));
            if tensor.data.is_none() {
                return Err(ModelError::Input(format!(
                    "--value: the input `{}` is {}, which is not for {} values",
                    super::printable(&info.name),
                    dims.as_deref().map_or_else(|| "not known".to_owned(), value::show),
                    value.numbers.len()
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
    let weights = runner.parameters.weights()?;
    let mut notes = vec![PARAMETERS_NOTE.to_owned()];
    let mut zeros = inputs.iter().zip(&listed).filter(|(info, _)| {
        let dims = info.dims.as_ref();
        dims.is_some_and(|dims| dims.contains(&input::Dim::Zero))
    });
    if zeros.any(|(_, input)| input.dims.as_ref().is_some_and(|dims| dims.contains(&0))) {
        notes.push("an input has a dimension of 0; if that is a dimension that the file leaves open, give its size with --input".to_owned());
    }
    let external = external::files(path, &model)?;
    notes.extend(external::notes(&external));
    Ok(Counts {
        format: "onnx",
        inputs: listed,
        total_params: weights.parameters()?,
        trainable_params: None,
        module_params: runner.parameters.modules(),
        weights,
        external,
        tally: Some(runner.tally),
        notes,
    })
}

/// Values of the input's type.
fn data_of(numbers: &[Number], info: &ValueInfo) -> Data {
    let float = info.data_type.is_some_and(data_type::is_float);
    let ints = numbers.iter().map(|number| match number {
        Number::Int(int) if !float => Some(*int),
        _ => None,
    });
    if let Some(ints) = ints.collect() {
        return Data::Ints(ints);
    }
    #[expect(clippy::cast_precision_loss, reason = "the input is a float")]
    let floats = numbers.iter().map(|number| match number {
        Number::Int(int) => *int as f64,
        Number::Float(value) => *value,
    });
    Data::Floats(floats.collect())
}
