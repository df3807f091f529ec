//! A reader of pickles that executes nothing: it follows the stack machine, and keeps names where Python would call them.
//!
//! The operations are those of Python's `pickletools`. Libraries do not read the operation `BINPERSID`, by which PyTorch names the
//! storage of a tensor. Objects are kept in one list and refer to each other by number, so that
//! cycles and deep nesting need no recursion.

use super::{ModelError, file::Budget};

/// The number of an object.
pub type Id = usize;

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Nothing, or a kind of value that says nothing about tensors.
    Other,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
    /// `module.name`
    Global(String),
    /// A tuple, list or set.
    Items(Vec<Id>),
    /// Keys and values.
    Dict(Vec<(Id, Id)>),
    /// What a persistent id names.
    Persistent(Id),
    /// What a function or class makes of its arguments, and its later state.
    Made {
        /// The function or class.
        by: Id,
        /// Its arguments.
        arguments: Id,
        /// Its state, or its items where it is a dictionary.
        state: Option<Id>,
    },
}

/// Objects by their number.
#[derive(Debug)]
pub struct Objects {
    all: Vec<Object>,
    /// The result.
    pub root: Id,
}

impl Objects {
    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        self.all.get(id).unwrap_or(&Object::Other)
    }

    /// All, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.all.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The items of a tuple or list.
    pub fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Object::Items(items) => items,
            _ => &[],
        }
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name of a function or class.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Global(name) => Some(name),
            _ => None,
        }
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object>,
    /// `None` is a mark.
    stack: Vec<Option<Id>>,
    memo: Vec<(u64, Id)>,
    budget: Budget,
}

type Result<T> = std::result::Result<T, ModelError>;

/// Reads a pickle.
///
/// # Errors
///
/// Where it is malformed, too large, or has operations that PyTorch does not write.
pub fn read(bytes: &[u8]) -> Result<Objects> {
    read_first(bytes).map(|(objects, _)| objects)
}

/// Reads the first of several pickles, and tells what follows it.
///
/// # Errors
///
/// As [`read`].
pub fn read_first(bytes: &[u8]) -> Result<(Objects, &[u8])> {
    let mut machine = Machine {
        rest: bytes,
        objects: Vec::new(),
        stack: Vec::new(),
        memo: Vec::new(),
        budget: Budget::default(),
    };
    loop {
        let [operation] = machine.array()?;
        if operation == b'.' {
            let root = machine.pop()?;
            let objects = Objects {
                all: machine.objects,
                root,
            };
            return Ok((objects, machine.rest));
        }
        machine.step(operation)?;
    }
}

fn malformed(why: &str) -> ModelError {
    ModelError::Malformed(format!("its pickle {why}"))
}

impl Machine<'_> {
    fn step(&mut self, operation: u8) -> Result<()> {
        match operation {
            // The protocol's version, and frames.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => self.push_entry(None)?,
            b'N' => self.push(Object::Other)?,
            0x88 | 0x89 => self.push(Object::Bool(operation == 0x88))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Object::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                self.array::<8>()?;
                self.push(Object::Other)?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.skip(length.into())?;
            }
            b'C' => {
                let [length] = self.array()?;
                self.skip(length.into())?;
            }
            // Texts of Python 2, which wrote the oldest of PyTorch's files.
            b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            b'U' => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            b'c' => {
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.global(name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match self.objects.get(id) {
                    Some(Object::Text(text)) => Ok(text.as_str()),
                    _ => Err(malformed("names a function by something that is not text")),
                };
                let name = format!("{}.{}", text(module)?, text(name)?);
                self.global(name)?;
            }
            b')' | b']' | 0x8f => self.push(Object::Items(Vec::new()))?,
            b'}' => self.push(Object::Dict(Vec::new()))?,
            0x85..=0x87 => self.tuple(usize::from(operation - 0x84))?,
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.items(items)?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            b'R' | 0x81 => {
                let (arguments, by) = (self.pop()?, self.pop()?);
                self.push(Object::Made {
                    by,
                    arguments,
                    state: None,
                })?;
            }
            b'b' => self.build()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_entry(Some(top))?;
            }
            b'q' => {
                let [at] = self.array()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.remember(at.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let [at] = self.array()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.array()?);
                self.recall(at.into())?;
            }
            other => {
                return Err(malformed(&format!(
                    "has the operation {other:#04x}, which PyTorch does not write"
                )));
            }
        }
        Ok(())
    }

    fn take(&mut self, length: u64) -> Result<&[u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| malformed("is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| malformed("is cut off"))?;
        self.rest = rest;
        Ok(*array)
    }

    fn line(&mut self) -> Result<String> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| malformed("is cut off"))?;
        let line = String::from_utf8_lossy(self.take(end as u64)?).into_owned();
        self.array::<1>()?;
        Ok(line)
    }

    fn push(&mut self, object: Object) -> Result<()> {
        self.budget.charge(size_of::<Object>() as u64)?;
        self.objects.push(object);
        self.push_entry(Some(self.objects.len() - 1))
    }

    fn push_entry(&mut self, entry: Option<Id>) -> Result<()> {
        self.budget.charge(size_of::<Option<Id>>() as u64)?;
        self.stack.push(entry);
        Ok(())
    }

    fn items(&mut self, items: Vec<Id>) -> Result<()> {
        self.budget.charge((items.len() * size_of::<Id>()) as u64)?;
        self.push(Object::Items(items))
    }

    fn text(&mut self, length: u64) -> Result<()> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.budget.charge(text.len() as u64)?;
        self.push(Object::Text(text))
    }

    fn global(&mut self, name: String) -> Result<()> {
        self.budget.charge(name.len() as u64)?;
        self.push(Object::Global(name))
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.take(length)?;
        self.push(Object::Other)
    }

    /// An integer of any length; one that has no 64 bits says nothing about tensors.
    fn long(&mut self) -> Result<()> {
        let [length] = self.array()?;
        let bytes = self.take(length.into())?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let object = match wide.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Object::Int(i64::from_le_bytes(wide))
            }
            None => Object::Other,
        };
        self.push(object)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(Some(id)) => Ok(*id),
            _ => Err(malformed("takes from an empty stack")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self
            .stack
            .iter()
            .rposition(Option::is_none)
            .ok_or_else(|| malformed("lacks a mark"))?;
        let items = self.stack.drain(mark..).flatten().collect();
        Ok(items)
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.items(items)
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        self.budget.charge(size_of_val(items) as u64)?;
        // Classes that behave like lists hold no tensors in PyTorch's files.
        if let Some(Object::Items(list)) = self.objects.get_mut(list) {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(malformed("has a key without a value"));
        }
        let top = self.top()?;
        self.budget.charge(size_of_val(items) as u64)?;
        // OrderedDict, for one.
        let dict = match self.objects.get(top) {
            Some(Object::Made { by, arguments, state }) => match state {
                Some(state) => *state,
                None => {
                    let made = Object::Made {
                        by: *by,
                        arguments: *arguments,
                        state: Some(self.objects.len()),
                    };
                    self.budget.charge(size_of::<Object>() as u64)?;
                    self.objects.push(Object::Dict(Vec::new()));
                    if let Some(object) = self.objects.get_mut(top) {
                        *object = made;
                    }
                    self.objects.len() - 1
                }
            },
            _ => top,
        };
        if let Some(Object::Dict(dict)) = self.objects.get_mut(dict) {
            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    fn build(&mut self) -> Result<()> {
        let new = self.pop()?;
        let top = self.top()?;
        if let Some(Object::Made { state, .. }) = self.objects.get_mut(top)
            && state.is_none()
        {
            *state = Some(new);
        }
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<()> {
        let top = self.top()?;
        self.budget.charge(size_of::<(u64, Id)>() as u64)?;
        // PyTorch numbers them one by one, so that the search below ends at once.
        match self.memo.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => {
                if let Some((_, id)) = self.memo.get_mut(found) {
                    *id = top;
                }
            }
            Err(place) if place == self.memo.len() => self.memo.push((at, top)),
            Err(_) => return Err(malformed("numbers its objects out of order")),
        }
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<()> {
        let found = self.memo.binary_search_by_key(&at, |(at, _)| *at);
        match found.ok().and_then(|found| self.memo.get(found)) {
            Some((_, id)) => self.push_entry(Some(*id)),
            None => Err(malformed("recalls an object that it has not numbered")),
        }
    }
}

#[cfg(test)]
mod tests;
