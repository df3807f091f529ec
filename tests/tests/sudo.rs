//! Through sudo: what is written belongs to the calling user, and nothing is written for that user as root.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_tests::{
    command::{Dlpm, NOBODY, give, world_readable},
    log::{LOG_NAME, Log, METADATA_NAME},
    require_dlpm,
};
use tempfile::TempDir;

/// A folder of the calling user, and a file of root that this user would like to change.
struct Home {
    directory: TempDir,
    victims: TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        give(directory.path(), NOBODY);
        let victims = tempfile::tempdir().unwrap();
        world_readable(&victims);
        fs::write(victims.path().join("victim"), "of root").unwrap();
        Self { directory, victims }
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn victim(&self) -> PathBuf {
        self.victims.path().join("victim")
    }

    fn trace(&self) -> Dlpm {
        Dlpm::trace(&self.folder())
            .args(["--duration", "150ms"])
            .through_sudo_of(NOBODY)
    }

    fn make_folder(&self) {
        fs::create_dir(self.folder()).unwrap();
        give(&self.folder(), NOBODY);
    }

    #[track_caller]
    fn victim_is_unchanged(&self) {
        assert_eq!(fs::read_to_string(self.victim()).unwrap(), "of root");
        assert_eq!(fs::metadata(self.victim()).unwrap().uid(), 0);
        let files: Vec<_> = fs::read_dir(self.victims.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.uid(), status.gid())
}

#[test]
fn folder_and_files_belong_to_the_calling_user() {
    require_dlpm!();
    let home = Home::new();
    let nested = home.folder().join("of/today");
    Dlpm::trace(&nested)
        .args(["--duration", "150ms"])
        .through_sudo_of(NOBODY)
        .run()
        .exited(0);
    Log::read(&nested).is_complete();
    for path in [
        &home.folder(),
        &home.folder().join("of"),
        &nested,
        &nested.join(LOG_NAME),
        &nested.join(METADATA_NAME),
    ] {
        assert_eq!(owner(path), (NOBODY, NOBODY), "{}", path.display());
    }
}

#[test]
fn without_sudo_they_belong_to_root() {
    require_dlpm!();
    let home = Home::new();
    Dlpm::trace(&home.folder())
        .args(["--duration", "100ms"])
        .run()
        .exited(0);
    assert_eq!(owner(&home.folder()), (0, 0));
    assert_eq!(owner(&home.folder().join(LOG_NAME)), (0, 0));
}

#[test]
fn a_planted_link_to_a_file_of_root_is_not_followed() {
    require_dlpm!();
    for mode in [&[][..], &["--append"], &["--overwrite"]] {
        let home = Home::new();
        home.make_folder();
        symlink(home.victim(), home.folder().join(LOG_NAME)).unwrap();
        home.trace().args(mode).run().fails(1, &[LOG_NAME, "symbolic link"]);
        home.victim_is_unchanged();
    }
    // To a file that is not there: that would create it.
    let home = Home::new();
    home.make_folder();
    symlink(home.victims.path().join("new"), home.folder().join(LOG_NAME)).unwrap();
    home.trace().run().fails(1, &["symbolic link"]);
    home.victim_is_unchanged();
}

#[test]
fn a_planted_link_in_place_of_the_metadata_is_not_followed() {
    require_dlpm!();
    for name in [METADATA_NAME.to_owned(), format!(".{METADATA_NAME}.tmp")] {
        for mode in [&[][..], &["--append"], &["--overwrite"]] {
            let home = Home::new();
            home.make_folder();
            symlink(home.victim(), home.folder().join(&name)).unwrap();
            // Refusing is as good as replacing the link.
            let output = home.trace().args(mode).run();
            home.victim_is_unchanged();
            let metadata = fs::symlink_metadata(home.folder().join(METADATA_NAME));
            assert!(
                metadata.is_ok_and(|metadata| metadata.is_file()) || output.stderr.contains(METADATA_NAME),
                "{name} {mode:?}: {}",
                output.stderr
            );
        }
    }
}

#[test]
fn a_link_in_place_of_the_folder_leads_nowhere_that_the_user_may_not_write() {
    require_dlpm!();
    let home = Home::new();
    symlink(home.victims.path(), home.folder()).unwrap();
    home.trace().run().fails(1, &["as user nobody", "--output"]);
    home.victim_is_unchanged();
    // The same for a folder of root that is named directly.
    Dlpm::trace(&home.victims.path().join("log"))
        .through_sudo_of(NOBODY)
        .run()
        .fails(1, &["as user nobody", "--output"]);
    home.victim_is_unchanged();
}

#[test]
fn a_hard_link_in_place_of_the_log_is_refused() {
    require_dlpm!();
    let home = Home::new();
    home.make_folder();
    // In one file system, as a user could make it where the kernel does not protect hard links.
    let victim = home.directory.path().join("victim");
    fs::write(&victim, "").unwrap();
    fs::hard_link(&victim, home.folder().join(LOG_NAME)).unwrap();
    give(&victim, NOBODY);
    home.trace().run().fails(1, &["hard links"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "");
}

#[test]
fn the_traced_command_runs_as_the_calling_user() {
    require_dlpm!();
    let home = Home::new();
    let script = "id -u; id -g; id -G; echo $USER; cat /proc/self/status | grep CapEff";
    let command = ["--", "/bin/sh", "-c", script];
    let output = home.trace().args(command).run().exited(0);
    assert_eq!(
        output.stdout,
        format!("{NOBODY}\n{NOBODY}\n{NOBODY}\nnobody\nCapEff:\t0000000000000000\n")
    );
    let listed = Log::read(&home.folder());
    assert!(listed.rows("process").any(|row| row["uid"] == NOBODY));
    let output = home
        .trace()
        .args(["--append", "--as-root"])
        .args(command)
        .run()
        .exited(0);
    assert!(output.stdout.starts_with("0\n0\n"), "{}", output.stdout);
    assert_eq!(owner(&home.folder().join(LOG_NAME)), (NOBODY, NOBODY));
}

#[test]
fn a_command_gains_nothing_from_open_files_of_dlpm() {
    require_dlpm!();
    let home = Home::new();
    let listing = ["/bin/sh", "-c", "ls /proc/$$/fd"];
    let with_dlpm = home.trace().arg("--").args(listing).run().exited(0).stdout;
    // What this test itself has inherited goes on to both.
    let without = Command::new(listing[0]).args(&listing[1..]).output().unwrap().stdout;
    assert_eq!(with_dlpm, String::from_utf8(without).unwrap());
}

#[test]
fn variables_of_sudo_that_make_no_sense_are_an_error() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    Dlpm::trace(&folder)
        .variable("SUDO_UID", "somebody")
        .run()
        .fails(1, &["SUDO_UID", "somebody"]);
    assert!(!folder.exists());
}
