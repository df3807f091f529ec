//! A process that uses a part of a CPU under a name of its own, for the tests of the command line.
//!
//! `dlpm-tenant BUSY_US IDLE_US LIFE_MS [NAME | thread:NAME]` says `ready PID` and then works for BUSY_US and sleeps
//! for IDLE_US in turns, until LIFE_MS are over. With a name it takes that first (after `exec`, as PyTorch does), or
//! gives it to a second thread that works as well.
#![expect(clippy::unwrap_used, reason = "a tenant that cannot work fails its test by dying")]

use std::{
    ffi::CString,
    process, thread,
    time::{Duration, Instant},
};

use rustix::thread::set_name;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().unwrap();
    let (busy, idle) = (Duration::from_micros(number(0)), Duration::from_micros(number(1)));
    let end = Instant::now() + Duration::from_millis(number(2));
    match arguments.get(3).map(|name| (name, name.strip_prefix("thread:"))) {
        Some((_, Some(name))) => {
            let name = CString::new(name).unwrap();
            thread::spawn(move || {
                set_name(&name).unwrap();
                work(busy, idle, end);
            });
        }
        Some((name, None)) => set_name(&CString::new(name.as_str()).unwrap()).unwrap(),
        None => {}
    }
    println!("ready {}", process::id());
    work(busy, idle, end);
}

fn work(busy: Duration, idle: Duration, end: Instant) {
    while Instant::now() < end {
        let begun = Instant::now();
        while begun.elapsed() < busy {
            std::hint::spin_loop();
        }
        thread::sleep(idle);
    }
}
