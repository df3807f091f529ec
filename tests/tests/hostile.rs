//! Folders from a stranger through every reader: no panic, no hang, bounded memory, nothing that controls a terminal.

use std::{env, path::PathBuf};

use dlpm_tests::{
    hostile::{Good, Limits, check_all},
    require_program,
};

/// Folders; `cargo xtask bench hostile` tries as many as are wanted.
const FOLDERS: u64 = 200;

#[test]
fn every_reader_answers_whatever_is_in_a_folder() {
    require_program!();
    let dlpm = PathBuf::from(env::var_os("DLPM_BIN").unwrap());
    let good = Good::new();
    let (_, failures) = check_all(&dlpm, 0..FOLDERS, Limits::default(), &|folder, number| {
        good.write(folder, number);
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
