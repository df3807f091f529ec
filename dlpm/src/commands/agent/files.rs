//! The agent's folder: one agent at a time, and what the one before left.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{
    agent::{
        counters::Counters,
        line::{Line, Place},
    },
    cli::AgentArgs,
    sinks::agent::{
        finished::FinishedFile,
        state::{Owner, State},
    },
    sources::{calibration::MachineId, host::boot_id},
};

/// The files of an agent, and the counters to go on with.
pub struct Files {
    pub state: State,
    pub finished: FinishedFile,
    pub place: Place,
    pub counters: Counters,
    pub notes: Vec<String>,
}

/// Whether the folder can be used.
///
/// # Errors
///
/// Why not, with the next step.
pub fn check(folder: &Path) -> Result<()> {
    match fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!(
                "state_dir {} is not a directory: give one for the agent alone",
                folder.display()
            )
        }
        Ok(metadata) if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 => bail!(
            "state_dir {} can be written by others than root: counters and finished tenants there would prove nothing. \
             Run `chown root {0} && chmod go-w {0}`, or give another folder",
            folder.display()
        ),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("state_dir {} cannot be used: give another folder", folder.display()))
        }
    }
}

/// Opens them; what ended with an earlier start of the machine becomes finished tenants.
///
/// # Errors
///
/// Why not, with the next step.
pub fn open(args: &AgentArgs) -> Result<Files> {
    let folder = &args.state_dir;
    if !rustix::process::geteuid().is_root() {
        bail!("dlpm agent needs root (CPU time, energy and other users' processes): run it with sudo, or as a service");
    }
    check(folder)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("state_dir {} cannot be made: give another folder", folder.display()))?;
    lock(folder)?;
    let procfs = &args.machine.roots.procfs;
    let boot_id = boot_id(procfs).context(
        "the kernel does not tell which start of the machine this is: mount /proc, or name it with --procfs",
    )?;
    let place = Place {
        node_id: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        boot_id,
    };
    let owner = Owner {
        machine_id: MachineId::read(procfs).machine_id,
        place: place.clone(),
    };
    let (state, found) = State::open(folder, owner)?;
    let mut finished = FinishedFile::open(folder, args.finished_size).with_context(|| {
        format!(
            "finished.jsonl in {} cannot be written: give a state_dir that root can write",
            folder.display()
        )
    })?;
    let mut notes = found.notes;
    let counters = match found.kept {
        None => Counters::default(),
        Some((owner, mut counters)) if owner.place.boot_id == place.boot_id => {
            counters.written(finished.last_number(&place.boot_id));
            notes.push(format!(
                "the counters go on: {} tenants, after {} intervals",
                counters.accounts.len(),
                counters.intervals
            ));
            counters
        }
        Some((owner, mut counters)) => {
            let ended = counters.end_all();
            let lines = counters.finished.iter();
            let lines = lines
                .map(|life| Line::of(life, &counters.devices, &owner.place))
                .collect();
            finished.write(lines).context(
                "the tenants that ended with the machine cannot be written to finished.jsonl: make room for them",
            )?;
            notes.push(format!(
                "the machine was started again, so the counters begin at 0; {ended} tenants that ran until then are in \
                 finished.jsonl"
            ));
            Counters::default()
        }
    };
    Ok(Files {
        state,
        finished,
        place,
        counters,
        notes,
    })
}

/// Keeps the folder for this process, until it ends.
fn lock(folder: &Path) -> Result<()> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another dlpm agent uses {}: stop it first (`systemctl stop dlpm-agent`), or give another state_dir",
            folder.display()
        );
    }
    // Closed by the end of the process, and not before.
    std::mem::forget(file);
    Ok(())
}
