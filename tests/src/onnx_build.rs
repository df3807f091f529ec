//! Builds small ONNX files, with the writer of rten-onnx: another implementation of the format than dlpm's reader.

use std::cell::RefCell;

pub use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, ModelProto, NodeProto, TensorProto};
use rten_onnx::{
    onnx::{
        DataLocation, Dimension, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto,
        TypeProtoTensor, ValueInfoProto,
    },
    protobuf::{EncodeMessage, ValueWriter},
};

/// A dimension of an input.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// A number.
    Is(i64),
    /// A name.
    Named(&'static str),
}

/// An operator.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

fn attribute(name: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ..AttributeProto::default()
    }
}

/// An attribute that is an integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: Some(value),
        ..attribute(name)
    }
}

/// An attribute that is a list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: values.to_vec(),
        ..attribute(name)
    }
}

/// An attribute that is a text.
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        s: Some(value.to_owned()),
        ..attribute(name)
    }
}

/// An attribute that is a graph.
pub fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        g: Some(graph),
        ..attribute(name)
    }
}

/// A constant of integers; a scalar where `dims` is empty.
pub fn int_constant(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A constant truth value.
pub fn truth(name: &str, value: bool) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::BOOL),
        raw_data: Some(RefCell::new(vec![u8::from(value)])),
        ..TensorProto::default()
    }
}

/// Weights of zeros, which are in the file only if `stored`.
pub fn weights(name: &str, dims: &[i64], stored: bool) -> TensorProto {
    let elements: i64 = dims.iter().product();
    let bytes = usize::try_from(elements * 4).unwrap();
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        raw_data: stored.then(|| RefCell::new(vec![0; bytes])),
        ..TensorProto::default()
    }
}

/// Weights that lie in a file beside the model.
pub fn external(name: &str, dims: &[i64], location: &str, offset: u64, length: u64) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    TensorProto {
        external_data: vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ],
        data_location: Some(DataLocation::EXTERNAL),
        ..weights(name, dims, false)
    }
}

/// What a graph says of an input or output.
pub fn value(name: &str, data_type: DataType, dims: &[Dim]) -> ValueInfoProto {
    let dims = dims.iter().map(|dim| match dim {
        Dim::Is(value) => Dimension {
            dim_value: Some(*value),
            dim_param: None,
        },
        Dim::Named(name) => Dimension {
            dim_value: None,
            dim_param: Some((*name).to_owned()),
        },
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(data_type),
                shape: Some(TensorShapeProto { dim: dims.collect() }),
            }),
            ..TypeProto::default()
        }),
    }
}

/// Inputs or outputs of which only the name is known.
pub fn names(names: &[&str]) -> Vec<ValueInfoProto> {
    let info = |name: &&str| ValueInfoProto {
        name: Some((*name).to_owned()),
        ..ValueInfoProto::default()
    };
    names.iter().map(info).collect()
}

/// The bytes of a model with this graph.
pub fn model(graph: GraphProto) -> Vec<u8> {
    model_of(graph, 17)
}

/// The bytes of a model with this graph, of operators of this version.
pub fn model_of(graph: GraphProto, version: i64) -> Vec<u8> {
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            version: Some(version),
            ..OperatorSetIdProto::default()
        }],
        ..ModelProto::default()
    };
    let mut bytes = Vec::new();
    model.encode(ValueWriter::new(&mut bytes)).unwrap();
    bytes
}
