//! Bounded reads of a FlatBuffer in a file, of which only the pages that are asked for are in memory.
//!
//! The form is described at <https://flatbuffers.dev/internals/>: a table has the distance to its list of fields
//! before it, and a vector its length.

use std::{collections::HashMap, os::unix::fs::FileExt as _};

use crate::{ModelError, file::ModelFile};

/// Bytes of a page.
const PAGE_BYTES: u64 = 16 << 10;

/// Pages that are kept; 16 MiB.
const MOST_PAGES: usize = 1 << 10;

type Flow<T> = Result<T, ModelError>;

fn malformed<T>(why: &str) -> Flow<T> {
    Err(ModelError::Malformed(why.to_owned()))
}

/// A file that holds a FlatBuffer.
pub struct Buffer<'a> {
    file: &'a ModelFile,
    pages: HashMap<u64, Box<[u8]>>,
}

/// Where a table is.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    at: u64,
    fields_at: u64,
    fields_bytes: u64,
}

/// Where a vector's elements are, and how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    at: u64,
    /// Its length in elements.
    pub length: u64,
}

impl<'a> Buffer<'a> {
    /// Of a file.
    pub fn new(file: &'a ModelFile) -> Self {
        Self {
            file,
            pages: HashMap::new(),
        }
    }

    /// The table from which all others are reached.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn root(&mut self) -> Flow<Table> {
        let at = self.u32(0)?;
        self.table(at.into())
    }

    fn byte(&mut self, at: u64) -> Flow<u8> {
        if at >= self.file.length() {
            return malformed("it refers to something behind its end");
        }
        let number = at / PAGE_BYTES;
        if !self.pages.contains_key(&number) {
            if self.pages.len() >= MOST_PAGES {
                self.pages.clear();
            }
            let begin = number * PAGE_BYTES;
            let length = PAGE_BYTES.min(self.file.length() - begin);
            let mut page = vec![0; usize::try_from(length).unwrap_or_default()].into_boxed_slice();
            let read = self.file.handle().read_exact_at(&mut page, begin);
            read.map_err(ModelError::Read)?;
            self.pages.insert(number, page);
        }
        let page = self.pages.get(&number);
        let byte = page.and_then(|page| page.get(usize::try_from(at % PAGE_BYTES).ok()?));
        byte.copied()
            .map_or_else(|| malformed("it was cut off while it was read"), Ok)
    }

    fn array<const N: usize>(&mut self, at: u64) -> Flow<[u8; N]> {
        let mut bytes = [0; N];
        for (byte, at) in bytes.iter_mut().zip(at..) {
            *byte = self.byte(at)?;
        }
        Ok(bytes)
    }

    fn u16(&mut self, at: u64) -> Flow<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&mut self, at: u64) -> Flow<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn table(&mut self, at: u64) -> Flow<Table> {
        let distance = i32::from_le_bytes(self.array(at)?);
        let Some(fields_at) = at.checked_add_signed(-i64::from(distance)) else {
            return malformed("a table in it has its fields before the file");
        };
        let fields_bytes = u64::from(self.u16(fields_at)?);
        Ok(Table {
            at,
            fields_at,
            fields_bytes,
        })
    }

    /// Where a field's value is; `None` where it has its default.
    fn field(&mut self, table: Table, number: u64) -> Flow<Option<u64>> {
        let entry = 4 + 2 * number;
        if entry + 2 > table.fields_bytes {
            return Ok(None);
        }
        let distance = u64::from(self.u16(table.fields_at + entry)?);
        Ok((distance != 0).then_some(table.at + distance))
    }

    /// Follows a field that refers to something behind it.
    fn target(&mut self, table: Table, number: u64) -> Flow<Option<u64>> {
        let Some(at) = self.field(table, number)? else {
            return Ok(None);
        };
        Ok(Some(at + u64::from(self.u32(at)?)))
    }

    /// A table in a field.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn table_in(&mut self, table: Table, number: u64) -> Flow<Option<Table>> {
        self.target(table, number)?.map(|at| self.table(at)).transpose()
    }

    /// A vector in a field, whose elements have so many bytes.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn vector_in(&mut self, table: Table, number: u64, element_bytes: u64) -> Flow<Vector> {
        let Some(at) = self.target(table, number)? else {
            return Ok(Vector { at: 0, length: 0 });
        };
        let length = u64::from(self.u32(at)?);
        let at = at + 4;
        if at + length * element_bytes > self.file.length() {
            return malformed("a list in it is longer than the file");
        }
        Ok(Vector { at, length })
    }

    /// A table of a vector of tables.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn table_of(&mut self, vector: Vector, number: u64) -> Flow<Table> {
        if number >= vector.length {
            return malformed("it refers to an element behind the end of a list");
        }
        let at = vector.at + 4 * number;
        let target = at + u64::from(self.u32(at)?);
        self.table(target)
    }

    /// The integers of a vector in a field, up to so many.
    ///
    /// # Errors
    ///
    /// Where there are more, or they lie outside the file.
    pub fn ints_in(&mut self, table: Table, number: u64, most: u64) -> Flow<Vec<i32>> {
        let vector = self.vector_in(table, number, 4)?;
        if vector.length > most {
            return malformed("a list in it is longer than any model has");
        }
        (0..vector.length)
            .map(|element| self.array(vector.at + 4 * element).map(i32::from_le_bytes))
            .collect()
    }

    /// A text in a field, up to so many bytes.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn text_in(&mut self, table: Table, number: u64, most: u64) -> Flow<String> {
        let vector = self.vector_in(table, number, 1)?;
        let bytes = (0..vector.length.min(most)).map(|element| self.byte(vector.at + element));
        let bytes: Vec<u8> = bytes.collect::<Flow<_>>()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// An integer of 8 bits in a field, or 0.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn u8_in(&mut self, table: Table, number: u64) -> Flow<u8> {
        self.field(table, number)?.map_or(Ok(0), |at| self.byte(at))
    }

    /// An integer of 32 bits in a field, or 0.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn u32_in(&mut self, table: Table, number: u64) -> Flow<u32> {
        self.field(table, number)?.map_or(Ok(0), |at| self.u32(at))
    }

    /// An integer of 64 bits in a field, or 0.
    ///
    /// # Errors
    ///
    /// Where it lies outside the file.
    pub fn u64_in(&mut self, table: Table, number: u64) -> Flow<u64> {
        self.field(table, number)?
            .map_or(Ok(0), |at| self.array(at).map(u64::from_le_bytes))
    }
}
