//! The file of a model: opened once, hashed, and read only where that is needed.

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    time::SystemTime,
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::ModelError;

/// Bytes that a model's structure may take in memory: names, operators, shapes, small integers. Weights are not loaded.
pub const MEMORY_BYTES: u64 = 96 << 20;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What is left of the memory that a model may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left_bytes: MEMORY_BYTES,
        }
    }
}

impl Budget {
    /// Takes some of it.
    ///
    /// # Errors
    ///
    /// Where there is not enough.
    pub fn charge(&mut self, bytes: u64) -> Result<(), ModelError> {
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or_else(|| {
            ModelError::TooLarge(format!(
                "without its weights it takes more than {} MiB of memory",
                MEMORY_BYTES >> 20
            ))
        })?;
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub struct ModelFile {
    file: File,
    length: u64,
    modified: Option<SystemTime>,
}

impl ModelFile {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// The system's, and where it is no regular file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        use std::os::unix::fs::OpenOptionsExt;
        // Without NONBLOCK a pipe would keep dlpm waiting for somebody who writes to it.
        let file = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(ModelError::Open)?;
        let status = file.metadata().map_err(ModelError::Open)?;
        if !status.is_file() {
            return Err(ModelError::NoFile);
        }
        Ok(Self {
            length: status.len(),
            modified: status.modified().ok(),
            file,
        })
    }

    /// Bytes in the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A reader from the file's begin.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn reader(&self) -> Result<BufReader<&File>, ModelError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(ModelError::Read)?;
        Ok(BufReader::new(file))
    }

    /// Whether the file is still what was hashed, as far as its length and time of modification tell.
    ///
    /// # Errors
    ///
    /// Where it is not.
    pub fn unchanged(&self) -> Result<(), ModelError> {
        let status = self.file.metadata().map_err(ModelError::Read)?;
        let same = |status: &Metadata| status.len() == self.length && status.modified().ok() == self.modified;
        if same(&status) {
            Ok(())
        } else {
            Err(ModelError::Changed)
        }
    }

    /// SHA-256 of its first bytes, or of all, in hexadecimal.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sha256(&self, first_bytes: u64) -> Result<String, ModelError> {
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut file = self.reader()?.into_inner().take(first_bytes);
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => hasher.update(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ModelError::Read(error)),
            }
        }
        use std::fmt::Write as _;
        Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}
