//! What is said where something small is wrong: once, and with a next step that helps.

use std::{
    env, fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
    thread,
};

use dlpm_tests::{
    command::Dlpm,
    log::{LOG_NAME, Log},
    require_dlpm,
};

#[test]
fn a_cause_is_said_once() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let linked = directory.path().join("linked");
    fs::create_dir(&linked).unwrap();
    symlink("/etc/hostname", linked.join(LOG_NAME)).unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "").unwrap();
    for (folder, says) in [
        (linked.to_str().unwrap(), "is a symbolic link"),
        (plain.to_str().unwrap(), "os error 17"),
        ("/proc/x", "os error 2"),
    ] {
        let output = Dlpm::trace(folder.as_ref())
            .args(["--duration", "100ms"])
            .run()
            .exited(1);
        assert_eq!(output.stderr.matches(says).count(), 1, "{}", output.stderr);
    }
    let model = directory.path().join("none.onnx");
    let output = Dlpm::new(["model"]).arg(&model).run().exited(1);
    assert_eq!(output.stderr.matches("os error 2").count(), 1, "{}", output.stderr);
    let output = Dlpm::new(["report"]).arg(directory.path().join("none")).run().exited(1);
    assert_eq!(output.stderr.matches("os error 2").count(), 1, "{}", output.stderr);
}

#[test]
fn too_few_descriptors_are_not_an_old_kernel() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    for limit in [16, 20, 24] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n $1; shift; exec \"$@\"", "sh", &limit.to_string()])
            .arg(env::var_os("DLPM_BIN").unwrap())
            .args(["trace", "--gpu", "none", "--duration", "100ms", "--output"])
            .arg(directory.path().join("log"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{limit}");
        assert!(stderr.contains("ulimit -n"), "{limit}: {stderr}");
        assert!(!stderr.contains("5.10"), "{limit}: {stderr}");
    }
}

#[test]
fn a_thread_stands_for_its_process() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let pid = std::process::id();
    thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_pid()).unwrap();
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {}
        });
        let thread_id = receiver.recv().unwrap().to_string();
        let output = Dlpm::trace(&folder)
            .args(["--pid", &thread_id, "--duration", "500ms"])
            .run()
            .exited(0);
        drop(stop);
        assert!(
            output
                .stderr
                .contains(&format!("--pid {thread_id} is a thread of process {pid}")),
            "{}",
            output.stderr
        );
    });
    let log = Log::read(&folder);
    assert!(log.rows("process").any(|row| row["tgid"] == pid));
}

#[test]
fn an_empty_command_is_not_a_folder() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    Dlpm::trace(&folder).args(["--", ""]).run().fails(127, &["is empty"]);
    Dlpm::trace(&folder)
        .args(["--", "", "argument"])
        .run()
        .fails(127, &["is empty"]);
    assert!(!folder.exists());
}

#[test]
fn a_library_that_was_named_has_to_be_nvml() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|word| word.contains("/libc.so")).unwrap();
    fs::copy(libc, directory.path().join("libother.so")).unwrap();
    fs::write(directory.path().join("text.so"), "no library").unwrap();
    // By its path, and by the name of a file in this folder.
    for library in [libc, "libother.so", "./libother.so", "text.so", "none.so"] {
        Dlpm::trace(&folder)
            .args(["--duration", "100ms", "--nvml-library", library])
            .inside(directory.path())
            .run()
            .fails(1, &["--nvml-library", library]);
    }
    Dlpm::trace(&folder)
        .args(["--duration", "100ms", "--nvml-library", "libother.so"])
        .inside(directory.path())
        .run()
        .fails(1, &["another library", "nvmlInit_v2"]);
    assert!(!folder.exists());
}
