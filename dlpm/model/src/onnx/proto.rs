//! The messages of an ONNX file, without its weights.
//!
//! Names and numbers of the fields are those of `onnx.proto3` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3>).

use std::io::{BufRead, Seek};

use super::{
    data_type, order,
    value::{Data, MOST_DIMS, MOST_VALUES, Tensor, elements},
    wire::{Field, Wire},
};
use crate::{ModelError, file::Budget, input::Dim};

type Result<T> = std::result::Result<T, ModelError>;

/// Values in an attribute at most.
const MOST_ATTRIBUTE_VALUES: usize = 1 << 16;

/// Longest property of an operator that is kept.
const MOST_PROPERTY_BYTES: u64 = 4096;

/// The property by which PyTorch's exporter tells the modules around an operator.
const NAME_SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// A model.
#[derive(Debug, Default)]
pub struct Model {
    /// What it computes.
    pub graph: Graph,
    /// Functions that it brings along.
    pub functions: Vec<Function>,
    /// Version of the standard operators.
    pub opset: i64,
}

/// A graph.
#[derive(Debug, Default)]
pub struct Graph {
    /// Operators, each after those that it reads from.
    pub nodes: Vec<Node>,
    /// Constants.
    pub initializers: Vec<Constant>,
    /// What goes in. Old files list the initializers, too.
    pub inputs: Vec<ValueInfo>,
    /// What comes out.
    pub outputs: Vec<ValueInfo>,
    /// What the file says of values between.
    pub value_info: Vec<ValueInfo>,
}

/// A function.
#[derive(Debug, Default)]
pub struct Function {
    /// Name, as operators call it.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// What it computes.
    pub nodes: Vec<Node>,
    /// Attributes that a call may leave out.
    pub defaults: Vec<Attribute>,
}

/// An operator.
#[derive(Debug, Default)]
pub struct Node {
    /// Names of its inputs; empty ones are left out.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Its own name.
    pub name: String,
    /// Which operator it is.
    pub op_type: String,
    /// Empty for standard operators.
    pub domain: String,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// The author's modules around it, as PyTorch's exporter writes them; empty where it did not.
    pub scopes: String,
}

/// An attribute.
#[derive(Debug, Default)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// The attribute of the calling operator that it stands for, in a function.
    pub reference: String,
    /// A float.
    pub float: Option<f32>,
    /// An integer.
    pub int: Option<i64>,
    /// Text.
    pub text: String,
    /// A constant.
    pub tensor: Option<Constant>,
    /// A graph.
    pub graph: Option<Box<Graph>>,
    /// Floats.
    pub floats: Vec<f64>,
    /// Integers.
    pub ints: Vec<i64>,
    /// How many texts.
    pub texts: usize,
}

/// A constant.
#[derive(Debug, Default)]
pub struct Constant {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<u64>,
    /// Of what its elements are, see [`data_type`].
    pub data_type: i64,
    /// Its values, where they are few.
    pub data: Option<Data>,
    /// How many elements a sparse constant holds.
    pub stored: Option<u64>,
    /// The file that holds its values, where that is another one.
    pub external: Option<External>,
}

/// Where another file holds values.
#[derive(Debug, Default)]
pub struct External {
    /// Its name, relative to the folder of the model.
    pub location: String,
    /// Where the values begin.
    pub offset: u64,
    /// Their bytes; `None` where the model does not say.
    pub length: Option<u64>,
}

/// What the file says of a value.
#[derive(Debug, Default)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Of what its elements are; `None` where it is not a tensor.
    pub data_type: Option<i64>,
    /// Its dimensions, if the file has them.
    pub dims: Option<Vec<Dim>>,
}

/// Reads a model of `length` bytes. What is left of the budget comes with it.
///
/// # Errors
///
/// Where it is malformed or too large.
pub fn read(input: impl BufRead + Seek, length: u64) -> Result<(Model, Budget)> {
    let mut wire = Wire::new(input, length);
    let mut model = Model::default();
    let mut graphs = 0;
    let end = wire.length();
    wire.message(end, |wire, number, field| {
        match number {
            7 => {
                graphs += 1;
                model.graph = graph(wire, field)?;
            }
            8 => {
                let (mut domain, mut version) = (String::new(), 0);
                let end = wire.end_of(field)?;
                wire.message(end, |wire, number, field| {
                    match number {
                        1 => domain = wire.string(field)?,
                        2 => version = wire.integer(field)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                if domain.is_empty() || domain == "ai.onnx" {
                    model.opset = version;
                }
            }
            25 => model.functions.push(function(wire, field)?),
            _ => {}
        }
        Ok(())
    })?;
    if graphs != 1 {
        return Err(ModelError::Malformed("it holds no graph".to_owned()));
    }
    Ok((model, wire.budget))
}

fn graph<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Graph> {
    let mut graph = Graph::default();
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => graph.nodes.push(node(wire, field)?),
            5 => graph.initializers.push(constant(wire, field)?),
            15 => graph.initializers.push(sparse(wire, field)?),
            11 => graph.inputs.push(value_info(wire, field)?),
            12 => graph.outputs.push(value_info(wire, field)?),
            13 => graph.value_info.push(value_info(wire, field)?),
            _ => {}
        }
        Ok(())
    })?;
    order::sort(&mut graph.nodes);
    Ok(graph)
}

fn function<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Function> {
    let mut function = Function::default();
    wire.budget.charge(size_of::<Function>() as u64)?;
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => function.name = wire.string(field)?,
            4 => function.inputs.push(wire.string(field)?),
            5 => function.outputs.push(wire.string(field)?),
            7 => function.nodes.push(node(wire, field)?),
            10 => function.domain = wire.string(field)?,
            11 => function.defaults.push(attribute(wire, field)?),
            _ => {}
        }
        Ok(())
    })?;
    order::sort(&mut function.nodes);
    Ok(function)
}

fn node<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Node> {
    let mut node = Node::default();
    wire.budget.charge(size_of::<Node>() as u64)?;
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 | 2 => {
                // With what is known of the tensor when the operator is run.
                wire.budget.charge(size_of::<Tensor>() as u64)?;
                let names = if number == 1 {
                    &mut node.inputs
                } else {
                    &mut node.outputs
                };
                names.push(wire.string(field)?);
            }
            3 => node.name = wire.string(field)?,
            4 => node.op_type = wire.string(field)?,
            5 => node.attributes.push(attribute(wire, field)?),
            7 => node.domain = wire.string(field)?,
            9 => {
                let (key, value) = pair(wire, field)?;
                if key == NAME_SCOPES {
                    node.scopes = value;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

/// A key and its value, as text.
fn pair<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => key = wire.string(field)?,
            // Stack traces are long, and nobody reads them here.
            2 if length_of(field, wire) <= MOST_PROPERTY_BYTES => value = wire.string(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

fn attribute<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Attribute> {
    let mut attribute = Attribute::default();
    wire.budget.charge(size_of::<Attribute>() as u64)?;
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => attribute.name = wire.string(field)?,
            2 => {
                let mut values = Vec::new();
                wire.floats(field, &mut values, 1)?;
                #[expect(clippy::cast_possible_truncation, reason = "it was an f32 in the file")]
                let value = values.first().map(|value| *value as f32);
                attribute.float = value;
            }
            3 => attribute.int = Some(wire.integer(field)?),
            4 => attribute.text = wire.string(field)?,
            5 => attribute.tensor = Some(constant(wire, field)?),
            22 => attribute.tensor = Some(sparse(wire, field)?),
            6 => {
                wire.budget.charge(size_of::<Graph>() as u64)?;
                attribute.graph = Some(Box::new(graph(wire, field)?));
            }
            7 => wire.floats(field, &mut attribute.floats, MOST_ATTRIBUTE_VALUES)?,
            8 => wire.integers(field, &mut attribute.ints, MOST_ATTRIBUTE_VALUES)?,
            9 => attribute.texts += 1,
            21 => attribute.reference = wire.string(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(attribute)
}

fn value_info<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<ValueInfo> {
    let mut info = ValueInfo::default();
    wire.budget.charge(size_of::<ValueInfo>() as u64)?;
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => info.name = wire.string(field)?,
            // TypeProto, of which 1 is a tensor; 1 of that the type of its elements, 2 its shape.
            2 => {
                let end = wire.end_of(field)?;
                wire.message(end, |wire, number, field| {
                    if number != 1 {
                        return Ok(());
                    }
                    let end = wire.end_of(field)?;
                    wire.message(end, |wire, number, field| {
                        match number {
                            1 => info.data_type = Some(wire.integer(field)?),
                            2 => info.dims = Some(dims(wire, field)?),
                            _ => {}
                        }
                        Ok(())
                    })
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(info)
}

fn dims<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Vec<Dim>> {
    let mut dims = Vec::new();
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        if number != 1 {
            return Ok(());
        }
        let mut dim = Dim::Open;
        let end = wire.end_of(field)?;
        wire.message(end, |wire, number, field| {
            match number {
                // Some exporters write -1 for what is open.
                1 => {
                    dim = match u64::try_from(wire.integer(field)?) {
                        Ok(0) => Dim::Zero,
                        Ok(value) => Dim::Fixed(value),
                        Err(_) => Dim::Open,
                    };
                }
                2 => dim = Dim::named(wire.string(field)?),
                _ => {}
            }
            Ok(())
        })?;
        wire.budget.charge(size_of::<Dim>() as u64)?;
        dims.push(dim);
        check_rank(dims.len())
    })?;
    Ok(dims)
}

/// Whether a tensor has few enough dimensions.
///
/// # Errors
///
/// Where it has not.
pub fn check_rank(rank: usize) -> Result<()> {
    if rank > MOST_DIMS {
        return Err(ModelError::TooLarge(format!(
            "a tensor has more than {MOST_DIMS} dimensions"
        )));
    }
    Ok(())
}

fn constant<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Constant> {
    let mut constant = Constant::default();
    wire.budget.charge(size_of::<Constant>() as u64)?;
    let mut dims = Vec::new();
    let (mut ints, mut floats, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_external = false;
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => wire.integers(field, &mut dims, MOST_DIMS)?,
            2 => constant.data_type = wire.integer(field)?,
            4 => wire.floats(field, &mut floats, MOST_VALUES)?,
            // int32_data, int64_data and uint64_data.
            5 | 7 | 11 => wire.integers(field, &mut ints, MOST_VALUES)?,
            8 => constant.name = wire.string(field)?,
            // Long ones are weights, and stay where they are.
            9 if length_of(field, wire) <= 8 * MOST_VALUES as u64 => raw = wire.bytes(field)?,
            13 => {
                let (key, value) = pair(wire, field)?;
                let external = constant.external.get_or_insert_default();
                match key.as_str() {
                    "location" => external.location = value,
                    "offset" => external.offset = value.parse().unwrap_or(0),
                    "length" => external.length = value.parse().ok(),
                    _ => {}
                }
            }
            14 => is_external = wire.integer(field)? == 1,
            _ => {}
        }
        Ok(())
    })?;
    constant.external = constant.external.filter(|_| is_external);
    constant.dims = dims_of(&constant.name, &dims)?;
    if constant.external.is_some() {
        return Ok(constant);
    }
    constant.data = if raw.is_empty() {
        match (ints.is_empty(), data_type::is_float(constant.data_type)) {
            (_, true) => Some(Data::Floats(floats.into())),
            (false, false) => Some(Data::Ints(ints.into())),
            (true, false) => Some(Data::Ints([].into())),
        }
    } else {
        raw_values(constant.data_type, &raw)
    };
    Ok(constant)
}

/// A sparse tensor: its values, their indices, and its dimensions.
fn sparse<R: BufRead + Seek>(wire: &mut Wire<R>, field: Field) -> Result<Constant> {
    let mut values = Constant::default();
    let mut dims = Vec::new();
    let end = wire.end_of(field)?;
    wire.message(end, |wire, number, field| {
        match number {
            1 => values = constant(wire, field)?,
            3 => wire.integers(field, &mut dims, MOST_DIMS)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Constant {
        stored: elements(&values.dims).ok(),
        dims: dims_of(&values.name, &dims)?,
        data: None,
        ..values
    })
}

fn dims_of(name: &str, dims: &[i64]) -> Result<Vec<u64>> {
    check_rank(dims.len())?;
    let dims: Option<Vec<u64>> = dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    dims.ok_or_else(|| {
        ModelError::Malformed(format!(
            "the constant `{}` has a negative dimension",
            crate::printable(name)
        ))
    })
}

fn length_of<R: BufRead + Seek>(field: Field, wire: &Wire<R>) -> u64 {
    match field {
        Field::Bytes(end) => end.saturating_sub(wire.position()),
        _ => 0,
    }
}

/// The values of little-endian bytes; `None` for types from which no shape is computed.
fn raw_values(data_type: i64, raw: &[u8]) -> Option<Data> {
    fn all<const N: usize, T>(raw: &[u8], value: impl Fn([u8; N]) -> T) -> std::rc::Rc<[T]> {
        let (whole, _) = raw.as_chunks::<N>();
        whole.iter().map(|bytes| value(*bytes)).collect()
    }
    Some(match data_type {
        data_type::FLOAT => Data::Floats(all(raw, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        data_type::DOUBLE => Data::Floats(all(raw, f64::from_le_bytes)),
        data_type::BFLOAT16 => Data::Floats(all(raw, |[low, high]| f64::from(f32::from_le_bytes([0, 0, low, high])))),
        data_type::UINT8 | data_type::BOOL => Data::Ints(all(raw, |bytes| i64::from(u8::from_le_bytes(bytes)))),
        data_type::INT8 => Data::Ints(all(raw, |bytes| i64::from(i8::from_le_bytes(bytes)))),
        4 => Data::Ints(all(raw, |bytes| i64::from(u16::from_le_bytes(bytes)))),
        5 => Data::Ints(all(raw, |bytes| i64::from(i16::from_le_bytes(bytes)))),
        6 => Data::Ints(all(raw, |bytes| i64::from(i32::from_le_bytes(bytes)))),
        7 | 13 => Data::Ints(all(raw, i64::from_le_bytes)),
        12 => Data::Ints(all(raw, |bytes| i64::from(u32::from_le_bytes(bytes)))),
        _ => return None,
    })
}
