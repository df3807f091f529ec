//! Load for the tests, in a process of its own whose name, threads and children are known.
//!
//! `dlpm-worker TASK [NUMBER | NAME]…` says `ready`, waits for a line, works, says what it did and `done`, and exits
//! when its input ends. It dies with the test that started it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a worker that cannot work fails its test by dying"
)]

use std::{
    ffi::CString,
    io::{self, BufRead, Read, Write},
    process, thread,
    time::{Duration, Instant},
};

use dlpm_tests::cpus;
use rustix::{
    process::Signal,
    thread::set_name,
    time::{ClockId, clock_gettime},
};

fn main() {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = arguments.split_first().unwrap();
    let number = |index: usize| rest[index].parse::<u32>().unwrap();
    // Before the first word, so that all the work is done where it should be.
    if matches!(task.as_str(), "spin" | "burst" | "pingpong" | "touch-on") {
        cpus::pin(number(0));
    }
    tell("ready");
    wait_for_line();
    match task.as_str() {
        "spin" => loop {
            std::hint::spin_loop();
        },
        "burst" => loop {
            spin(Duration::from_micros(number(1).into()));
            thread::sleep(Duration::from_micros(number(2).into()));
        },
        "hop" => hop(number(0), Duration::from_millis(number(1).into())),
        "storm" => storm(number(0), &rest[1]),
        "rename" => rename(&rest[0], &rest[1]),
        "flood" => (0..number(0)).for_each(|round| name(["ebb", "flood"][round as usize % 2])),
        "daemon" => daemon(&rest[0]),
        "reuse" => reuse(number(0), &rest[1]),
        "sleepers" => sleepers(number(0)),
        "processes" => processes(number(0), number(1), number(2)),
        "bursts" => bursts(number(0), number(1), number(2), number(3)),
        "pingpong" => return pingpong(number(1)),
        "echo" => return echo(),
        "batches" => batches(number(0), Duration::from_millis(number(1).into())),
        "give-up" => give_up(number(0)),
        "pair" => pair(),
        "touch-on" => (0..number(2)).for_each(|_| touch(number(1) as usize)),
        "touch" => (0..number(1)).for_each(|_| touch(number(0) as usize)),
        "compile" => compile(number(0)),
        "wakers" => wakers(number(0), Duration::from_millis(number(1).into())),
        other => panic!("no such task: {other}"),
    }
    tell("done");
    wait_for_line();
}

fn tell(line: &str) {
    println!("{line}");
    io::stdout().flush().unwrap();
}

fn wait_for_line() {
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Uses this much CPU time, however long that takes: of the process, or of the thread.
fn burn(clock: ClockId, ns: u64) {
    let now = || {
        let time = clock_gettime(clock);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    };
    let end = now() + ns;
    while now() < end {
        // Some microseconds of user mode for each system call.
        for _ in 0..200 {
            std::hint::spin_loop();
        }
    }
}

fn name(name: &str) {
    set_name(&CString::new(name).unwrap()).unwrap();
}

/// Touches so many new pages of memory, each of which is a fault.
fn touch(pages: usize) {
    const PAGE_BYTES: usize = 4096;
    let bytes = pages * PAGE_BYTES;
    // SAFETY: a new mapping, of which only this function knows, and which it takes away again.
    unsafe {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let memory = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        // Not in huge pages, of which there would be few. A kernel without them refuses, and has none.
        libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE);
        for page in 0..pages {
            memory.cast::<u8>().add(page * PAGE_BYTES).write_volatile(1);
        }
        libc::munmap(memory, bytes);
    }
}

/// Runs `child` in a child process. The worker has one thread whenever it forks, so that the child may allocate.
fn fork(child: impl FnOnce()) -> u32 {
    // SAFETY: this process has one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            child();
            // SAFETY: no arguments but the code; leaves the parent's output buffers alone.
            unsafe { libc::_exit(0) }
        }
        pid => pid.cast_unsigned(),
    }
}

/// Waits for any child; `false` when there is none.
fn reap() -> bool {
    rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok()
}

/// Threads that go from CPU to CPU, two milliseconds on each.
fn hop(threads: u32, time: Duration) {
    let online = cpus::online();
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for first in 0..threads as usize {
            let online = &online;
            scope.spawn(move || {
                for turn in first.. {
                    if Instant::now() >= end {
                        break;
                    }
                    cpus::pin(online[turn % online.len()]);
                    spin(Duration::from_millis(2));
                }
            });
        }
    });
}

/// Short processes with names of their own, four at a time.
fn storm(count: u32, prefix: &str) {
    let mut children = Vec::new();
    for index in 0..count {
        if index >= 4 {
            reap();
        }
        children.push(fork(|| {
            name(&format!("{prefix}-{index}"));
            spin(Duration::from_micros(50));
        }));
    }
    while reap() {}
    for (index, pid) in children.iter().enumerate() {
        println!("{pid} {prefix}-{index}");
    }
}

/// The process takes one name, a thread of it another.
fn rename(process: &str, thread: &str) {
    name(process);
    thread::scope(|scope| {
        scope.spawn(|| {
            name(thread);
            spin(Duration::from_millis(5));
        });
    });
    spin(Duration::from_millis(5));
}

/// Forks twice, so that nothing but history leads from the daemon to this process.
fn daemon(daemon: &str) {
    let (mut alive, inherited) = io::pipe().unwrap();
    fork(|| {
        rustix::process::setsid().unwrap();
        let parent = process::id();
        fork(|| {
            while std::os::unix::process::parent_id() == parent {
                thread::sleep(Duration::from_millis(1));
            }
            name(daemon);
            spin(Duration::from_millis(20));
        });
    });
    while reap() {}
    drop(inherited);
    // Ends when the daemon has exited, which is nobody's child here.
    alive.read_to_end(&mut Vec::new()).unwrap();
}

/// Child after child with the same pid: says which pid, and how the names of the children begin.
fn reuse(count: u32, prefix: &str) {
    for attempt in 0..100 {
        let wanted = fork(|| {});
        reap();
        let prefix = format!("{prefix}.{attempt}");
        if (0..count).all(|index| has_child(wanted, &format!("{prefix}-{index}"))) {
            println!("{wanted} {prefix}");
            return;
        }
    }
    panic!("no pid is to be had {count} times");
}

/// Another process of the machine may take the pid first; one that lives on keeps it.
fn has_child(wanted: u32, child_name: &str) -> bool {
    (0..50).any(|_| {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string()).unwrap();
        let child = fork(|| {
            if process::id() == wanted {
                name(child_name);
                spin(Duration::from_micros(200));
            }
        });
        reap();
        child == wanted
    })
}

/// Processes that sleep until the worker ends.
fn sleepers(count: u32) {
    crowd(count, || {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    });
}

/// Processes that wake up in every `period`, each at a time of its own, do next to nothing and sleep on.
fn wakers(count: u32, period: Duration) {
    crowd(count, || thread::sleep(period));
}

/// Processes that do `again` again and again until the worker ends.
fn crowd(count: u32, again: impl Fn()) {
    let children: Vec<u32> = (0..count)
        .map(|_| {
            fork(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
                loop {
                    again();
                }
            })
        })
        .collect();
    tell("sleeping");
    wait_for_line();
    for pid in children {
        // SAFETY: no memory is involved; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    while reap() {}
}

/// Processes one after another, each using between `least_us` and `most_us` of CPU time, more short ones than long
/// ones.
fn processes(count: u32, least_us: u32, most_us: u32) {
    let ratio = f64::from(most_us) / f64::from(least_us);
    for index in 0..count {
        // Multiples of the golden ratio are spread evenly, and without an order that a scheduler could follow.
        let position = (f64::from(index) * 0.618_033_988_749_895).fract();
        let time = Duration::from_micros(least_us.into()).mul_f64(ratio.powf(position * position));
        let ns = u64::try_from(time.as_nanos()).unwrap();
        fork(|| burn(ClockId::ProcessCPUTime, ns));
        reap();
    }
}

/// Threads that use `burst_us` of CPU time and sleep for `pause_us`, again and again for `time_ms`.
fn bursts(threads: u32, burst_us: u32, pause_us: u32, time_ms: u32) {
    let end = Instant::now() + Duration::from_millis(time_ms.into());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                while Instant::now() < end {
                    burn(ClockId::ThreadCPUTime, u64::from(burst_us) * 1_000);
                    thread::sleep(Duration::from_micros(pause_us.into()));
                }
            });
        }
    });
}

/// `count` processes that do next to nothing, in every `period`; for ever.
fn batches(count: u32, period: Duration) {
    loop {
        let begun = Instant::now();
        for _ in 0..count {
            fork(|| {});
            reap();
        }
        thread::sleep(period.saturating_sub(begun.elapsed()));
    }
}

/// Takes another user's id for good, and goes on.
fn give_up(uid: u32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::setuid(uid) }, 0);
    loop {
        thread::sleep(Duration::from_millis(2));
    }
}

/// This process and a child of it hand a byte to and fro, for ever, wherever they run.
fn pair() {
    let (mut from_child, mut to_parent) = io::pipe().unwrap();
    let (mut from_parent, mut to_child) = io::pipe().unwrap();
    let hand_on = |from: &mut io::PipeReader, to: &mut io::PipeWriter| loop {
        from.read_exact(&mut [0]).unwrap();
        to.write_all(&[1]).unwrap();
    };
    fork(|| {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
        hand_on(&mut from_parent, &mut to_parent);
    });
    to_child.write_all(&[1]).unwrap();
    hand_on(&mut from_child, &mut to_child);
}

/// The C compiler, one file after another: a driver, the compiler itself and the assembler for each.
fn compile(files: u32) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source.c");
    let mut text = String::new();
    for number in 0..60 {
        text += &format!(
            "int f{number}(int *a, int n) {{ int s = {number}; for (int i = 0; i < n; i++) \
             {{ a[i] += s * i; s ^= a[i] >> (i & 7); }} return s; }}\n"
        );
    }
    std::fs::write(&source, text).unwrap();
    for _ in 0..files {
        let status = process::Command::new("cc")
            .args(["-O1", "-c", "-o"])
            .arg(directory.path().join("object.o"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// For each line: so many round trips of a byte to a process on the same CPU and back, of two context switches each, and
/// then their nanoseconds.
fn pingpong(round_trips: u32) {
    // Before others, if others run on this CPU as well.
    let _ = rustix::process::nice(-20);
    let mut other = process::Command::new(std::env::current_exe().unwrap())
        .arg("echo")
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, mut from) = (other.stdin.take().unwrap(), other.stdout.take().unwrap());
    from.read_exact(&mut [0; 6]).unwrap();
    to.write_all(b"\n").unwrap();
    from.read_exact(&mut [0; 5]).unwrap();
    loop {
        let begun = Instant::now();
        for _ in 0..round_trips {
            to.write_all(&[1]).unwrap();
            from.read_exact(&mut [0]).unwrap();
        }
        tell(&begun.elapsed().as_nanos().to_string());
        if io::stdin().lock().read_line(&mut String::new()).unwrap() == 0 {
            break;
        }
    }
    drop(to);
    other.wait().unwrap();
}

/// Gives back each byte, without a buffer in between.
fn echo() {
    // What comes before would be lost in the buffer of the line that was waited for.
    tell("echo");
    let mut byte = [0];
    while rustix::io::read(io::stdin(), &mut byte).unwrap() == 1 {
        rustix::io::write(io::stdout(), &byte).unwrap();
    }
}
