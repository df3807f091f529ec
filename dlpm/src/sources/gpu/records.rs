//! From what a driver wrote to a list of processes: no NVML.
//!
//! NVML has had three layouts of a process's record, and drivers that write another than their function's name
//! promises. All begin alike: the pid (4 bytes, then 4 that fill up), and the memory (8 bytes). What
//! was written tells their size.

use super::room::{Room, WORD};

/// Sizes of the records that NVML has had: with the ids of instances, with protected memory too, with neither.
const SIZES: [usize; 3] = [24, 32, 16];

/// Sizes that no driver has used so far. They are believed only where every record makes sense.
const OTHER_SIZES: [usize; 4] = [40, 48, 56, 64];

/// A record has at least a pid and memory.
const SHORTEST: usize = 16;

/// The largest pid that Linux can be told to use (`PID_MAX_LIMIT` on 64 bits).
pub(super) const LARGEST_PID: u32 = 4 << 20;

/// More than any GPU has, where it does not tell how much it has.
const LARGEST_MEMORY: u64 = 1 << 48;

/// NVML's word for memory that is not known.
const NOT_AVAILABLE: u64 = u64::MAX;

/// A process of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    /// `None` if it is not told, or is more than the GPU has.
    pub(super) memory_bytes: Option<u64>,
}

/// A list as a driver wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// Those that make sense.
    pub(super) records: Vec<Record>,
    /// Number of those whose pid no process can have.
    pub(super) nonsense: usize,
    /// Bytes of a record; `None` if one record or none does not tell.
    pub(super) size: Option<usize>,
}

/// The first `count` records in `room`, whose size should be `declared`.
///
/// # Errors
///
/// A sentence for the log, where what was written is not a list of records.
pub(super) fn decode(room: &Room, count: usize, declared: usize, total_bytes: Option<u64>) -> Result<Records, String> {
    if room.is_overrun() {
        return Err("the NVIDIA driver wrote more than it had room for when it listed processes".to_owned());
    }
    if count > room.records() {
        return Err(format!(
            "the NVIDIA driver says that it listed {count} processes where it had room for {}",
            room.records()
        ));
    }
    if count == 0 {
        return Ok(Records::default());
    }
    let extent = room.extent();
    let sizes = || std::iter::once(declared).chain(SIZES.into_iter().filter(move |size| *size != declared));
    let is_whole = |size: &usize| is_whole(room, count, *size, extent);
    let whole = || sizes().filter(is_whole);
    let begun = || sizes().filter(|size| ((count - 1) * size + SHORTEST..=count * size).contains(&extent));
    let sensible = |size: &usize| (0..count).all(|place| is_sensible(room, place * size, total_bytes));
    let size = whole()
        .chain(OTHER_SIZES.into_iter().filter(is_whole))
        .find(sensible)
        .or_else(|| begun().find(sensible))
        .or_else(|| whole().next())
        .ok_or_else(|| {
            format!("the NVIDIA driver lists {count} processes in {extent} bytes, which is none of the known layouts")
        })?;
    let records: Vec<Record> = (0..count)
        .filter_map(|place| read(room, place * size, total_bytes))
        .collect();
    Ok(Records {
        nonsense: count - records.len(),
        records,
        size: (count > 1).then_some(size),
    })
}

/// Whether `count` records of this size were written to the last word, and behind them nothing but zeros.
fn is_whole(room: &Room, count: usize, size: usize, extent: usize) -> bool {
    let end = count * size;
    let is_cleared = || (end..extent).step_by(WORD).all(|offset| room.word(offset) == 0);
    extent == end || extent == room.records() * size && is_cleared()
}

fn is_sensible(room: &Room, offset: usize, total_bytes: Option<u64>) -> bool {
    let memory_bytes = room.long(offset + 8);
    read(room, offset, total_bytes).is_some_and(|record| record.memory_bytes.is_some() || memory_bytes == NOT_AVAILABLE)
}

fn read(room: &Room, offset: usize, total_bytes: Option<u64>) -> Option<Record> {
    let pid = room.word(offset);
    let most_bytes = total_bytes.unwrap_or(LARGEST_MEMORY);
    (1..=LARGEST_PID).contains(&pid).then(|| Record {
        pid,
        memory_bytes: Some(room.long(offset + 8)).filter(|bytes| *bytes <= most_bytes),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: u64 = 80 << 30;

    /// Writes words at offsets in bytes, as a driver would.
    fn write(room: &mut Room, words: impl IntoIterator<Item = (usize, u32)>) {
        let pointer: *mut u32 = room.pointer();
        for (offset, word) in words {
            // SAFETY: the tests write records that the room is made for.
            unsafe { pointer.add(offset / WORD).write(word) };
        }
    }

    /// Records of a size, of which the last has only `last` bytes.
    fn written(list: &[(u32, u64)], size: usize, last: usize, records: usize) -> Room {
        let mut room = Room::for_records(records);
        for (place, (pid, memory)) in list.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = memory.to_ne_bytes();
            let halves = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
            let mut words = vec![*pid, 0, halves[0], halves[1], u32::MAX, u32::MAX];
            words.resize(size.max(24) / WORD, 0);
            let length = if place + 1 == list.len() { last } else { size };
            write(
                &mut room,
                (0..length / WORD).map(|word| (place * size + word * WORD, words[word])),
            );
        }
        room
    }

    fn expected(list: &[(u32, u64)]) -> Vec<Record> {
        list.iter()
            .map(|(pid, memory)| Record {
                pid: *pid,
                memory_bytes: (*memory != NOT_AVAILABLE).then_some(*memory),
            })
            .collect()
    }

    proptest! {
        /// Whatever size the records have and whichever was declared: what was written is what is read.
        #[test]
        fn records_of_every_size_are_found(
            list in prop::collection::vec(
                (1..=LARGEST_PID, prop_oneof![0..=TOTAL, Just(NOT_AVAILABLE)]), 1..200
            ),
            size in prop::sample::select(vec![16usize, 24, 32, 40, 64]),
            declared in prop::sample::select(&SIZES),
            more in 0usize..100,
        ) {
            let room = written(&list, size, size, list.len() + more);
            let found = decode(&room, list.len(), declared, Some(TOTAL)).unwrap();
            prop_assert_eq!((found.records, found.nonsense), (expected(&list), 0));
            prop_assert_eq!(found.size, (list.len() > 1).then_some(size));
        }

        /// Whatever a driver writes: what is read are records that make sense, and not more than it said.
        #[test]
        fn whatever_is_written_is_judged(
            words in prop::collection::vec(any::<u32>(), 0..200), count in 0usize..20, records in 1usize..20,
        ) {
            let mut room = Room::for_records(records);
            let end = room.records() * 16;
            write(&mut room, words.into_iter().take(end).enumerate().map(|(place, word)| (place * WORD, word)));
            if let Ok(found) = decode(&room, count, 24, Some(TOTAL)) {
                prop_assert_eq!(found.records.len() + found.nonsense, count);
                prop_assert!(found.records.iter().all(|record| (1..=LARGEST_PID).contains(&record.pid)
                    && record.memory_bytes.is_none_or(|bytes| bytes <= TOTAL)));
            }
        }
    }

    const TWO: [(u32, u64); 2] = [(100, 1 << 30), (200, 3 << 30)];

    #[test]
    fn fields_at_the_end_may_be_left_out() {
        for (size, last) in [(24, 16), (32, 24), (32, 16)] {
            let room = written(&TWO, size, last, 8);
            assert_eq!(
                decode(&room, 2, 24, Some(TOTAL)).unwrap().records,
                expected(&TWO),
                "{size} {last}"
            );
        }
    }

    #[test]
    fn a_driver_may_clear_its_room_first() {
        let mut room = Room::for_records(8);
        write(&mut room, (0..8 * 32 / WORD).map(|place| (place * WORD, 0)));
        let list = written(&TWO, 32, 32, 8);
        write(
            &mut room,
            (0..64).step_by(WORD).map(|offset| (offset, list.word(offset))),
        );
        assert_eq!(decode(&room, 2, 24, Some(TOTAL)).unwrap().records, expected(&TWO));
    }

    #[test]
    fn nonsense_is_left_out_and_counted() {
        let list = [(0, 0), (100, 1 << 30), (u32::MAX, 5), (200, TOTAL + 1)];
        let found = decode(&written(&list, 24, 24, 8), 4, 24, Some(TOTAL)).unwrap();
        let of = |pid, memory_bytes| Record { pid, memory_bytes };
        assert_eq!(found.records, [of(100, Some(1 << 30)), of(200, None)]);
        assert_eq!(found.nonsense, 2);
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        let room = written(&TWO, 24, 24, 2);
        assert!(decode(&room, 3, 24, None).unwrap_err().contains("room for 2"));
        let mut room = Room::for_records(4);
        assert!(decode(&room, 2, 24, None).unwrap_err().contains("0 bytes"));
        write(&mut room, [(4 * 40 - WORD, 1)]);
        assert!(decode(&room, 4, 24, None).unwrap_err().contains("160 bytes"));
        write(&mut room, [(4 * 64, 1)]);
        assert!(
            decode(&room, 0, 24, None)
                .unwrap_err()
                .contains("more than it had room for")
        );
    }
}
