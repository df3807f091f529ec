//! TFLite files for tests: tables by the numbers of their fields, written by the library of FlatBuffers.

use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, UnionWIPOffset, WIPOffset};

/// A tensor.
#[derive(Clone, Debug, Default)]
pub struct Tensor {
    /// Its name.
    pub name: &'static str,
    /// Its dimensions.
    pub dims: Vec<i32>,
    /// The same with -1 for those that are open, or empty.
    pub signature: Vec<i32>,
    /// The number of its type.
    pub data_type: u8,
    /// Bytes of its constant, or none.
    pub constant: usize,
    /// Whether it keeps its value.
    pub is_variable: bool,
}

/// An operator: its number, a name where that is not TFLite's, inputs, outputs, and options by number of field.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Its number.
    pub code: u32,
    /// Its name.
    pub custom: &'static str,
    /// What it reads.
    pub inputs: Vec<i32>,
    /// What it makes.
    pub outputs: Vec<i32>,
    /// Its options, integers.
    pub options: Vec<i32>,
}

/// A subgraph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Its tensors.
    pub tensors: Vec<Tensor>,
    /// Its inputs.
    pub inputs: Vec<i32>,
    /// Its operators.
    pub operators: Vec<Operator>,
}

type Offset = WIPOffset<UnionWIPOffset>;
type Table = WIPOffset<TableFinishedWIPOffset>;

fn slot(field: u16) -> u16 {
    4 + 2 * field
}

/// A table whose fields refer to others.
fn table(
    builder: &mut FlatBufferBuilder<'_>,
    fields: &[(u16, Offset)],
    ints: &[(u16, u32)],
    bytes: &[(u16, u8)],
) -> Table {
    let start = builder.start_table();
    for (field, offset) in fields {
        builder.push_slot_always(slot(*field), *offset);
    }
    for (field, int) in ints {
        builder.push_slot_always(slot(*field), *int);
    }
    for (field, byte) in bytes {
        builder.push_slot_always(slot(*field), *byte);
    }
    builder.end_table(start)
}

fn ints(builder: &mut FlatBufferBuilder<'_>, ints: &[i32]) -> Offset {
    builder.create_vector(ints).as_union_value()
}

fn tables(builder: &mut FlatBufferBuilder<'_>, tables: &[Table]) -> Offset {
    builder.create_vector(tables).as_union_value()
}

/// A model of these subgraphs.
pub fn file(graphs: &[Graph]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let builder = &mut builder;
    let mut buffers = vec![table(builder, &[], &[], &[])];
    let mut codes = Vec::new();
    let mut all = Vec::new();
    for graph in graphs {
        let mut tensors = Vec::new();
        for tensor in &graph.tensors {
            let mut buffer = 0;
            if tensor.constant > 0 {
                let data = builder.create_vector(&vec![0u8; tensor.constant]).as_union_value();
                buffer = u32::try_from(buffers.len()).unwrap();
                buffers.push(table(builder, &[(0, data)], &[], &[]));
            }
            let name = builder.create_string(tensor.name).as_union_value();
            let dims = ints(builder, &tensor.dims);
            let mut fields = vec![(0, dims), (3, name)];
            if !tensor.signature.is_empty() {
                fields.push((7, ints(builder, &tensor.signature)));
            }
            let bytes = [(1, tensor.data_type), (5, u8::from(tensor.is_variable)), (8, 1)];
            tensors.push(table(builder, &fields, &[(2, buffer)], &bytes));
        }
        let mut operators = Vec::new();
        for operator in &graph.operators {
            let custom = builder.create_string(operator.custom).as_union_value();
            let old = u8::try_from(operator.code.min(127)).unwrap();
            let index = u32::try_from(codes.len()).unwrap();
            codes.push(table(builder, &[(1, custom)], &[(3, operator.code)], &[(0, old)]));
            let mut fields = vec![
                (1, ints(builder, &operator.inputs)),
                (2, ints(builder, &operator.outputs)),
            ];
            let numbers = operator.options.iter().enumerate();
            let options: Vec<(u16, u32)> = numbers
                .map(|(field, int)| (u16::try_from(field).unwrap(), int.cast_unsigned()))
                .collect();
            fields.push((4, table(builder, &[], &options, &[]).as_union_value()));
            operators.push(table(builder, &fields, &[(0, index)], &[(3, 1)]));
        }
        let inputs = ints(builder, &graph.inputs);
        let fields = [
            (0, tables(builder, &tensors)),
            (1, inputs),
            (3, tables(builder, &operators)),
        ];
        all.push(table(builder, &fields, &[], &[]));
    }
    let fields = [
        (1, tables(builder, &codes)),
        (2, tables(builder, &all)),
        (4, tables(builder, &buffers)),
    ];
    let root = table(builder, &fields, &[(0, 3)], &[]);
    builder.finish(root, Some("TFL3"));
    builder.finished_data().to_vec()
}

fn tensor(name: &'static str, dims: &[i32], data_type: u8, constant: usize) -> Tensor {
    Tensor {
        name,
        dims: dims.to_vec(),
        data_type,
        constant,
        ..Tensor::default()
    }
}

/// A convolution of 8 bits and a layer that is fully connected, and how many parameters and operations they have.
pub fn small() -> (Graph, u64, u64) {
    let graph = Graph {
        tensors: vec![
            tensor("image", &[1, 8, 8, 3], 9, 0),
            tensor("filter", &[16, 3, 3, 3], 9, 16 * 27),
            tensor("bias", &[16], 2, 16 * 4),
            tensor("features", &[1, 4, 4, 16], 9, 0),
            tensor("flat shape", &[2], 2, 8),
            tensor("flat", &[1, 256], 9, 0),
            tensor("matrix", &[10, 256], 9, 2560),
            tensor("result", &[1, 10], 9, 0),
        ],
        inputs: vec![0],
        operators: vec![
            Operator {
                code: 3,
                inputs: vec![0, 1, 2],
                outputs: vec![3],
                ..Operator::default()
            },
            Operator {
                code: 22,
                inputs: vec![3, 4],
                outputs: vec![5],
                ..Operator::default()
            },
            Operator {
                code: 9,
                inputs: vec![5, 6, -1],
                outputs: vec![7],
                ..Operator::default()
            },
        ],
    };
    (graph, 16 * 27 + 16 + 2560, 4 * 4 * 16 * 27 + 2560)
}
