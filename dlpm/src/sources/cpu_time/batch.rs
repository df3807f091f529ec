//! Whole hash maps in a few system calls; aya has no wrapper for these commands.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::Pod;

/// What to do with the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// `BPF_MAP_LOOKUP_BATCH`: leave them.
    Lookup,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: take them out.
    Drain,
}

/// The `batch` member of `union bpf_attr`:
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h#L1626>
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `enum bpf_cmd`
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;

const FIRST_CHUNK: usize = 4096;

/// All elements of a hash map of `K` to `V`.
///
/// Elements that are inserted meanwhile may be missed, and ones that move may come twice: callers drain maps that
/// nobody writes, or can live with it.
///
/// # Errors
///
/// Those of the system call; the elements read so far are then lost to the caller.
pub fn read_hash<K: Pod + Default, V: Pod + Default>(map: BorrowedFd<'_>, batch: Batch) -> io::Result<Vec<(K, V)>> {
    let command = match batch {
        Batch::Lookup => BPF_MAP_LOOKUP_BATCH,
        Batch::Drain => BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    };
    let mut all = Vec::new();
    // The cursor of a hash map is the number of a bucket.
    let (mut cursor, mut next) = (0_u32, 0_u32);
    let mut first = true;
    let mut chunk = FIRST_CHUNK;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    loop {
        keys.resize(chunk, K::default());
        values.resize(chunk, V::default());
        let mut attributes = Attributes {
            in_batch: if first { 0 } else { &raw const cursor as u64 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(chunk).unwrap_or(u32::MAX),
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Attributes::default()
        };
        // SAFETY: the buffers have room for `count` elements of the map's key and value types, which are plain data,
        // and live until the call returns.
        let error = unsafe { call(command, &mut attributes) }.err();
        match error.as_ref().and_then(io::Error::raw_os_error) {
            // A bucket holds more than a whole chunk: nothing was copied, try with a larger one.
            Some(libc::ENOSPC) => {
                chunk *= 2;
                continue;
            }
            None | Some(libc::ENOENT) => {}
            Some(_) => return Err(error.unwrap_or_else(|| io::Error::other("bpf"))),
        }
        let count = attributes.count as usize;
        all.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        if error.is_some() {
            return Ok(all);
        }
        cursor = next;
        first = false;
    }
}

/// Deletes the elements of these keys: how many there were. A key without an element is passed over.
///
/// # Errors
///
/// Those of the system call; some elements may be deleted then.
pub fn delete_from_hash<K: Pod>(map: BorrowedFd<'_>, mut keys: &[K]) -> io::Result<u64> {
    let mut deleted = 0;
    while !keys.is_empty() {
        let mut attributes = Attributes {
            keys: keys.as_ptr() as u64,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Attributes::default()
        };
        // SAFETY: there are at least `count` keys, of the map's key type.
        let result = unsafe { call(BPF_MAP_DELETE_BATCH, &mut attributes) };
        deleted += u64::from(attributes.count);
        keys = keys.get(attributes.count as usize..).unwrap_or_default();
        match result {
            // The kernel stops at the first key without an element.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => keys = keys.get(1..).unwrap_or_default(),
            result => result?,
        }
    }
    Ok(deleted)
}

/// The members of `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a descriptor into an array of them.
///
/// # Errors
///
/// Those of the system call: ENOENT or E2BIG where the array has no such element.
pub fn set_descriptor(array: BorrowedFd<'_>, index: u32, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let value = descriptor.as_raw_fd().cast_unsigned();
    let mut element = Element {
        map_fd: array.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: &raw const index as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the map's keys and values are of four bytes, which live until the call returns.
    unsafe { call(BPF_MAP_UPDATE_ELEM, &mut element) }
}

/// # Safety
///
/// What `attributes` points to must suit the command, and the types of the map.
unsafe fn call<A>(command: libc::c_long, attributes: &mut A) -> io::Result<()> {
    // SAFETY: the kernel reads and writes `attributes` within its size; the rest is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
