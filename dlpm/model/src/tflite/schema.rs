//! What dlpm reads of a TFLite model: the tables and fields of
//! <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs>, by their numbers.

use super::flatbuffer::{Buffer, Table};
use crate::{
    ModelError,
    file::{Budget, ModelFile},
};

/// Dimensions of a tensor, and inputs and outputs of an operator, at most.
const MOST_ITEMS: u64 = 1 << 12;

/// Most dimensions.
const MOST_DIMS: u64 = 32;

/// Longest part of a name that is kept.
const NAME_BYTES: u64 = 256;

/// Tables that are read at most; each takes some microseconds.
const MOST_TABLES: u64 = 400_000;

type Flow<T> = Result<T, ModelError>;

fn malformed<T>(why: &str) -> Flow<T> {
    Err(ModelError::Malformed(why.to_owned()))
}

/// A model.
pub struct Model {
    /// Subgraphs; the first one is the model itself.
    pub graphs: Vec<Graph>,
    /// Bytes of each buffer.
    pub buffers: Vec<u64>,
    /// Names of the entry points.
    pub signatures: Vec<String>,
}

/// A subgraph.
pub struct Graph {
    /// Its tensors.
    pub tensors: Vec<Tensor>,
    /// Which of them are inputs.
    pub inputs: Vec<i32>,
    /// Its operators, in the order in which they run.
    pub operators: Vec<Operator>,
}

/// A tensor.
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions as the file has them; `None` where it has none, or one below 0.
    pub dims: Option<Vec<u64>>,
    /// Which dimensions are only known when the model runs; the file has 1 in their place.
    pub open: Open,
    /// The number of its type.
    pub data_type: u8,
    /// Its buffer; empty where it is computed.
    pub buffer: usize,
    /// Whether it keeps its value between runs.
    pub is_variable: bool,
    /// Whether only the elements that are not 0 are stored.
    pub is_sparse: bool,
}

/// Dimensions that are only known when the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// None of them.
    None,
    /// The first one, which is that of the batch.
    Batch,
    /// Others.
    Others,
}

/// An operator.
pub struct Operator {
    /// The number of what it does.
    pub code: u32,
    /// The name of what it does, where that is not one of TFLite's.
    pub custom: String,
    /// Tensors that it reads; -1 for none.
    pub inputs: Vec<i32>,
    /// Tensors that it makes.
    pub outputs: Vec<i32>,
    /// What its options tell.
    pub options: Options,
}

/// The options that dlpm needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Of a product of matrices: whether the first one is transposed.
    pub transposes_first: bool,
    /// Subgraphs that it runs.
    pub graphs: [u32; 2],
}

struct Reader<'a> {
    buffer: Buffer<'a>,
    budget: Budget,
    left: u64,
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    ///
    /// Where it is malformed or too large.
    pub fn read(file: &ModelFile) -> Flow<Self> {
        let mut reader = Reader {
            buffer: Buffer::new(file),
            budget: Budget::default(),
            left: MOST_TABLES,
        };
        let root = reader.buffer.root()?;
        let codes = reader.codes(root)?;
        let graphs = reader.list(root, 2, |reader, table| reader.graph(table, &codes))?;
        if graphs.is_empty() {
            return malformed("it has no subgraph");
        }
        let buffers = reader.list(root, 4, Reader::buffer_bytes)?;
        let signatures = reader.list(root, 7, |reader, table| reader.buffer.text_in(table, 2, NAME_BYTES))?;
        Ok(Self {
            graphs,
            buffers,
            signatures,
        })
    }
}

impl Reader<'_> {
    /// Every table of a vector in a field.
    fn list<T>(&mut self, table: Table, field: u64, read: impl Fn(&mut Self, Table) -> Flow<T>) -> Flow<Vec<T>> {
        let vector = self.buffer.vector_in(table, field, 4)?;
        let mut all = Vec::new();
        for number in 0..vector.length {
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                ModelError::TooLarge(format!("it has more than {MOST_TABLES} tensors, operators and buffers"))
            })?;
            self.budget.charge(size_of::<T>() as u64)?;
            let element = self.buffer.table_of(vector, number)?;
            all.push(read(self, element)?);
        }
        Ok(all)
    }

    /// Number and name of each kind of operator.
    fn codes(&mut self, root: Table) -> Flow<Vec<(u32, String)>> {
        self.list(root, 1, |reader, table| {
            // Numbers beyond 127 are in a second field, which older files leave out.
            let old = reader.buffer.u8_in(table, 0)?;
            let new = reader.buffer.u32_in(table, 3)?;
            let custom = reader.text(table, 1)?;
            Ok((new.max(old.into()), custom))
        })
    }

    fn text(&mut self, table: Table, field: u64) -> Flow<String> {
        let text = self.buffer.text_in(table, field, NAME_BYTES)?;
        self.budget.charge(text.len() as u64)?;
        Ok(text)
    }

    fn ints(&mut self, table: Table, field: u64, most: u64) -> Flow<Vec<i32>> {
        let ints = self.buffer.ints_in(table, field, most)?;
        self.budget.charge(4 * ints.len() as u64)?;
        Ok(ints)
    }

    fn graph(&mut self, table: Table, codes: &[(u32, String)]) -> Flow<Graph> {
        Ok(Graph {
            tensors: self.list(table, 0, Self::tensor)?,
            inputs: self.ints(table, 1, MOST_ITEMS)?,
            operators: self.list(table, 3, |reader, table| reader.operator(table, codes))?,
        })
    }

    fn tensor(&mut self, table: Table) -> Flow<Tensor> {
        let dims = self.ints(table, 0, MOST_DIMS)?;
        self.budget.charge(8 * dims.len() as u64)?;
        let signature = self.buffer.ints_in(table, 7, MOST_DIMS)?;
        // A scalar has no dimensions either, but says that this is so.
        let has_rank = !dims.is_empty() || self.buffer.u8_in(table, 8)? != 0;
        let dims: Option<Vec<u64>> = dims.into_iter().map(|dim| u64::try_from(dim).ok()).collect();
        Ok(Tensor {
            name: self.text(table, 3)?,
            dims: dims.filter(|dims| has_rank || dims.is_empty()),
            open: match signature.iter().rposition(|dim| *dim < 0) {
                None => Open::None,
                Some(0) => Open::Batch,
                Some(_) => Open::Others,
            },
            data_type: self.buffer.u8_in(table, 1)?,
            buffer: usize::try_from(self.buffer.u32_in(table, 2)?).unwrap_or(usize::MAX),
            is_variable: self.buffer.u8_in(table, 5)? != 0,
            is_sparse: self.buffer.table_in(table, 6)?.is_some(),
        })
    }

    fn operator(&mut self, table: Table, codes: &[(u32, String)]) -> Flow<Operator> {
        let at = usize::try_from(self.buffer.u32_in(table, 0)?).ok();
        let Some((code, custom)) = at.and_then(|at| codes.get(at)) else {
            return malformed("an operator in it is of no kind");
        };
        self.budget.charge(custom.len() as u64)?;
        Ok(Operator {
            code: *code,
            custom: custom.clone(),
            inputs: self.ints(table, 1, MOST_ITEMS)?,
            outputs: self.ints(table, 2, MOST_ITEMS)?,
            options: self.options(table, *code)?,
        })
    }

    fn options(&mut self, table: Table, code: u32) -> Flow<Options> {
        let mut options = Options::default();
        // The newer list of options is in a field of its own.
        let field = if code == super::ops::COMPOSITE { 12 } else { 4 };
        let Some(own) = self.buffer.table_in(table, field)? else {
            return Ok(options);
        };
        match code {
            super::ops::BATCH_MATMUL => options.transposes_first = self.buffer.u8_in(own, 0)? != 0,
            super::ops::CALL | super::ops::IF | super::ops::WHILE => {
                options.graphs = [self.buffer.u32_in(own, 0)?, self.buffer.u32_in(own, 1)?];
            }
            super::ops::COMPOSITE => options.graphs = [self.buffer.u32_in(own, 1)?, 0],
            _ => {}
        }
        Ok(options)
    }

    /// Bytes of a buffer, inside the FlatBuffer or behind it.
    fn buffer_bytes(&mut self, table: Table) -> Flow<u64> {
        let inside = self.buffer.vector_in(table, 0, 1)?.length;
        let behind = self.buffer.u64_in(table, 2)?;
        // 0 and 1 say that the buffer is not behind it.
        let is_behind = self.buffer.u64_in(table, 1)? > 1;
        Ok(if is_behind { behind } else { inside })
    }
}
