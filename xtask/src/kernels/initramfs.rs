//! The file system of an emulated machine: one archive that the kernel unpacks into memory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};

use super::tools::Tools;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// What goes into the archive.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    entries: Vec<(String, Entry)>,
}

#[derive(Clone, Debug)]
enum Entry {
    Program(PathBuf),
    Text(String),
    Link(String),
}

impl Initramfs {
    /// A shell and the usual commands, and users as most systems have them.
    pub fn with_busybox(tools: &Tools) -> Result<Self> {
        let (busybox, commands) = tools.busybox()?;
        let mut archive = Self::default();
        archive.program("/bin/busybox", &busybox);
        for command in commands.iter().filter(|command| *command != "busybox") {
            archive.push(&format!("/bin/{command}"), Entry::Link("busybox".to_owned()));
        }
        archive.push("/usr/bin", Entry::Link("/bin".to_owned()));
        archive.text(
            "/etc/passwd",
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        );
        archive.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
        Ok(archive)
    }

    /// A file that can be executed, at this absolute path.
    pub fn program(&mut self, path: &str, from: &Path) {
        self.push(path, Entry::Program(from.to_owned()));
    }

    /// A file with this text.
    pub fn text(&mut self, path: &str, text: &str) {
        self.push(path, Entry::Text(text.to_owned()));
    }

    fn push(&mut self, path: &str, entry: Entry) {
        self.entries.push((path.trim_start_matches('/').to_owned(), entry));
    }

    /// Writes the archive.
    pub fn write(&self, file: &Path) -> Result<()> {
        self.write_to(BufWriter::new(File::create(file)?))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn write_to<W: Write>(&self, mut output: W) -> Result<()> {
        let mut number = 0;
        let mut add = |output: W, path: &str, mode: u32, content: &[u8]| -> Result<W> {
            number += 1;
            let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
            // Everything belongs to root, whoever builds it.
            let header = Builder::new(path).ino(number).mode(mode).uid(0).gid(0);
            let mut writer = header.write(output, size);
            writer.write_all(content)?;
            Ok(writer.finish()?)
        };
        for directory in self.directories() {
            output = add(output, &directory, DIRECTORY, &[])?;
        }
        for (path, entry) in &self.entries {
            output = match entry {
                Entry::Program(from) => {
                    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
                    add(output, path, PROGRAM, &content)?
                }
                Entry::Text(text) => add(output, path, TEXT, text.as_bytes())?,
                Entry::Link(target) => add(output, path, LINK, target.as_bytes())?,
            };
        }
        let mut output: W = trailer(output)?;
        output.flush()?;
        Ok(())
    }

    /// Every folder of the entries, parents first: the kernel makes none by itself.
    fn directories(&self) -> Vec<String> {
        let parents = self
            .entries
            .iter()
            .flat_map(|(path, _)| Path::new(path).ancestors().skip(1));
        let set: BTreeSet<&Path> = parents.filter(|path| *path != Path::new("")).collect();
        set.iter().map(|path| path.display().to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn the_archive_holds_files_links_and_the_folders_above_them() {
        let mut archive = Initramfs::default();
        archive.text("/plan", "case hooks\n");
        archive.push("/deep/inside/link", Entry::Link("../../plan".to_owned()));
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).unwrap();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            assert_eq!((reader.entry().uid(), reader.entry().gid()), (0, 0));
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            found.push((name, mode, content));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("deep", DIRECTORY, ""),
            ("deep/inside", DIRECTORY, ""),
            ("plan", TEXT, "case hooks\n"),
            ("deep/inside/link", LINK, "../../plan"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_owned()))
        );
    }
}
