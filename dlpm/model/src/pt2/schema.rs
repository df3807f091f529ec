//! What dlpm reads of the JSON of a program; everything else in it is passed over.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The whole.
#[derive(Debug, Deserialize)]
pub struct Program {
    /// What it computes.
    pub graph_module: GraphModule,
}

/// A graph and what its inputs mean.
#[derive(Debug, Deserialize)]
pub struct GraphModule {
    /// The graph.
    pub graph: Graph,
    /// What its inputs mean.
    pub signature: Signature,
}

/// Operators in their order, and the sizes of all tensors.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Operators.
    pub nodes: Vec<Node>,
    /// Tensors by name.
    pub tensor_values: HashMap<String, Tensor>,
}

/// An operator.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// As in `torch.ops.aten.linear.default`.
    pub target: String,
    /// What it is called with.
    pub inputs: Vec<NamedArgument>,
    /// What comes out.
    pub outputs: Vec<Argument>,
    /// Where the author wrote it.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Where an operator was written.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata {
    /// The modules around it, see [`crate::modules::of_stack`].
    #[serde(default)]
    pub nn_module_stack: Option<String>,
}

/// An argument and its name.
#[derive(Debug, Deserialize)]
pub struct NamedArgument {
    /// Its name.
    pub name: String,
    /// Its value.
    pub arg: Argument,
}

/// The name of a tensor.
#[derive(Debug, Deserialize)]
pub struct TensorName {
    /// The name.
    pub name: String,
}

/// A graph that an operator runs.
#[derive(Debug, Deserialize)]
pub struct GraphArgument {
    /// The graph.
    pub graph: Graph,
}

/// The value of an argument.
#[derive(Debug)]
pub enum Argument {
    /// A tensor.
    Tensor(String),
    /// Several tensors.
    Tensors(Vec<TensorName>),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A graph.
    Graph(Box<GraphArgument>),
    /// Something that says nothing about work.
    Other,
}

impl Argument {
    /// The tensor that it is.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Self::Tensor(name) => Some(name),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOf;
        impl<'de> Visitor<'de> for OneOf {
            type Value = Argument;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with the kind of an argument as its key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Argument, A::Error> {
                let mut argument = Argument::Other;
                while let Some(kind) = map.next_key::<String>()? {
                    argument = match kind.as_str() {
                        "as_tensor" => Argument::Tensor(map.next_value::<TensorName>()?.name),
                        "as_tensors" => Argument::Tensors(map.next_value()?),
                        "as_bool" => Argument::Bool(map.next_value()?),
                        "as_string" => Argument::Text(map.next_value()?),
                        "as_graph" => Argument::Graph(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            argument
                        }
                    };
                }
                Ok(argument)
            }
        }
        deserializer.deserialize_map(OneOf)
    }
}

/// A tensor.
#[derive(Debug, Deserialize)]
pub struct Tensor {
    /// Of what its elements are, see [`type_name`].
    pub dtype: i64,
    /// Its dimensions.
    pub sizes: Vec<Size>,
    /// Whether it is trained.
    #[serde(default)]
    pub requires_grad: bool,
    #[serde(default)]
    storage_offset: Option<Size>,
}

impl Tensor {
    /// Where it begins in what is stored.
    pub fn storage_offset(&self) -> Option<&Size> {
        self.storage_offset.as_ref()
    }
}

/// A dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// A number.
    Number(i64),
    /// An expression of symbols.
    Expression(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Expression {
            expr_str: String,
        }
        #[derive(Deserialize)]
        struct Either {
            as_int: Option<i64>,
            as_expr: Option<Expression>,
        }
        let either = Either::deserialize(deserializer)?;
        Ok(match (either.as_int, either.as_expr) {
            (Some(number), _) => Self::Number(number),
            (None, Some(expression)) => Self::Expression(expression.expr_str),
            (None, None) => Self::Expression(String::new()),
        })
    }
}

/// What the inputs of a graph mean.
#[derive(Debug, Deserialize)]
pub struct Signature {
    /// One for each input.
    pub input_specs: Vec<InputSpec>,
}

/// What an input means: one of these, or something that says nothing about size.
#[derive(Debug, Deserialize)]
pub struct InputSpec {
    /// A parameter.
    pub parameter: Option<Parameter>,
    /// A tensor of the module that is not a parameter.
    pub buffer: Option<Buffer>,
    /// What the user hands over.
    pub user_input: Option<UserInput>,
}

/// A parameter.
#[derive(Debug, Deserialize)]
pub struct Parameter {
    /// Its name in the graph.
    pub arg: TensorName,
    /// Its name in the model.
    pub parameter_name: String,
}

/// A tensor of the module that is not a parameter.
#[derive(Debug, Deserialize)]
pub struct Buffer {
    /// Its name in the graph.
    pub arg: TensorName,
}

/// What the user hands over.
#[derive(Debug, Deserialize)]
pub struct UserInput {
    /// Its name in the graph.
    pub arg: Argument,
}

/// Where the weights are stored.
#[derive(Debug, Default, Deserialize)]
pub struct WeightsConfig {
    /// By their name in the model.
    pub config: HashMap<String, Stored>,
}

/// Where a weight is stored.
#[derive(Debug, Deserialize)]
pub struct Stored {
    /// The same for weights that share it.
    pub path_name: String,
}

/// Numbers, names and bits of PyTorch's types of elements.
const TYPES: [(i64, &str, u64); 23] = [
    (1, "uint8", 8),
    (2, "int8", 8),
    (3, "int16", 16),
    (4, "int32", 32),
    (5, "int64", 64),
    (6, "float16", 16),
    (7, "float32", 32),
    (8, "float64", 64),
    (9, "complex32", 32),
    (10, "complex64", 64),
    (11, "complex128", 128),
    (12, "bool", 8),
    (13, "bfloat16", 16),
    (14, "qint8", 8),
    (15, "quint8", 8),
    (16, "qint32", 32),
    (28, "uint16", 16),
    (29, "float8_e4m3fn", 8),
    (30, "float8_e5m2", 8),
    (31, "float8_e4m3fnuz", 8),
    (32, "float8_e5m2fnuz", 8),
    (33, "float8_e8m0fnu", 8),
    (34, "float4_e2m1fn_x2", 8),
];

/// The name of a type.
pub fn type_name(dtype: i64) -> &'static str {
    TYPES
        .iter()
        .find(|(number, ..)| *number == dtype)
        .map_or("other", |(_, name, _)| name)
}

/// Bits of an element.
pub fn type_bits(dtype: i64) -> Option<u64> {
    TYPES
        .iter()
        .find(|(number, ..)| *number == dtype)
        .map(|(_, _, bits)| *bits)
}
