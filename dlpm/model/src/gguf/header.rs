//! The header of a GGUF file: metadata and the list of tensors. Nothing behind it is read.
//!
//! The form is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{BufReader, Read as _},
};

use super::types::ElementType;
use crate::{
    ModelError,
    file::{Budget, ModelFile},
};

/// Longest header that is read. Most of one is the vocabulary: 11 MB for 262,144 words.
const MOST_BYTES: u64 = 64 << 20;

/// Longest name of a key or a tensor.
const MOST_NAME_BYTES: u64 = 1 << 12;

/// Longest text of the metadata that is kept; longer ones, such as templates, are passed over.
const MOST_TEXT_BYTES: u64 = 1 << 12;

/// Longest array that is kept: a number for each block, say. Vocabularies are passed over.
const MOST_ITEMS: u64 = 1 << 12;

/// Most arrays in arrays.
const MOST_DEPTH: u32 = 4;

/// Most dimensions of a tensor; ggml has 4.
const MOST_DIMS: u32 = 8;

/// The alignment of the data where the metadata gives none.
const ALIGNMENT_BYTES: u64 = 32;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer or a truth value.
    Int(i128),
    /// A text.
    Text(String),
    /// Integers or truth values.
    Ints(Vec<i128>),
    /// What says nothing about sizes: floats, vocabularies, long texts.
    Other,
}

/// A tensor in the list.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the one that changes fastest first.
    pub dims: Vec<u64>,
    /// The product of these.
    pub elements: u64,
    /// Its type; the number where dlpm does not know it.
    pub element: Result<ElementType, u32>,
    /// Its bytes, where the type is known.
    pub bytes: Option<u64>,
}

/// What a header holds.
#[derive(Debug)]
pub struct Header {
    /// Keys and values.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors, in the order of the file.
    pub tensors: Vec<Tensor>,
    /// Bytes of the header.
    pub bytes: u64,
}

type Flow<T> = Result<T, ModelError>;

fn malformed<T>(why: impl Into<String>) -> Flow<T> {
    Err(ModelError::Malformed(why.into()))
}

struct Reader<'a> {
    file: BufReader<&'a File>,
    read_bytes: u64,
    file_bytes: u64,
    budget: Budget,
}

impl Header {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// Where it is malformed or too large, or its tensors do not fit the file.
    pub fn read(file: &ModelFile) -> Flow<Self> {
        let mut reader = Reader {
            file: file.reader()?,
            read_bytes: 0,
            file_bytes: file.length(),
            budget: Budget::default(),
        };
        let magic: [u8; 4] = reader.array()?;
        if magic != *b"GGUF" {
            return malformed("it does not begin with GGUF");
        }
        let version = reader.u32()?;
        match version {
            2 | 3 => {}
            1 => {
                return Err(ModelError::Format(
                    "it is GGUF of version 1, of 2023; convert the model again with llama.cpp".to_owned(),
                ));
            }
            _ if version.swap_bytes() <= 3 => {
                return Err(ModelError::Format(
                    "it is GGUF for big-endian machines; convert it with llama.cpp's gguf_convert_endian.py".to_owned(),
                ));
            }
            _ => {
                return Err(ModelError::Format(format!(
                    "it is GGUF of version {version}, and dlpm knows 2 and 3"
                )));
            }
        }
        let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let key = reader.name()?;
            let value_type = reader.u32()?;
            let value = reader.value(value_type, 0)?;
            reader
                .budget
                .charge((size_of::<(String, Value)>() + key.len()) as u64)?;
            if metadata.insert(key, value).is_some() {
                return malformed("its metadata has a key twice");
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT_BYTES,
            Some(Value::Int(alignment @ 1..=0x10_0000)) => u64::try_from(*alignment).unwrap_or(ALIGNMENT_BYTES),
            Some(_) => return malformed("its alignment is not a number of bytes"),
        };
        let (mut tensors, mut names, mut ends) = (Vec::new(), HashSet::new(), Vec::new());
        for _ in 0..tensor_count {
            let (tensor, offset) = reader.tensor()?;
            let kept = size_of::<Tensor>() + 2 * tensor.name.len() + size_of::<String>() + 8 * tensor.dims.len() + 16;
            reader.budget.charge(kept as u64)?;
            if !names.insert(tensor.name.clone()) {
                return malformed(format!("it has {} twice", crate::printable(&tensor.name)));
            }
            if offset % alignment != 0 {
                return malformed(format!("{} is not aligned", crate::printable(&tensor.name)));
            }
            let end = offset.checked_add(tensor.bytes.unwrap_or(0));
            ends.push(end.ok_or_else(|| ModelError::Malformed("a tensor is longer than any file".to_owned()))?);
            tensors.push(tensor);
        }
        let data = reader.read_bytes.next_multiple_of(alignment);
        let end = ends.into_iter().max().map_or(Some(0), |end| data.checked_add(end));
        if end.is_none_or(|end| end > file.length()) {
            return malformed("its tensors are longer than the file");
        }
        Ok(Self {
            metadata,
            tensors,
            bytes: reader.read_bytes,
        })
    }
}

impl Reader<'_> {
    fn charge(&mut self, bytes: u64) -> Flow<()> {
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        if self.read_bytes > self.file_bytes {
            return malformed("its header is longer than the file");
        }
        if self.read_bytes > MOST_BYTES {
            return Err(ModelError::TooLarge(format!(
                "its header has more than {} MiB",
                MOST_BYTES >> 20
            )));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Flow<[u8; N]> {
        self.charge(N as u64)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(ModelError::Read)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Flow<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Flow<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Passes over bytes.
    fn skip(&mut self, bytes: u64) -> Flow<()> {
        self.charge(bytes)?;
        let mut left = bytes;
        let mut chunk = [0; 4096];
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..length).unwrap_or_default();
            self.file.read_exact(part).map_err(ModelError::Read)?;
            left -= length as u64;
        }
        Ok(())
    }

    fn text(&mut self, length: u64) -> Flow<String> {
        self.charge(length)?;
        self.budget.charge(length)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact(&mut bytes).map_err(ModelError::Read)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn name(&mut self) -> Flow<String> {
        let length = self.u64()?;
        if length > MOST_NAME_BYTES {
            return malformed(format!("a name in it has more than {MOST_NAME_BYTES} bytes"));
        }
        self.text(length)
    }

    fn value(&mut self, value_type: u32, depth: u32) -> Flow<Value> {
        Ok(match value_type {
            0 => Value::Int(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            7 => Value::Int((self.array::<1>()? != [0]).into()),
            10 => Value::Int(self.u64()?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array()?).into()),
            6 | 12 => {
                self.skip(if value_type == 6 { 4 } else { 8 })?;
                Value::Other
            }
            8 => {
                let length = self.u64()?;
                if length > MOST_TEXT_BYTES || depth > 0 {
                    self.skip(length)?;
                    Value::Other
                } else {
                    Value::Text(self.text(length)?)
                }
            }
            9 => {
                if depth >= MOST_DEPTH {
                    return malformed("its metadata has arrays in arrays in arrays");
                }
                let (item_type, length) = (self.u32()?, self.u64()?);
                self.items(item_type, length, depth + 1)?
            }
            other => return malformed(format!("its metadata has a value of the unknown type {other}")),
        })
    }

    fn items(&mut self, item_type: u32, length: u64, depth: u32) -> Flow<Value> {
        let fixed = match item_type {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        let is_int = !matches!(item_type, 6 | 12);
        match fixed {
            Some(_) if is_int && depth == 1 && length <= MOST_ITEMS => {
                self.budget.charge(length * size_of::<i128>() as u64)?;
                let mut ints = Vec::new();
                for _ in 0..length {
                    if let Value::Int(int) = self.value(item_type, depth)? {
                        ints.push(int);
                    }
                }
                Ok(Value::Ints(ints))
            }
            Some(bytes) => {
                let bytes = length.checked_mul(bytes);
                self.skip(bytes.ok_or_else(|| ModelError::Malformed("an array in it has no length".to_owned()))?)?;
                Ok(Value::Other)
            }
            None => {
                for _ in 0..length {
                    self.value(item_type, depth)?;
                }
                Ok(Value::Other)
            }
        }
    }

    /// A tensor, and where its data begin.
    fn tensor(&mut self) -> Flow<(Tensor, u64)> {
        let name = self.name()?;
        let rank = self.u32()?;
        if rank > MOST_DIMS {
            return malformed(format!("{} has {rank} dimensions", crate::printable(&name)));
        }
        let mut dims = Vec::new();
        let mut elements = Some(1u64);
        for _ in 0..rank {
            let dim = self.u64()?;
            elements = elements.and_then(|elements| elements.checked_mul(dim));
            dims.push(dim);
        }
        let number = self.u32()?;
        let offset = self.u64()?;
        let Some(elements) = elements else {
            return malformed(format!("{} has no size", crate::printable(&name)));
        };
        let element = ElementType::of(number).ok_or(number);
        let bytes = match element {
            Err(_) => None,
            Ok(element) => {
                // A row is a whole number of blocks.
                if dims.first().copied().unwrap_or(1) % element.block != 0 {
                    return malformed(format!(
                        "a row of {} is not a whole number of blocks of {}",
                        crate::printable(&name),
                        element.name
                    ));
                }
                let bytes = (elements / element.block).checked_mul(element.bytes);
                Some(bytes.ok_or_else(|| ModelError::Malformed("a tensor is longer than any file".to_owned()))?)
            }
        };
        let tensor = Tensor {
            name,
            dims,
            elements,
            element,
            bytes,
        };
        Ok((tensor, offset))
    }
}
