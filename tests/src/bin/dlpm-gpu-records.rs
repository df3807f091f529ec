//! Reads the GPU of `tests/drivers/records.c` while that lists processes in every way that it can, and compares. It is
//! a program of its own so that a test can start it under AddressSanitizer.
//!
//! `dlpm-gpu-records LIBRARY`; the environment is that of the library.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use std::{env, fs, path::PathBuf, time::Duration};

use dlpm::{
    interval::{GpuProcess, GpuReading},
    sources::gpu::{GpuOptions, Gpus},
};

/// The first pid.
const FIRST: u32 = 1000;

/// What the driver does: sizes of the records of its three generations of functions (newest first), number of
/// processes, bytes of the last record (0 is all), and whether it clears its room first.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sizes: [u32; 3],
    count: u32,
    last: u32,
    clears: bool,
}

impl Plan {
    fn new(sizes: [u32; 3], count: u32) -> Self {
        Self {
            sizes,
            count,
            last: 0,
            clears: false,
        }
    }

    fn begin(self, file: &PathBuf) {
        let [third, second, first] = self.sizes;
        let clears = u32::from(self.clears);
        let text = format!("{third} {second} {first} {} {FIRST} {} {clears}", self.count, self.last);
        // At once, since the GPU may be read at any moment.
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn is_shown_by(self, reading: &GpuReading) -> bool {
        let listed: Vec<(u32, Option<u64>)> = reading.processes.iter().map(of_process).collect();
        let memory = |number: u32| (number != 1).then(|| u64::from(number + 1) << 20);
        let expected: Vec<_> = (0..self.count).map(|number| (FIRST + number, memory(number))).collect();
        listed == expected && reading.lists == Ok(()) && reading.sm_time == Ok(())
    }
}

fn of_process(process: &GpuProcess) -> (u32, Option<u64>) {
    (process.pid, process.memory_bytes)
}

fn main() {
    let library = PathBuf::from(env::args_os().nth(1).unwrap());
    let file = PathBuf::from(env::var_os("DLPM_RECORDS").unwrap());
    // A record that is alone begins where all begin.
    let every = 1..=200;
    // Around the numbers where memory is made anew, too.
    let some = [1, 2, 3, 4, 15, 16, 63, 64, 65, 104, 105, 200];
    let mut plans = Vec::new();
    for size in [16, 24, 32] {
        plans.extend(every.clone().map(|count| Plan::new([size, 24, 16], count)));
    }
    for size in [16, 24, 32, 40] {
        plans.extend(some.map(|count| Plan {
            clears: true,
            ..Plan::new([size, 24, 16], count)
        }));
    }
    for (size, last) in [(24, 16), (32, 24), (32, 16)] {
        plans.extend(some.map(|count| Plan {
            last,
            ..Plan::new([size, 24, 16], count)
        }));
    }
    // Old drivers, and those whose older functions write something else too.
    for sizes in [
        [0, 24, 16],
        [0, 0, 16],
        [32, 32, 32],
        [16, 16, 16],
        [32, 0, 0],
        [40, 40, 40],
    ] {
        plans.extend(some.map(|count| Plan::new(sizes, count)));
    }

    plans[0].begin(&file);
    let mut gpus = Gpus::start(&GpuOptions {
        library: Some(library),
        deadline: Duration::from_secs(30),
        ..GpuOptions::default()
    })
    .unwrap();
    for plan in &plans {
        plan.begin(&file);
        let mut reading = gpus.take().remove(0);
        // The processes of the plan before are still there if they were looked at between two readings.
        for _ in 0..2 {
            if !plan.is_shown_by(&reading) {
                reading = gpus.take().remove(0);
            }
        }
        assert!(plan.is_shown_by(&reading), "{plan:?}: {reading:?}");
        assert_eq!((reading.name, reading.pci), ("n".repeat(96), "0".repeat(32)));
    }
    println!("{} plans", plans.len());
}
