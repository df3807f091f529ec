//! An emulated machine: a kernel, an initramfs, and a console.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    console::{self, End},
    tools::Tools,
};
use crate::{process::render, targets::Arch};

/// What a machine is made of. It has two processors.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// Its first file system, if it does not find one on a disk by itself.
    pub initramfs: Option<&'a Path>,
    /// What its command line has beside the console.
    pub append: String,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Disks, in the order in which the kernel counts them (`nvme0n1`, `nvme1n1`, …). They are written in place.
    pub disks: Vec<&'a Path>,
    /// A network card: what QEMU connects it to, as its option `-netdev` takes it, and the last byte of its address.
    pub network: Option<(String, u8)>,
    /// A table that QEMU adds to those of its firmware, which is ACPI's on x86-64.
    pub acpi_table: Option<&'a Path>,
    /// Its clock is the number of instructions that it has executed, and nothing in it is random.
    pub counts_instructions: bool,
}

/// What a machine left.
#[derive(Debug)]
pub struct Ended {
    /// All that its console showed.
    pub console: String,
    /// How it ended.
    pub end: End,
}

/// Boots a machine and lets it run to its end, or until it has made no progress for `limit`: each line of its console that
/// [`console::said`] knows is progress, however slow the machine is. `tell` gets every line.
pub fn boot(
    tools: &Tools,
    accelerator: &str,
    machine: &Machine,
    limit: Duration,
    mut tell: impl FnMut(&str) -> Result<()>,
) -> Result<Ended> {
    let mut command = tools.emulator();
    command.args(["-accel", accelerator, "-smp", "2"]);
    let console = match tools.arch() {
        Arch::Amd64 => {
            // The vendor decides what the zones of a package mean; the module's zones are those of Intel.
            command.args(["-cpu", "max,vendor=GenuineIntel"]);
            // On a busy machine an emulated timer is late, and a kernel that checks it at boot gives up.
            "ttyS0 no_timer_check"
        }
        Arch::Arm64 => {
            // Pointers are signed as an emulator does it fast. What the firmware tells the kernel is always the same.
            command.args(["-machine", "virt,dtb-randomness=off", "-cpu", "max,pauth-impdef=on"]);
            "ttyAMA0"
        }
    };
    if let Some(table) = machine.acpi_table {
        command.args(["-acpitable", &format!("file={}", escaped(table))]);
    }
    if machine.counts_instructions {
        // A clock that only instructions move, and a pause takes no time: what a machine does, it does again.
        command.args([
            "-icount",
            "shift=1,sleep=off",
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-seed",
            "1",
        ]);
    }
    command.args(["-m", &machine.memory_mib.to_string()]);
    command.args(["-display", "none", "-nodefaults", "-no-reboot"]);
    command.args(["-monitor", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(machine.kernel);
    if let Some(initramfs) = machine.initramfs {
        command.arg("-initrd").arg(initramfs);
    }
    for (number, disk) in machine.disks.iter().enumerate() {
        // A disk that does not outlive its machine need not be synchronised.
        let file = escaped(disk);
        let drive = format!("file={file},if=none,id=disk{number},format=raw,cache=unsafe");
        command.args(["-drive", &drive, "-device"]);
        command.arg(format!("nvme,drive=disk{number},serial=disk{number}"));
    }
    if let Some((network, address)) = &machine.network {
        command.args(["-netdev", &format!("{network},id=net"), "-device"]);
        command.arg(format!(
            "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:00:00:{address:02x}"
        ));
    }
    let append = format!("console={console} panic=-1 quiet {}", machine.append);
    command.args(["-append", append.trim_end()]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", render(&command)))?;
    let output = child.stdout.take().context("the emulator has no standard output")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut running = Running(child);
    let mut until = Instant::now() + limit;
    let mut text = String::new();
    let end = loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if console::said(&line).is_some() {
                    until = Instant::now() + limit;
                }
                tell(&line)?;
                text.push_str(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break End::Off,
            Err(RecvTimeoutError::Timeout) => {
                running.0.kill()?;
                break End::TimedOut;
            }
        }
    };
    let status = running.0.wait()?;
    drop(lines);
    let _ = reader.join();
    if end == End::Off && !status.success() {
        text.push_str(&format!("the emulator ended with {status}\n"));
    }
    Ok(Ended { console: text, end })
}

/// The name of a file in an option of QEMU: a comma is written twice.
fn escaped(file: &Path) -> String {
    file.display().to_string().replace(',', ",,")
}

/// An emulator that does not outlive what reads it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hardware virtualisation where it is the processor's own. A /dev/kvm of another kind aborts or hangs.
///
/// Emulated processors take turns in one thread. In a thread each, one of them may go on running code that another has
/// changed, which no real processor does: see "What was found" in `docs/kernels.md`.
pub fn accelerator(arch: Arch) -> &'static str {
    let same = Arch::of_this_machine() == Some(arch);
    let own = ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|module| Path::new("/sys/module").join(module).exists());
    let usable = || fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if same && own && usable() {
        "kvm"
    } else {
        "tcg,thread=single"
    }
}
