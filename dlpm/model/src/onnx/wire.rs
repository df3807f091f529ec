//! The wire format of Protocol Buffers, read from a file without loading what is not wanted.
//!
//! A reader of our own: the libraries either hold a whole model in memory, or allocate and add by lengths that they have
//! not checked (rten-onnx 0.27, which the tests use to write models). Every length here is checked against the message
//! around it before anything is read, and what is kept is charged to a budget.

use std::io::{BufRead, Seek};

use crate::{ModelError, file::Budget};

/// Messages may be nested this deep. Graphs in graphs need four levels each.
const DEPTH: usize = 100;

/// The value of a field; `Bytes` are still unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An integer.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// A string, bytes, a message or packed numbers, up to this position.
    Bytes(u64),
    /// Four bytes.
    Fixed32([u8; 4]),
}

/// A position in a file of messages.
pub struct Wire<R> {
    input: R,
    position: u64,
    length: u64,
    depth: usize,
    /// Limits what is kept.
    pub budget: Budget,
}

type Result<T> = std::result::Result<T, ModelError>;

impl<R: BufRead + Seek> Wire<R> {
    /// Starts at the begin of `input`, which has `length` bytes.
    pub fn new(input: R, length: u64) -> Self {
        Self {
            input,
            position: 0,
            length,
            depth: 0,
            budget: Budget::default(),
        }
    }

    /// The end of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How far it has been read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Hands every field of the message that ends at `end` to `take`, which may leave bytes unread.
    ///
    /// # Errors
    ///
    /// Where the message is malformed or nested too deep, and those of `take`.
    pub fn message(&mut self, end: u64, mut take: impl FnMut(&mut Self, u64, Field) -> Result<()>) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.malformed("its messages are nested too deep"));
        }
        while self.position < end {
            let (number, field) = self.field(end)?;
            take(self, number, field)?;
            if let Field::Bytes(end) = field {
                self.skip_to(end)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, end: u64) -> Result<(u64, Field)> {
        let tag = self.varint(end)?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint(end)?),
            1 => Field::Fixed64(self.array(end)?),
            2 => {
                let length = self.varint(end)?;
                match self.position.checked_add(length) {
                    Some(field_end) if field_end <= end => Field::Bytes(field_end),
                    _ => return Err(self.malformed("a field is longer than what holds it")),
                }
            }
            5 => Field::Fixed32(self.array(end)?),
            _ => return Err(self.malformed("a field has a type that ONNX does not use")),
        };
        Ok((tag >> 3, field))
    }

    fn varint(&mut self, end: u64) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(end)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number has more than 64 bits"))
    }

    fn array<const N: usize>(&mut self, end: u64) -> Result<[u8; N]> {
        if end.saturating_sub(self.position) < N as u64 {
            return Err(self.malformed("a field is longer than what holds it"));
        }
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(ModelError::Read)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn skip_to(&mut self, end: u64) -> Result<()> {
        let distance = i64::try_from(end - self.position).map_err(|_| self.malformed("a field is too long"))?;
        self.input.seek_relative(distance).map_err(ModelError::Read)?;
        self.position = end;
        Ok(())
    }

    /// The bytes of a field.
    ///
    /// # Errors
    ///
    /// Where the field is none of bytes, or the budget does not suffice.
    pub fn bytes(&mut self, field: Field) -> Result<Vec<u8>> {
        let Field::Bytes(end) = field else {
            return Err(self.malformed("a field has another type than in ONNX"));
        };
        let length = end - self.position;
        self.budget.charge(length)?;
        let length = usize::try_from(length).map_err(|_| self.malformed("a field is too long"))?;
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(ModelError::Read)?;
        self.position = end;
        Ok(bytes)
    }

    /// A field of text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    ///
    /// As [`Self::bytes`].
    pub fn string(&mut self, field: Field) -> Result<String> {
        self.budget.charge(size_of::<String>() as u64)?;
        Ok(String::from_utf8_lossy(&self.bytes(field)?).into_owned())
    }

    /// The end of a field that is a message.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn end_of(&self, field: Field) -> Result<u64> {
        match field {
            Field::Bytes(end) => Ok(end),
            _ => Err(self.malformed("a field has another type than in ONNX")),
        }
    }

    /// An integer.
    ///
    /// # Errors
    ///
    /// Where the field is none.
    pub fn integer(&self, field: Field) -> Result<i64> {
        match field {
            Field::Varint(value) => Ok(value.cast_signed()),
            _ => Err(self.malformed("a field has another type than in ONNX")),
        }
    }

    /// Adds the integers of a field that is repeated, packed or not, as long as there are at most `most`.
    ///
    /// # Errors
    ///
    /// Where the field holds none.
    pub fn integers(&mut self, field: Field, into: &mut Vec<i64>, most: usize) -> Result<()> {
        let end = match field {
            Field::Varint(value) => {
                self.push(into, value.cast_signed(), most)?;
                return Ok(());
            }
            _ => self.end_of(field)?,
        };
        while self.position < end && into.len() <= most {
            let value = self.varint(end)?.cast_signed();
            self.push(into, value, most)?;
        }
        Ok(())
    }

    /// Adds the 32-bit floats of a field that is repeated, packed or not, as long as there are at most `most`.
    ///
    /// # Errors
    ///
    /// Where the field holds none.
    pub fn floats(&mut self, field: Field, into: &mut Vec<f64>, most: usize) -> Result<()> {
        let end = match field {
            Field::Fixed32(bytes) => {
                self.push(into, f64::from(f32::from_le_bytes(bytes)), most)?;
                return Ok(());
            }
            _ => self.end_of(field)?,
        };
        while self.position < end && into.len() <= most {
            let value = f64::from(f32::from_le_bytes(self.array(end)?));
            self.push(into, value, most)?;
        }
        Ok(())
    }

    /// One more than `most` tells that there are too many.
    fn push<T>(&mut self, into: &mut Vec<T>, value: T, most: usize) -> Result<()> {
        if into.len() <= most {
            self.budget.charge(8)?;
            into.push(value);
        }
        Ok(())
    }

    fn malformed(&self, why: &str) -> ModelError {
        ModelError::Malformed(format!("{why} (at byte {})", self.position))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn numbers(bytes: &[u8]) -> Result<Vec<(u64, Field)>> {
        let mut wire = Wire::new(Cursor::new(bytes), bytes.len() as u64);
        let mut fields = Vec::new();
        wire.message(bytes.len() as u64, |_, number, field| {
            fields.push((number, field));
            Ok(())
        })?;
        Ok(fields)
    }

    #[test]
    fn fields_of_every_type() {
        let fields = numbers(&[8, 0x96, 1, 0x12, 2, b'a', b'b', 0x1d, 1, 0, 0, 0]).unwrap();
        assert_eq!(
            fields,
            [
                (1, Field::Varint(150)),
                (2, Field::Bytes(7)),
                (3, Field::Fixed32([1, 0, 0, 0]))
            ]
        );
    }

    #[test]
    fn a_length_beyond_the_end_or_beyond_all_numbers_is_refused() {
        numbers(&[0x12, 3, b'a', b'b']).unwrap_err();
        numbers(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]).unwrap_err();
        numbers(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).unwrap_err();
        numbers(&[8]).unwrap_err();
        // A group, as protobuf 2 had them.
        numbers(&[0x0b]).unwrap_err();
    }

    #[test]
    fn packed_numbers_are_read_up_to_a_limit() {
        let bytes = [0x0a, 3, 1, 2, 3];
        for (most, count) in [(8, 3), (1, 2)] {
            let mut wire = Wire::new(Cursor::new(&bytes), 5);
            let mut values = Vec::new();
            wire.message(5, |wire, _, field| wire.integers(field, &mut values, most))
                .unwrap();
            assert_eq!(values.len(), count);
        }
    }
}
