//! Memory that a driver writes an answer to.
//!
//! A driver is not trusted with the size of what it writes: drivers 535.43 to 535.98 write 32 bytes where their
//! interface says 24. So the memory is larger than the driver is told, and filled with a pattern that shows
//! how far it wrote.

/// Bytes of the largest record that memory is kept for; the largest that any driver is known to write has 32.
const LARGEST_RECORD: usize = 64;

/// Bytes behind the last record that no driver has any business to write.
const GUARD: usize = 4096;

/// Bytes of a word of the pattern.
pub(super) const WORD: usize = 4;

/// Memory for one answer.
#[derive(Debug)]
pub(super) struct Room {
    /// Aligned for every structure of NVML.
    memory: Vec<u64>,
    records: usize,
}

impl Room {
    /// Memory for `records` records of any known size.
    pub(super) fn for_records(records: usize) -> Self {
        let bytes = records * LARGEST_RECORD + GUARD;
        Self {
            memory: (0..bytes / 8).map(long_pattern).collect(),
            records,
        }
    }

    /// How many records the driver may be told that there is room for.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Where the driver writes to.
    pub(super) fn pointer<T>(&mut self) -> *mut T {
        self.memory.as_mut_ptr().cast()
    }

    /// The word at an offset in bytes, a multiple of 4; 0 behind the end.
    pub(super) fn word(&self, offset: usize) -> u32 {
        let bytes = self.memory.get(offset / 8).copied().unwrap_or(0).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        match offset % 8 {
            0 => u32::from_ne_bytes([a, b, c, d]),
            _ => u32::from_ne_bytes([e, f, g, h]),
        }
    }

    /// The number of 64 bits at an offset in bytes, a multiple of 8; 0 behind the end.
    pub(super) fn long(&self, offset: usize) -> u64 {
        self.memory.get(offset / 8).copied().unwrap_or(0)
    }

    /// Number of bytes up to the last one that was written, rounded up to whole words.
    pub(super) fn extent(&self) -> usize {
        let last = (0..self.memory.len())
            .rev()
            .find(|place| self.memory[*place] != long_pattern(*place));
        last.map_or(0, |place| {
            let second = 2 * place + 1;
            (second + usize::from(self.word(second * WORD) != pattern(second))) * WORD
        })
    }

    /// Whether the driver wrote where no record of any known size lies.
    pub(super) fn is_overrun(&self) -> bool {
        self.extent() > self.records * LARGEST_RECORD
    }

    /// The text that begins at an offset and has at most `length` bytes: up to its NUL, if it has one.
    pub(super) fn text(&self, offset: usize, length: usize) -> Vec<u8> {
        let bytes = self.memory.iter().flat_map(|long| long.to_ne_bytes());
        let text = bytes.skip(offset).take(length);
        text.take_while(|byte| *byte != 0).collect()
    }
}

/// The word at a place. Its highest bit makes it too large for a pid, and for half of the memory of a GPU.
fn pattern(place: usize) -> u32 {
    let [a, b, c, d, ..] = place.wrapping_mul(0x9e37_79b1).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) & !2 | 0x8000_0001
}

/// Two words.
fn long_pattern(place: usize) -> u64 {
    let [a, b, c, d] = pattern(2 * place).to_ne_bytes();
    let [e, f, g, h] = pattern(2 * place + 1).to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_shows() {
        let mut room = Room::for_records(3);
        assert_eq!((room.extent(), room.is_overrun()), (0, false));
        let pointer: *mut u32 = room.pointer();
        // SAFETY: the room has 3 records of 64 bytes and the guard.
        unsafe { pointer.add(9).write(0) };
        assert_eq!((room.extent(), room.is_overrun()), (40, false));
        // SAFETY: as above.
        unsafe { pointer.add(3 * LARGEST_RECORD / WORD).write(7) };
        assert_eq!((room.word(192), room.is_overrun()), (7, true));
    }

    #[test]
    fn a_text_without_an_end_has_one() {
        let mut room = Room::for_records(1);
        let pointer: *mut u8 = room.pointer();
        // SAFETY: the room has 64 bytes and the guard.
        unsafe { pointer.write_bytes(b'x', 64) };
        assert_eq!(room.text(8, 16), [b'x'; 16]);
        // SAFETY: as above.
        unsafe { pointer.add(9).write(0) };
        assert_eq!(room.text(8, 16), [b'x']);
    }
}
