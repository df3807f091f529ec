//! The running kernel's type information (BTF), of which only what dlpm asks for is looked at.
//!
//! Libraries build a value for each of the kernel's types, a hundred thousand and more, which is most of what a start would
//! cost. Here one pass notes where each type begins; a type is read when it is asked for.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use aya::{Btf, Endianness};

/// Where the kernel shows its type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The most bytes that are read. Kernels of distributions have 5 to 10 MB.
const MAX_BYTES: u64 = 128 << 20;

const MAGIC: u32 = 0xeb9f;
const HEADER_BYTES: usize = 24;

/// Bytes of a type's name, kind and size, which all types begin with.
const TYPE_BYTES: usize = 12;

/// Bytes of a structure's member: name, type and offset.
const MEMBER_BYTES: usize = 12;

/// How deeply anonymous structures may be nested.
const MAX_DEPTH: u32 = 16;

/// The most members that are looked at for one field: `task_struct` has some 300.
const MAX_MEMBERS: u32 = 10_000;

/// Kinds of types, by their number in the format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Kind {
    Pointer = 2,
    Struct = 4,
    Union = 5,
    Typedef = 8,
    Function = 12,
}

/// Type information as the kernel shows it, with the place of each type.
#[derive(Debug)]
pub struct KernelTypes {
    bytes: Vec<u8>,
    /// Where each type begins in `bytes`, by its id; that of `void`, which is 0, stands for nothing.
    begins: Vec<u32>,
    /// Where the names are.
    names: (usize, usize),
}

impl KernelTypes {
    /// Reads the type information of a kernel.
    ///
    /// # Errors
    ///
    /// A sentence, where the file is absent or is not type information.
    pub fn read(path: &Path) -> Result<Self, String> {
        let unreadable = |reason: String| {
            format!(
                "the kernel's type information {} cannot be read: {reason}",
                path.display()
            )
        };
        let bytes = read_at_most(path, MAX_BYTES).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(bytes).map_err(|reason| unreadable(reason.to_owned()))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, &'static str> {
        let header = |offset| word(&bytes, offset).ok_or("it ends within its header");
        // The two bytes after the magic number are a version and flags.
        if header(0)? & 0xffff != MAGIC {
            return Err("it does not begin as BTF of this machine's byte order does");
        }
        let after_header = size(header(4)?);
        let part = |offset, length| {
            let begin = after_header.checked_add(size(offset))?;
            let end = begin.checked_add(size(length))?;
            (after_header >= HEADER_BYTES && end <= bytes.len()).then_some((begin, end))
        };
        let (mut at, types_end) = part(header(8)?, header(12)?).ok_or("its types lie beyond its end")?;
        let names = part(header(16)?, header(20)?).ok_or("its names lie beyond its end")?;
        // A type has 12 bytes and mostly some more: room for all of them at once.
        let mut begins = Vec::with_capacity((types_end - at) / 16);
        begins.push(0);
        while at < types_end {
            let length = word(&bytes, at + 4)
                .and_then(type_length)
                .filter(|length| types_end - at >= *length)
                .ok_or("it has a type of an unknown kind, or one that is cut off")?;
            begins.push(u32::try_from(at).map_err(|_| "it is too large")?);
            at += length;
        }
        Ok(Self { bytes, begins, names })
    }

    /// The first type of each of these kinds and names. Names are not unique over kinds: there are typedefs and functions
    /// with the name of a structure.
    pub(super) fn find<const N: usize>(&self, wanted: [(Kind, &str); N]) -> [Option<u32>; N] {
        let mut found = [None; N];
        for (id, &begin) in (0..).zip(&self.begins).skip(1) {
            let Some(information) = word(&self.bytes, size(begin) + 4) else {
                break;
            };
            let kind = kind_of(information);
            for ((wanted_kind, name), found) in wanted.iter().zip(&mut found) {
                if *wanted_kind as u32 == kind && found.is_none() && self.is_named(begin, name) {
                    *found = Some(id);
                }
            }
        }
        found
    }

    /// Offset of a structure's field in bytes, also inside anonymous structures and unions; `None` if there is no such
    /// field, or where it is a bit field.
    pub(super) fn offset_in(&self, structure: u32, field: &str) -> Option<u32> {
        self.offset_at_depth(structure, field, 0, &mut { MAX_MEMBERS })
    }

    fn offset_at_depth(&self, structure: u32, field: &str, depth: u32, members_left: &mut u32) -> Option<u32> {
        let begin = size(*self.begins.get(size(structure)).filter(|_| structure != 0)?);
        let information = word(&self.bytes, begin + 4)?;
        if depth > MAX_DEPTH || ![Kind::Struct as u32, Kind::Union as u32].contains(&kind_of(information)) {
            return None;
        }
        // With the flag, the upper byte of an offset in bits is the width of a bit field, and 0 for others.
        let has_bit_fields = information >> 31 != 0;
        let members = (0..count_of(information)).map(|index| begin + TYPE_BYTES + index * MEMBER_BYTES);
        for member in members {
            *members_left = members_left.checked_sub(1)?;
            let (name, member_type) = (word(&self.bytes, member)?, word(&self.bytes, member + 4)?);
            let bits = word(&self.bytes, member + 8)?;
            let is_bit_field = bits % 8 != 0 || (has_bit_fields && bits >> 24 != 0);
            if self.name_is(name, field) {
                return (!is_bit_field).then_some(bits / 8);
            }
            if self.name_is(name, "")
                && let Some(inside) = self.offset_at_depth(member_type, field, depth + 1, members_left)
            {
                return (bits / 8).checked_add(inside);
            }
        }
        None
    }

    /// Information for aya that holds these types alone, as far as the kernel has them, each with its id in the kernel;
    /// what lies between them are pointers to nothing.
    ///
    /// aya asks a `Btf` for the id of what a program is attached to, and nothing else of it; but it builds one from all
    /// that the kernel knows.
    ///
    /// # Errors
    ///
    /// A sentence, where aya refuses it.
    pub(super) fn for_aya<const N: usize>(&self, wanted: [(Kind, &str); N]) -> Result<Btf, String> {
        let found = self.find(wanted).into_iter().zip(wanted);
        let mut types: Vec<_> = found.filter_map(|(id, (kind, name))| Some((id?, kind, name))).collect();
        types.sort_unstable_by_key(|(id, ..)| *id);
        let (mut bytes, mut names) = (Vec::new(), vec![0]);
        let mut next = 1;
        for (id, kind, name) in types {
            for _ in next..id {
                push_type(&mut bytes, 0, Kind::Pointer);
            }
            let name_at = u32::try_from(names.len()).unwrap_or(0);
            push_type(&mut bytes, name_at, kind);
            names.extend(name.bytes().chain([0]));
            next = id + 1;
        }
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
        let (types_length, names_length) = (length(&bytes), length(&names));
        let mut whole = Vec::with_capacity(HEADER_BYTES + bytes.len() + names.len());
        // Version 1 above the magic number; then the length of the header, and where types and names are behind it.
        let header = [MAGIC | 1 << 16, 24, 0, types_length, types_length, names_length];
        whole.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        whole.append(&mut bytes);
        whole.append(&mut names);
        Btf::parse(&whole, Endianness::default()).map_err(|error| error.to_string())
    }

    fn is_named(&self, begin: u32, name: &str) -> bool {
        word(&self.bytes, size(begin)).is_some_and(|offset| self.name_is(offset, name))
    }

    /// Whether the name at this place among the names is `name`.
    fn name_is(&self, offset: u32, name: &str) -> bool {
        let (begin, end) = self.names;
        let rest = self.bytes[begin..end].get(size(offset)..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    if file.take(limit + 1).read_to_end(&mut bytes)? as u64 > limit {
        return Err(io::Error::other(format!("it has more than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*four))
}

/// `u32` fits wherever dlpm runs: the kernel's eBPF needs 64 bits for its maps in memory.
fn size(value: u32) -> usize {
    value as usize
}

fn kind_of(information: u32) -> u32 {
    information >> 24 & 0x1f
}

fn count_of(information: u32) -> usize {
    size(information & 0xffff)
}

/// Bytes of a type with what follows it; `None` if its kind is not known.
fn type_length(information: u32) -> Option<usize> {
    let (each, once) = match kind_of(information) {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats and tags of types.
        2 | 7..=12 | 16 | 18 => (0, 0),
        // Integers, variables and tags of declarations.
        1 | 14 | 17 => (0, 4),
        // Arrays.
        3 => (0, 12),
        // Structures, unions, sections and enumerations of 64 bits.
        4 | 5 | 15 | 19 => (12, 0),
        // Enumerations, and the parameters of functions.
        6 | 13 => (8, 0),
        _ => return None,
    };
    Some(TYPE_BYTES + once + each * count_of(information))
}

fn push_type(bytes: &mut Vec<u8>, name: u32, kind: Kind) {
    for word in [name, (kind as u32) << 24, 0] {
        bytes.extend(word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
