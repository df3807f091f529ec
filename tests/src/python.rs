//! Running Python programs that use the package `dlpm`.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{command::world_readable, phases::python_folder};

/// What every program begins with. It spins by its own clock: on a busy machine a second by the wall holds little
/// of it.
pub const PRELUDE: &str = "
import logging, os, sys, threading, time
import dlpm
logging.basicConfig(format='%(levelname)s %(name)s %(message)s')
cpu_ns = lambda: time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)
def spin(seconds):
    begun = cpu_ns()
    while cpu_ns() < begun + seconds * 1e9:
        pass
def nothing(m):
    assert not m.complete and m.is_estimate is None and m.energy_uj == {} and m.methods == {}, m
    known = [m.joules, m.cpu_joules, m.gpu_joules, m.dram_joules, m.seconds, m.cpu_seconds, m.cpu_ns]
    assert known == [None] * 7, known
    assert str(m) == 'not measured', m
";

/// A copy of the package that every user can read.
pub fn package() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let target = world_readable(&directory).path().join("dlpm");
    fs::create_dir(&target).unwrap();
    for entry in fs::read_dir(python_folder().join("dlpm")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
        }
    }
    directory
}

/// Runs it: what it printed, and what it said beside.
///
/// # Panics
///
/// Where it fails.
#[track_caller]
pub fn said(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
    (stdout, stderr)
}
