//! The thread that compresses closed files of a log, so that the one that writes lines never waits for it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Instant,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};
use zstd::stream::write::Encoder;

use crate::log::names::COMPRESSED;

/// A line repeats most of the one before it, which every level finds. What is left are digits, which higher levels do not
/// make much smaller.
const LEVEL: i32 = 9;

/// Bytes that are compressed at once: between two pieces the thread looks whether it has to stop.
const PIECE_BYTES: u64 = 1 << 20;

/// How much the thread gives way to all others (`nice`).
const NICE: i32 = 10;

/// The thread, and what it is to do.
#[derive(Debug)]
pub struct Compressor {
    names: Sender<String>,
    stop: Arc<AtomicBool>,
    ended: Receiver<Vec<String>>,
}

impl Compressor {
    /// Starts the thread `dlpm-compress` for files of `folder`, with the rights to files of the calling thread.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(folder: OwnedFd) -> io::Result<Self> {
        let (names, to_do) = mpsc::channel::<String>();
        let (end, ended) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::Builder::new().name("dlpm-compress".to_owned()).spawn(move || {
            // In Linux that is about this thread alone. Without it, it is only less polite.
            let _ = rustix::process::nice(NICE);
            let mut problems = Vec::new();
            for name in to_do {
                if let Err(error) = compress(&folder, &name, &stopped) {
                    problems.push(format!("{name} could not be compressed, and stays as it is: {error}"));
                }
            }
            // Nobody waits for it any more if that took too long.
            let _ = end.send(problems);
        })?;
        Ok(Self { names, stop, ended })
    }

    /// Compresses a closed file of the folder, after those that were asked for before.
    pub fn compress(&self, name: String) {
        // Where the thread has gone, the file stays as it is.
        let _ = self.names.send(name);
    }

    /// Lets it finish until `deadline`; what is not compressed then stays as it is. What went wrong, a sentence each.
    pub fn finish(self, deadline: Instant) -> Vec<String> {
        drop(self.names);
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(problems) = self.ended.recv_timeout(left) {
            return problems;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.ended.recv().unwrap_or_default()
    }
}

/// Compresses a file; at each moment the folder has the plain one or the compressed one, whole.
fn compress(folder: &OwnedFd, name: &str, stop: &AtomicBool) -> io::Result<()> {
    let temporary = format!(".{name}{COMPRESSED}.tmp");
    let unlink = |name: &str| match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(io::Error::from(errno)),
    };
    // Left behind by a trace that was killed, or planted.
    unlink(&temporary)?;
    if stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let plain = match openat(folder, name, flags, Mode::empty()) {
        Ok(plain) => File::from(plain),
        // Deleted to make room.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let packed = File::from(openat(folder, temporary.as_str(), flags, Mode::from_raw_mode(0o644))?);
    let written = pack(&plain, &packed, stop);
    if !matches!(written, Ok(true)) {
        unlink(&temporary)?;
        return written.map(drop);
    }
    if plain.metadata()?.nlink() == 0 {
        // Deleted meanwhile.
        return unlink(&temporary);
    }
    renameat(folder, temporary.as_str(), folder, format!("{name}{COMPRESSED}"))?;
    // The name is on the disk before the plain file is not.
    let _ = rustix::fs::fsync(folder);
    unlink(name)
}

/// Whether all was written and is on the disk.
fn pack(plain: &File, packed: &File, stop: &AtomicBool) -> io::Result<bool> {
    let mut encoder = Encoder::new(packed, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(plain.metadata()?.len()))?;
    let mut piece = Vec::new();
    while plain.take(PIECE_BYTES).read_to_end(&mut piece)? > 0 {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        encoder.write_all(&piece)?;
        piece.clear();
    }
    encoder.finish()?.sync_data()?;
    Ok(true)
}
