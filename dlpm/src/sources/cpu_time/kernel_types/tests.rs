use std::fs;

use proptest::prelude::*;

use super::*;

const INTEGER: u32 = 1;
const ARRAY: u32 = 3;
const ENUMERATION: u32 = 6;

/// Type information as a kernel of this machine's byte order writes it.
#[derive(Default)]
struct Builder {
    types: Vec<u32>,
    names: Vec<u8>,
}

impl Builder {
    fn name(&mut self, name: &str) -> u32 {
        if self.names.is_empty() {
            self.names.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.names.len()).unwrap();
        self.names.extend(name.bytes().chain([0]));
        at
    }

    fn push(&mut self, name: &str, information: u32, size: u32, rest: &[u32]) -> &mut Self {
        let name = self.name(name);
        self.types.extend([name, information, size]);
        self.types.extend(rest);
        self
    }

    /// A structure with these members: name, type and offset in bits.
    fn structure(&mut self, name: &str, kind: Kind, members: &[(&str, u32, u32)]) -> &mut Self {
        let mut rest = Vec::new();
        for (name, kind, bits) in members {
            rest.extend([self.name(name), *kind, *bits]);
        }
        let count = u32::try_from(members.len()).unwrap();
        self.push(name, (kind as u32) << 24 | count, 0, &rest)
    }

    fn build(&self) -> Vec<u8> {
        let types = u32::try_from(self.types.len() * 4).unwrap();
        let names = u32::try_from(self.names.len()).unwrap();
        let header = [MAGIC | 1 << 16, 24, 0, types, types, names];
        let words = header.iter().chain(&self.types);
        words
            .flat_map(|word| word.to_ne_bytes())
            .chain(self.names.iter().copied())
            .collect()
    }
}

/// 1: `int`, 2: an array, 3: the structure, 4: an enumeration, 5: a union without a name, 6: a structure without a name
/// inside of it, 7 and 8: other kinds with the name of the structure, 9: one that holds itself, 10: one that holds
/// itself 30 times.
fn example() -> Vec<u8> {
    let mut builder = Builder::default();
    builder
        .push("int", INTEGER << 24, 4, &[0x20])
        .push("", ARRAY << 24, 0, &[1, 1, 8])
        .structure(
            "task_struct",
            Kind::Struct,
            &[("state", 1, 0), ("", 5, 64), ("pid", 1, 192), ("", 1, 256)],
        )
        .push("colour", ENUMERATION << 24 | 2, 4, &[0, 0, 0, 1])
        .structure("", Kind::Union, &[("", 6, 0), ("whole", 1, 0)])
        .structure("", Kind::Struct, &[("first", 1, 0), ("second", 1, 32)])
        .push("task_struct", (Kind::Typedef as u32) << 24, 3, &[])
        .push("task_struct", (Kind::Function as u32) << 24 | 1, 0, &[])
        .structure("knot", Kind::Struct, &[("", 9, 8)])
        .structure("thicket", Kind::Struct, &[("", 10, 0); 30]);
    builder.build()
}

fn find(types: &KernelTypes, kind: Kind, name: &str) -> Option<u32> {
    types.find([(kind, name)])[0]
}

#[test]
fn a_type_is_found_by_kind_and_whole_name() {
    let types = KernelTypes::parse(example()).unwrap();
    for (kind, name, expected) in [
        (Kind::Struct, "task_struct", Some(3)),
        (Kind::Typedef, "task_struct", Some(7)),
        (Kind::Function, "task_struct", Some(8)),
        (Kind::Union, "task_struct", None),
        (Kind::Struct, "task", None),
        (Kind::Struct, "task_struct_", None),
    ] {
        assert_eq!(find(&types, kind, name), expected, "{kind:?} {name}");
    }
    let both = types.find([(Kind::Function, "task_struct"), (Kind::Struct, "knot")]);
    assert_eq!(both, [Some(8), Some(9)]);
}

#[test]
fn fields_are_found_also_inside_what_has_no_name() {
    let types = KernelTypes::parse(example()).unwrap();
    for (structure, field, expected) in [
        (3, "state", Some(0)),
        (3, "pid", Some(24)),
        (3, "second", Some(12)),
        (3, "whole", Some(8)),
        (3, "third", None),
        // What is not a structure, what is not there, and `void`.
        (1, "state", None),
        (70_000, "state", None),
        (0, "state", None),
        // What holds itself is nothing that a kernel has; the search ends.
        (9, "start", None),
        (10, "start", None),
    ] {
        assert_eq!(types.offset_in(structure, field), expected, "{structure} {field}");
    }
}

#[test]
fn a_bit_field_has_no_offset_in_bytes() {
    const WITH_BIT_FIELDS: u32 = 1 << 31;
    let mut builder = Builder::default();
    let names = ["plain", "bits", "odd"].map(|name| builder.name(name));
    let members = [names[0], 0, 64, names[1], 0, 3 << 24 | 128, names[2], 0, 131];
    builder.push("flags", WITH_BIT_FIELDS | (Kind::Struct as u32) << 24 | 3, 0, &members);
    let types = KernelTypes::parse(builder.build()).unwrap();
    let offsets = ["plain", "bits", "odd"].map(|field| types.offset_in(1, field));
    assert_eq!(offsets, [Some(8), None, None]);
}

#[test]
fn aya_gets_the_ids_of_the_kernel() {
    let types = KernelTypes::parse(example()).unwrap();
    let wanted = [
        (Kind::Function, "task_struct"),
        (Kind::Struct, "knot"),
        (Kind::Typedef, "task_struct"),
    ];
    let ids = types.find(wanted);
    assert_eq!(ids, [Some(8), Some(9), Some(7)]);
    let btf = types.for_aya([wanted[0], wanted[2]]).unwrap();
    let again = KernelTypes::parse(btf.to_bytes()).unwrap();
    assert_eq!(again.find(wanted), [Some(8), None, Some(7)]);
    // What the kernel lacks is left out.
    let btf = types.for_aya([(Kind::Typedef, "btf_trace_none"), wanted[2]]).unwrap();
    let again = KernelTypes::parse(btf.to_bytes()).unwrap();
    assert_eq!(again.find(wanted), [None, None, Some(7)]);
}

#[test]
fn what_is_not_type_information_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmlinux");
    let error = KernelTypes::read(&path).unwrap_err();
    assert!(error.contains("vmlinux cannot be read: No such file"), "{error}");
    let whole = example();
    let mut unknown = whole.clone();
    unknown[HEADER_BYTES + 7] = 31;
    let mut foreign = whole.clone();
    foreign[..2].reverse();
    let mut far = whole.clone();
    far[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    let mut short_header = whole.clone();
    short_header[4..8].copy_from_slice(&0u32.to_ne_bytes());
    for (bytes, expected) in [
        (&[][..], "ends within its header"),
        (b"\x7fELF and what follows", "does not begin as BTF"),
        (&foreign, "does not begin as BTF"),
        (&far, "types lie beyond its end"),
        (&short_header, "types lie beyond its end"),
        (&whole[..whole.len() - 1], "names lie beyond its end"),
        (&unknown, "a type of an unknown kind"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = KernelTypes::read(&path).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let error = read_at_most(Path::new("/dev/zero"), 1 << 20).unwrap_err().to_string();
    assert!(error.contains("more than 1 MiB"), "{error}");
}

proptest! {
    /// Whatever is in it: an answer or none, but no panic, and no endless search.
    #[test]
    fn changed_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut: u8) {
        let mut bytes = example();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - usize::from(cut % 64));
        if let Ok(types) = KernelTypes::parse(bytes) {
            for id in 0..13 {
                for field in ["pid", "second", ""] {
                    let _ = types.offset_in(id, field);
                }
            }
            let _ = types.for_aya([(Kind::Struct, "task_struct")]);
        }
    }
}
