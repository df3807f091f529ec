//! Programs of unpacked packages: the emulator, what runs a program of its machines here, and busybox.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process::probe, targets::Arch};

/// Below the folder of the tools: what runs in the machines and not here.
pub const FOR_MACHINES: &str = "machines";

/// What a program that needs glibc may need of it.
const LIBRARIES: [&str; 6] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
];

/// A folder of unpacked packages.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
    arch: Arch,
}

impl Tools {
    /// The tools in this folder, for machines with this processor.
    pub fn new(folder: &Path, arch: Arch) -> Self {
        Self {
            folder: folder.to_owned(),
            arch,
        }
    }

    /// The processor of the machines.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Whether all of it starts.
    pub fn start(&self) -> bool {
        let emulator = probe(self.emulator().arg("--version")).is_some();
        let is_foreign = self.arch != Arch::Amd64;
        emulator && (!is_foreign || (self.runner().is_some() && self.glibc().is_ok()))
    }

    /// The loader and the libraries of the machines' glibc: where a program of theirs looks for each, and where it is here.
    pub fn glibc(&self) -> Result<Vec<(String, PathBuf)>> {
        let (root, loader) = match self.arch {
            Arch::Amd64 => (self.folder.clone(), "lib64/ld-linux-x86-64.so.2"),
            Arch::Arm64 => (self.folder.join(FOR_MACHINES), "lib/ld-linux-aarch64.so.1"),
        };
        let folder = format!("lib/{}-linux-gnu", self.arch.rust());
        let places = LIBRARIES.map(|name| format!("{folder}/{name}"));
        let places = std::iter::once(loader.to_owned()).chain(places);
        let found = places.map(|place| {
            let here = [root.join(&place), root.join("usr").join(&place)];
            let here = here.into_iter().find(|path| path.exists());
            let here = here.with_context(|| {
                format!(
                    "{place} is not in {}; remove {}, and run this again",
                    root.display(),
                    self.folder.display()
                )
            })?;
            Ok((format!("/{place}"), here))
        });
        found.collect()
    }

    /// The emulator of a whole machine.
    pub fn emulator(&self) -> Command {
        let mut command = self.program(&format!("usr/bin/qemu-system-{}", self.arch.rust()));
        command.env("QEMU_MODULE_DIR", self.libraries()[0].join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.folder.join(firmware));
        }
        command
    }

    /// A program of the machines on this machine.
    pub fn run(&self, program: &Path) -> Result<Command> {
        if self.arch == Arch::Amd64 {
            return Ok(Command::new(program));
        }
        let mut command = self
            .runner()
            .with_context(|| format!("nothing in {} runs programs of {}", self.folder.display(), self.arch))?;
        command.arg("-L").arg(self.folder.join(FOR_MACHINES)).arg(program);
        Ok(command)
    }

    /// What runs programs of the machines' processor. Some releases of Debian have it linked statically.
    fn runner(&self) -> Option<Command> {
        let place = format!("usr/bin/qemu-{}", self.arch.rust());
        let ways = [
            |tools: &Self, place: &str| tools.program(place),
            |tools: &Self, place: &str| Command::new(tools.folder.join(place)),
        ];
        let starts = |way: &&fn(&Self, &str) -> Command| probe(way(self, &place).arg("--version")).is_some();
        ways.iter().find(starts).map(|way| way(self, &place))
    }

    /// Busybox for the machines, and the names of its commands.
    pub fn busybox(&self) -> Result<(PathBuf, Vec<String>)> {
        let here = self.busybox_in(&self.folder)?;
        let listed = probe(Command::new(&here).arg("--list")).context("busybox does not list its commands")?;
        let commands = listed.lines().map(str::to_owned).collect();
        let for_machines = match self.arch {
            Arch::Amd64 => here,
            Arch::Arm64 => self.busybox_in(&self.folder.join(FOR_MACHINES))?,
        };
        Ok((for_machines, commands))
    }

    fn busybox_in(&self, folder: &Path) -> Result<PathBuf> {
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
        match places.into_iter().find(|path| path.exists()) {
            Some(path) => Ok(path),
            None => bail!(
                "busybox is not in {}; remove {} and run this again",
                folder.display(),
                self.folder.display()
            ),
        }
    }

    /// A program, with the loader and the libraries that are here: those of the system may be of another release.
    pub fn program(&self, place: &str) -> Command {
        let libraries = self.libraries();
        let loaders = libraries.each_ref().map(|folder| folder.join("ld-linux-x86-64.so.2"));
        let loader = loaders.iter().find(|path| path.exists()).unwrap_or(&loaders[0]);
        let folders: Vec<_> = libraries.iter().map(|path| path.display().to_string()).collect();
        let mut command = Command::new(loader);
        command.args(["--library-path", &folders.join(":")]);
        command.arg(self.folder.join(place));
        command
    }

    fn libraries(&self) -> [PathBuf; 2] {
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|part| self.folder.join(part))
    }
}
