//! A compressed file, unpacked on a thread of its own: who reads the lines need not wait for it.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use zstd::stream::read::Decoder;

/// Bytes that are handed over at once.
const BLOCK_BYTES: usize = 1 << 18;

/// Blocks that wait to be read at most.
const BLOCKS: usize = 4;

/// A file that asks for a larger window (a power of two) is refused: its text would be kept in memory.
const LARGEST_WINDOW_LOG: u32 = 24;

/// The text of a compressed file.
pub struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    at: usize,
}

impl Ahead {
    /// Starts to unpack a file.
    ///
    /// # Errors
    ///
    /// The system's, where there is no memory or no thread.
    pub fn start(file: File) -> io::Result<Self> {
        let mut decoder = Decoder::new(file)?;
        decoder.window_log_max(LARGEST_WINDOW_LOG)?;
        let (sender, blocks) = sync_channel(BLOCKS);
        thread::Builder::new().name("dlpm-unpack".to_owned()).spawn(move || {
            loop {
                let mut block = Vec::with_capacity(BLOCK_BYTES);
                let read = decoder.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block);
                let ends = !matches!(read, Ok(1..));
                // What was read before an error is good.
                if !block.is_empty() && sender.send(Ok(block)).is_err() {
                    return;
                }
                if let Err(error) = read {
                    // Nobody may be waiting for it.
                    let _ = sender.send(Err(error));
                }
                if ends {
                    return;
                }
            }
        })?;
        Ok(Self {
            blocks,
            block: Vec::new(),
            at: 0,
        })
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.block.len() {
            // The thread ends after the last block.
            self.block = self.blocks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            self.at = 0;
        }
        Ok(self.block.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount).min(self.block.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
