//! The file of a model: opened once, hashed, and read only where that is needed.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Component, Path},
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
    /// The system's, and where it is not a regular file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_with(path, OFlags::empty())
    }

    /// Opens a file in the folder of a model by a name that a file tells. It never leads out of the folder: neither with a
    /// path nor through a link, but for the links that Hugging Face's cache has from `snapshots/REVISION` to `blobs`.
    ///
    /// # Errors
    ///
    /// The system's, where the name leads elsewhere, and where it is not a regular file.
    pub fn open_in(folder: &Path, name: &str) -> Result<Self, ModelError> {
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name) {
            return Err(ModelError::Elsewhere);
        }
        let path = folder.join(name);
        let Ok(target) = fs::read_link(&path) else {
            return Self::open_with(&path, OFlags::NOFOLLOW);
        };
        let parts: Vec<Component<'_>> = target.components().collect();
        match parts.as_slice() {
            [
                Component::ParentDir,
                Component::ParentDir,
                Component::Normal(blobs),
                Component::Normal(_),
            ] if *blobs == "blobs" => Self::open_with(&folder.join(&target), OFlags::NOFOLLOW),
            _ => Err(ModelError::Elsewhere),
        }
    }

    fn open_with(path: &Path, flags: OFlags) -> Result<Self, ModelError> {
        use std::os::unix::fs::OpenOptionsExt;
        // Without NONBLOCK a pipe would keep dlpm waiting for somebody who writes to it.
        let flags = OFlags::NONBLOCK | flags;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
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

    /// The file itself, for reads at a place.
    pub fn handle(&self) -> &File {
        &self.file
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

    /// All of a small file.
    ///
    /// # Errors
    ///
    /// The system's, and where it has more than `most` bytes.
    pub fn bytes(&self, most: u64) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        let read = self.reader()?.take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(ModelError::Read)?;
        if bytes.len() as u64 > most {
            return Err(ModelError::TooLarge(format!("it has more than {} MiB", most >> 20)));
        }
        Ok(bytes)
    }

    /// The first bytes of a file, or all.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn bytes_up_to(&self, most: u64) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        let read = self.reader()?.take(most).read_to_end(&mut bytes);
        read.map_err(ModelError::Read)?;
        Ok(bytes)
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
