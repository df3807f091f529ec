//! The zip archives of PyTorch: which of its formats one is, and bounded reads of what is in it.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    rc::Rc,
};

use zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{ModelError, Options, file::ModelFile, foreign, keras, pt2, summary::Counts, torch_script};

/// Bytes of the list of files in an archive at most. The names of 100,000 weights fit.
const LIST_BYTES: u64 = 8 << 20;

/// Bytes that are read of one file in an archive at most.
const ENTRY_BYTES: u64 = 32 << 20;

/// An archive whose list of files has been read.
pub struct Archive<'a> {
    zip: ZipArchive<Limited<BufReader<&'a File>>>,
    names: Vec<String>,
    left_bytes: Rc<Cell<u64>>,
}

/// Reads up to a limit: the list of a hostile archive must not fill the memory.
struct Limited<R> {
    inner: R,
    left_bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left_bytes = self.left_bytes.get().checked_sub(count as u64);
        self.left_bytes
            .set(left_bytes.ok_or_else(|| io::Error::other("its list of files, or a file in it, is too long"))?);
        Ok(count)
    }
}

impl<R: Seek> Seek for Limited<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Reads a model in an archive.
///
/// # Errors
///
/// Where it is none that dlpm knows, malformed or too large.
pub fn read(file: &ModelFile, options: &Options) -> Result<Counts, ModelError> {
    let mut archive = Archive::open(file)?;
    if let Some(program) = archive.find(pt2::is_program) {
        return pt2::read(&mut archive, &program, options);
    }
    let is_keras = |name: &str| name == keras::CONFIG || name == keras::METADATA;
    if archive.names.iter().filter(|name| is_keras(name)).count() == 2 {
        return keras::read(&mut archive, options);
    }
    if let Some(pickle) = archive.find(|name| name.ends_with("/data.pkl") || name == "data.pkl") {
        return super::weights_only("PyTorch", options, || torch_script::read(&mut archive, &pickle));
    }
    Err(foreign::of_archive(|wanted| {
        archive.names.iter().any(|name| wanted(name))
    }))
}

impl<'a> Archive<'a> {
    fn open(file: &'a ModelFile) -> Result<Self, ModelError> {
        let left_bytes = Rc::new(Cell::new(LIST_BYTES));
        let limited = Limited {
            inner: file.reader()?,
            left_bytes: Rc::clone(&left_bytes),
        };
        // Where it is not given, the offset is guessed from what stands before the list, and a name can look like one.
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let zip = ZipArchive::with_config(config, limited).map_err(malformed)?;
        let names = zip
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .collect();
        Ok(Self { zip, names, left_bytes })
    }

    /// The first file with such a name, in the order of names.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.names.iter().filter(|name| wanted(name)).min().cloned()
    }

    /// All files with such a name, in the order of the archive.
    pub fn all(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.names.iter().filter(|name| wanted(name)).cloned().collect()
    }

    /// What a file of code holds, which PyTorch compresses; at most so many bytes.
    ///
    /// # Errors
    ///
    /// Where it is damaged or longer.
    pub fn unpacked(&mut self, name: &str, most_bytes: usize) -> Result<Vec<u8>, ModelError> {
        let at = self
            .zip
            .index_for_name(name)
            .ok_or_else(|| ModelError::Malformed(format!("it has no {}", super::printable(name))))?;
        self.left_bytes.set(ENTRY_BYTES + LIST_BYTES);
        let mut raw = self.zip.by_index_raw(at).map_err(malformed)?;
        let method = raw.compression();
        let mut packed = Vec::new();
        let read = (&mut raw).take(most_bytes as u64).read_to_end(&mut packed);
        read.map_err(|error| ModelError::Malformed(error.to_string()))?;
        match method {
            CompressionMethod::Stored => Ok(packed),
            method if method == CompressionMethod::DEFLATE => {
                miniz_oxide::inflate::decompress_to_vec_with_limit(&packed, most_bytes).map_err(|_| {
                    ModelError::Malformed(format!("{} in it is damaged, or too large", super::printable(name)))
                })
            }
            _ => Err(ModelError::Malformed(format!(
                "{} in it is compressed in a way that PyTorch does not use",
                super::printable(name)
            ))),
        }
    }

    /// What a file holds.
    ///
    /// # Errors
    ///
    /// Where it is compressed, damaged or too large.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, ModelError> {
        let too_large = || {
            ModelError::TooLarge(format!(
                "{} has more than {} MiB",
                super::printable(name),
                ENTRY_BYTES >> 20
            ))
        };
        let at = self
            .zip
            .index_for_name(name)
            .ok_or_else(|| ModelError::Malformed(format!("it has no {}", super::printable(name))))?;
        let raw = self.zip.by_index_raw(at).map_err(malformed)?;
        if raw.compression() != CompressionMethod::Stored {
            return Err(ModelError::Format(format!(
                "{} in it is compressed, which PyTorch does not do",
                super::printable(name)
            )));
        }
        if raw.size() > ENTRY_BYTES {
            return Err(too_large());
        }
        drop(raw);
        // With its own header, which is short.
        self.left_bytes.set(ENTRY_BYTES + LIST_BYTES);
        let mut bytes = Vec::new();
        let mut entry = self.zip.by_index(at).map_err(malformed)?;
        let read = (&mut entry).take(ENTRY_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| ModelError::Malformed(error.to_string()))?;
        if bytes.len() as u64 > ENTRY_BYTES {
            return Err(too_large());
        }
        Ok(bytes)
    }
}

fn malformed(error: ZipError) -> ModelError {
    ModelError::Malformed(super::printable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    #[test]
    fn the_first_name_may_have_any_length() {
        for length in 1..=64 {
            let name = "n".repeat(length);
            let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            for (name, contents) in [(name.as_str(), &b"weights"[..]), ("a/data.pkl", b"pickle")] {
                writer.start_file(name, options).unwrap();
                writer.write_all(contents).unwrap();
            }
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), writer.finish().unwrap().into_inner()).unwrap();
            let file = ModelFile::open(path.path()).unwrap();
            let mut archive = Archive::open(&file).unwrap();
            assert_eq!(archive.bytes(&name).unwrap(), b"weights", "{length}");
            assert_eq!(archive.bytes("a/data.pkl").unwrap(), b"pickle", "{length}");
        }
    }
}
