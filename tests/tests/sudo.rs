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
    powercap::{Powercap, node},
    require_dlpm, require_program,
    synthetic::{Ran, SECOND_NS, Synthetic},
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

/// What the kernel says to a system call of the user [`NOBODY`]: 0, or the number of an error.
fn as_nobody(call: impl FnOnce() -> libc::c_long + Send) -> i32 {
    // The ids of a thread: the wrappers of the C library would change the whole process.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no memory is involved.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(changed, 0);
            match call() {
                -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
                _ => 0,
            }
        });
        thread.join().unwrap()
    })
}

#[test]
fn no_thread_of_dlpm_can_be_signalled_traced_or_slowed_by_the_user() {
    require_dlpm!();
    let home = Home::new();
    let mut dlpm = Dlpm::trace(&home.folder()).through_sudo_of(NOBODY).start();
    dlpm.wait_for_lines(&home.folder(), 2);
    let pid = dlpm.pid().cast_signed();
    let mut names = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let thread: i32 = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        names.push(fs::read_to_string(task.join("comm")).unwrap().trim().to_owned());
        for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, libc::SIGSEGV, 0] {
            // SAFETY: no memory is involved.
            let sent = as_nobody(|| unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal) });
            assert_eq!(sent, libc::EPERM, "signal {signal} to {names:?}");
        }
        // SAFETY: no memory is involved.
        let killed = as_nobody(|| unsafe { libc::kill(thread, libc::SIGKILL).into() });
        assert_eq!(killed, libc::EPERM, "{names:?}");
        // SAFETY: no memory of this process is involved.
        let traced = as_nobody(|| unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, thread, 0, 0) });
        assert_eq!(traced, libc::EPERM, "{names:?}");
        let priority = libc::PRIO_PROCESS;
        // SAFETY: no memory is involved.
        let slowed = as_nobody(|| unsafe { libc::syscall(libc::SYS_setpriority, priority, thread, 19) });
        assert_eq!(slowed, libc::EPERM, "{names:?}");
    }
    assert!(names.contains(&"dlpm-log".to_owned()), "{names:?}");
    dlpm.end_with(libc::SIGTERM).exited(0);
    Log::read(&home.folder()).is_complete();
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

/// Every command that writes, apart from `trace`: its arguments before the place that it writes to, and its name.
const WRITING: [(&[&str], &str); 5] = [
    (&["report", "log", "--html"], "page.html"),
    (&["plot", "log", "-m", "zone:package-0", "-o"], "curve.svg"),
    (&["plot", "log", "-m", "zone:package-0", "-o"], "curve.png"),
    (&["convert", "log", "--naive-dates", "-o"], "copy"),
    (&["model", "log/a.safetensors", "-o"], "model"),
];

/// A log, and a model, of the calling user.
fn recorded(home: &Home) {
    let mut log = Synthetic::new(&home.folder());
    for tgid in 0..3 {
        let ran = Ran {
            tgid: 4000 + tgid,
            comm: "python3",
            cgroup: "/train.slice",
            permille: 1500,
        };
        log.interval(SECOND_NS, 50, &[], &[ran]);
    }
    log.finish();
    let header = br#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    let model = [&length[..], header, &[0; 4]].concat();
    fs::write(home.folder().join("a.safetensors"), model).unwrap();
    give(&home.folder(), NOBODY);
}

#[test]
fn every_command_writes_as_the_calling_user() {
    require_program!();
    for (arguments, name) in WRITING {
        let home = Home::new();
        recorded(&home);
        let run = |place: &Path| {
            Dlpm::new(arguments)
                .arg(place)
                .inside(home.directory.path())
                .through_sudo_of(NOBODY)
                .run()
        };
        // Where the user may not write, by its name or through a link.
        symlink(home.victims.path(), home.directory.path().join("link")).unwrap();
        for place in [home.victims.path().to_owned(), home.directory.path().join("link")] {
            run(&place.join(name)).exited(1).says(&["ermission denied"]);
            home.victim_is_unchanged();
        }
        let place = home.directory.path().join(name);
        run(&place).exited(0);
        assert_eq!(owner(&place), (NOBODY, NOBODY), "{name}");
    }
}

#[test]
fn a_file_of_root_is_not_replaced_by_force() {
    require_program!();
    let home = Home::new();
    recorded(&home);
    for (arguments, name) in WRITING.iter().take(3) {
        let place = home.victims.path().join(name);
        fs::write(&place, "of root").unwrap();
        Dlpm::new(*arguments)
            .arg(&place)
            .arg("--force")
            .inside(home.directory.path())
            .through_sudo_of(NOBODY)
            .run()
            .fails(1, &["nobody", "ermission denied"]);
        assert_eq!(fs::read_to_string(&place).unwrap(), "of root");
        fs::remove_file(&place).unwrap();
    }
    home.victim_is_unchanged();
}

#[test]
fn results_and_a_floor_are_written_as_the_calling_user() {
    require_program!();
    let home = Home::new();
    recorded(&home);
    let result = |folder: &Path| {
        Dlpm::new(["result"])
            .arg(folder)
            .arg("accuracy=1")
            .through_sudo_of(NOBODY)
    };
    result(&home.folder()).run().exited(0);
    assert_eq!(owner(&home.folder().join("results_exp.json")), (NOBODY, NOBODY));
    give(&home.folder(), 0);
    result(&home.folder()).run().fails(1, &["ermission denied"]);
    give(&home.folder(), NOBODY);

    let tree = Powercap::start(node());
    let calibrate = |file: &Path| {
        Dlpm::new([
            "calibrate",
            "--duration",
            "1s",
            "--max-busy",
            "100",
            "--gpu",
            "none",
            "--output",
        ])
        .arg(file)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .through_sudo_of(NOBODY)
    };
    let floor = home.directory.path().join("floor.json");
    calibrate(&floor).run().exited(0);
    assert_eq!(owner(&floor), (NOBODY, NOBODY));
    calibrate(&home.victims.path().join("floor.json"))
        .run()
        .exited(1)
        .says(&["ermission denied"]);
    home.victim_is_unchanged();
}
