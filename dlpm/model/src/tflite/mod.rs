//! TensorFlow Lite, now called LiteRT: parameters, and the operations of the shapes that are in the file.

mod flatbuffer;
mod ops;
mod schema;

use std::collections::HashMap;

use ops::Call;
use schema::{Graph, Model, Open, Operator, Tensor};

use super::{
    ModelError, Options,
    details::Details,
    file::ModelFile,
    onnx::value::Stop,
    summary::{Counts, InputTensor},
    tally::Tally,
};

/// The identifier of the format, behind the first four bytes.
const IDENTIFIER: &[u8; 4] = b"TFL3";

/// Operators that are run, those of subgraphs each time.
const MOST_RUNS: u64 = 300_000;

/// Subgraphs in subgraphs.
const MOST_DEPTH: u32 = 16;

/// Whether a file begins as these do.
pub fn is_begin(begin: &[u8]) -> bool {
    matches!(begin, [_, _, _, _, rest @ ..] if rest.starts_with(IDENTIFIER))
}

/// Reads a model.
///
/// # Errors
///
/// Where it is malformed or too large, or an option asks for other shapes than it has.
pub fn read(file: &ModelFile, options: &Options, details: &mut Details) -> Result<Counts, ModelError> {
    let model = Model::read(file)?;
    let Some(main) = model.graphs.first() else {
        return Err(ModelError::Malformed("it has no subgraph".to_owned()));
    };
    let inputs = inputs(main, options)?;
    let mut notes = Vec::new();
    if main.tensors.iter().any(|tensor| tensor.open == Open::Batch) {
        notes.push("the file leaves the batch open; it counts as 1".to_owned());
    }
    if let [first, _, ..] = model.signatures.as_slice() {
        let count = model.signatures.len();
        let first = super::printable(first);
        notes.push(format!(
            "it has {count} entry points; the operations are those of the first, `{first}`"
        ));
    }
    let total_params = parameters(&model, details, &mut notes)?;
    let mut machine = Machine {
        model: &model,
        tally: Tally::new(options.per_layer),
        left_runs: MOST_RUNS,
    };
    machine.run(0, 0, true)?;
    Ok(Counts {
        format: "tflite",
        inputs,
        total_params,
        trainable_params: None,
        tally: Some(machine.tally),
        notes,
        ..Counts::default()
    })
}

fn inputs(main: &Graph, options: &Options) -> Result<Vec<InputTensor>, ModelError> {
    let tensors = main.inputs.iter().filter_map(|at| tensor(main, *at));
    let inputs: Vec<InputTensor> = tensors
        .map(|tensor| {
            let (name, bits) = type_of(tensor.data_type).unzip();
            InputTensor {
                name: super::printable(&tensor.name),
                data_type: name.map(str::to_owned),
                element_bits: bits,
                dims: tensor.dims.clone(),
            }
        })
        .collect();
    for (at, given) in options.inputs.iter().enumerate() {
        let known = match &given.name {
            Some(name) => inputs.iter().find(|input| input.name == *name),
            None => inputs.get(at),
        };
        if known.and_then(|input| input.dims.as_ref()) != Some(&given.dims) {
            return Err(ModelError::Input(
                "--input: the shapes of a TFLite model are in the file, and these are others; leave --input out, or convert \
                 the model for these shapes"
                    .to_owned(),
            ));
        }
    }
    Ok(inputs)
}

fn tensor(graph: &Graph, at: i32) -> Option<&Tensor> {
    graph.tensors.get(usize::try_from(at).ok()?)
}

/// Name and bits of a type of elements, by its number.
fn type_of(number: u8) -> Option<(&'static str, u64)> {
    Some(match number {
        0 => ("float32", 32),
        1 => ("float16", 16),
        2 => ("int32", 32),
        3 => ("uint8", 8),
        4 => ("int64", 64),
        6 => ("bool", 8),
        7 => ("int16", 16),
        8 => ("complex64", 64),
        9 => ("int8", 8),
        10 => ("float64", 64),
        11 => ("complex128", 128),
        12 => ("uint64", 64),
        15 => ("uint32", 32),
        16 => ("uint16", 16),
        17 => ("int4", 4),
        18 => ("bfloat16", 16),
        _ => return None,
    })
}

/// Counts the constants that are weights: floats and small integers, and biases, each buffer once.
fn parameters(model: &Model, details: &mut Details, notes: &mut Vec<String>) -> Result<u64, ModelError> {
    let mut seen = HashMap::new();
    let mut sparse = 0u64;
    for graph in &model.graphs {
        for operator in graph
            .operators
            .iter()
            .filter(|operator| operator.code != ops::ASSIGN_VARIABLE)
        {
            for (position, at) in operator.inputs.iter().enumerate() {
                let Some(tensor) = tensor(graph, *at) else { continue };
                let bytes = model.buffers.get(tensor.buffer).copied().unwrap_or(0);
                let Some(dims) = tensor.dims.as_deref().filter(|dims| bytes > 0 && !dims.is_empty()) else {
                    continue;
                };
                if !is_weight(operator, position, tensor.data_type) {
                    continue;
                }
                let elements = dims.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
                let malformed = || ModelError::Malformed(format!("{} has no size", super::printable(&tensor.name)));
                let elements = elements.ok_or_else(malformed)?;
                let bits = type_of(tensor.data_type).and_then(|(_, bits)| elements.checked_mul(bits));
                let fits = bits.is_some_and(|bits| bits.div_ceil(8) == bytes);
                if !fits && !tensor.is_sparse {
                    return Err(ModelError::Malformed(format!(
                        "{} has another size than its shape",
                        super::printable(&tensor.name)
                    )));
                }
                if seen.insert(tensor.buffer, elements).is_none() {
                    sparse += u64::from(tensor.is_sparse);
                    let name = type_of(tensor.data_type).map_or("unknown", |(name, _)| name);
                    details.add_tensor(name, elements, Some(bytes))?;
                }
            }
        }
    }
    if sparse > 0 {
        notes.push(format!(
            "{sparse} of its tensors are sparse; they count with all their elements"
        ));
    }
    let sum = seen.into_values().try_fold(0u64, u64::checked_add);
    sum.ok_or_else(|| ModelError::TooLarge("its parameters have more than 64 bits".to_owned()))
}

/// Whether a constant is a weight: by its type, or where it is added as a bias, which is wider in quantised models.
fn is_weight(operator: &Operator, position: usize, data_type: u8) -> bool {
    let is_small = matches!(data_type, 0 | 1 | 3 | 9 | 10 | 17 | 18);
    let is_bias = match operator.code {
        3 | 4 | 9 | 132 => position == 2,
        67 | 141 => position == 3,
        _ => false,
    };
    let is_product = ops::name(operator.code).is_some();
    is_small || is_bias && matches!(data_type, 2 | 4) || is_product && data_type == 7
}

struct Machine<'m> {
    model: &'m Model,
    tally: Tally,
    left_runs: u64,
}

impl Machine<'_> {
    /// Runs a subgraph, and tells its operations; they are added to the tally where it `counts`.
    fn run(&mut self, number: u32, depth: u32, counts: bool) -> Result<u64, ModelError> {
        let model = self.model;
        let at = usize::try_from(number).ok();
        let Some(graph) = at.and_then(|at| model.graphs.get(at)) else {
            return Err(ModelError::Malformed(
                "it runs a subgraph that it does not have".to_owned(),
            ));
        };
        if depth > MOST_DEPTH {
            return Err(ModelError::Malformed(format!(
                "it runs subgraphs in subgraphs, more than {MOST_DEPTH} deep"
            )));
        }
        let mut sum = 0u64;
        for (at, operator) in graph.operators.iter().enumerate() {
            self.left_runs = self
                .left_runs
                .checked_sub(1)
                .ok_or_else(|| ModelError::TooLarge(format!("one pass runs more than {MOST_RUNS} operators")))?;
            let more = match operator.code {
                ops::CALL | ops::COMPOSITE => self.run(operator.options.graphs[0], depth + 1, counts)?,
                ops::IF => self.branch(operator, depth, counts)?,
                ops::WHILE => self.repeat(operator, depth, counts)?,
                // Before the first pass, and not in any.
                ops::CALL_ONCE => 0,
                _ => self.operator(number, at, counts)?,
            };
            sum = sum
                .checked_add(more)
                .ok_or_else(|| ModelError::TooLarge("its operations have more than 64 bits".to_owned()))?;
        }
        Ok(sum)
    }

    /// Counts the cheaper of two branches, since nothing tells which one runs.
    fn branch(&mut self, operator: &Operator, depth: u32, counts: bool) -> Result<u64, ModelError> {
        let [yes, no] = operator.options.graphs;
        let (if_yes, if_no) = (self.run(yes, depth + 1, false)?, self.run(no, depth + 1, false)?);
        if counts {
            self.run(if if_yes <= if_no { yes } else { no }, depth + 1, true)?;
            if if_yes != if_no {
                self.tally
                    .cannot("IF", "its condition is not known, the cheaper branch is counted");
            }
        }
        Ok(if_yes.min(if_no))
    }

    /// A loop runs as often as its condition says, which only a run of the model can tell.
    fn repeat(&mut self, operator: &Operator, depth: u32, counts: bool) -> Result<u64, ModelError> {
        let [condition, body] = operator.options.graphs;
        let once = self
            .run(condition, depth + 1, false)?
            .max(self.run(body, depth + 1, false)?);
        if counts && once > 0 {
            self.tally
                .cannot("WHILE", "only a run of the model can tell how many turns it takes");
        }
        Ok(0)
    }

    fn operator(&mut self, graph_number: u32, at: usize, counts: bool) -> Result<u64, ModelError> {
        let model = self.model;
        let graph = usize::try_from(graph_number)
            .ok()
            .and_then(|number| model.graphs.get(number));
        let Some((graph, operator)) = graph.and_then(|graph| Some((graph, graph.operators.get(at)?))) else {
            return Ok(0);
        };
        let dims = |at: &i32| {
            let tensor = tensor(graph, *at)?;
            Some((tensor.dims.as_deref()?, tensor.is_variable))
        };
        let output = operator.outputs.first().and_then(|at| tensor(graph, *at));
        let call = Call {
            code: operator.code,
            custom: &operator.custom,
            inputs: operator.inputs.iter().map(dims).collect(),
            output: output.and_then(|tensor| tensor.dims.as_deref()),
            transposes_first: operator.options.transposes_first,
        };
        let name = match ops::name(operator.code) {
            Some(name) => name.to_owned(),
            None if operator.code == ops::CUSTOM => super::printable(&operator.custom),
            None => format!("operator {}", operator.code),
        };
        match ops::mult_adds(&call) {
            Ok(0) => Ok(0),
            Ok(mult_adds) => {
                if counts {
                    let key = (usize::try_from(graph_number).unwrap_or_default() << 32) + at;
                    let of = output.map_or("", |tensor| tensor.name.as_str());
                    if output.is_some_and(|tensor| tensor.open == Open::Others) {
                        let why = "a dimension is open, and counts as 1; convert the model for fixed shapes";
                        self.tally.cannot(&name, why);
                    }
                    self.tally
                        .count(&name, (key, of), call.output.unwrap_or_default(), mult_adds)?;
                }
                Ok(mult_adds)
            }
            Err(Stop::Unsupported(why) | Stop::Unknown(why) | Stop::Bad(why)) => {
                if counts {
                    self.tally.cannot(&name, &why);
                }
                Ok(0)
            }
        }
    }
}
