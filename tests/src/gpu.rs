//! GPUs that a scenario plays: the fake NVML, in a folder of its own.

use std::{env, fs, path::PathBuf, thread, time::Duration};

use dlpm::{
    interval::GpuReading,
    sources::{
        clock::monotonic_ns,
        gpu::{GpuOptions, Gpus},
    },
};
use dlpm_fake_nvml::scenario::{Control, Device, Fault, PowerPoint, Process, Scenario};
use tempfile::TempDir;

/// A copy of the fake library beside the scenario that it plays.
pub struct FakeNvml {
    folder: TempDir,
    scenario: Scenario,
}

impl FakeNvml {
    /// Begins to play `scenario` now.
    pub fn play(mut scenario: Scenario) -> Self {
        let folder = tempfile::tempdir().unwrap();
        scenario.start_ns = monotonic_ns();
        fs::write(
            folder.path().join("scenario.json"),
            serde_json::to_vec(&scenario).unwrap(),
        )
        .unwrap();
        let fake = Self { folder, scenario };
        fs::copy(built_library(), fake.library()).unwrap();
        fake
    }

    /// Plays GPUs with the given indices in their UUIDs.
    pub fn of(devices: Vec<Device>) -> Self {
        Self::play(Scenario {
            devices,
            ..Scenario::default()
        })
    }

    /// Takes functions out of the library, as if it were of an old driver.
    pub fn without_symbols(self, names: &[&str]) -> Self {
        let mut bytes = fs::read(self.library()).unwrap();
        for name in names {
            let entry = [b"\0", name.as_bytes(), b"\0"].concat();
            let places: Vec<usize> = (0..bytes.len() - entry.len())
                .filter(|place| bytes[*place..].starts_with(&entry))
                .collect();
            assert!(!places.is_empty(), "{name} is not in the library");
            // The loader finds a symbol by a hash of the name that it is asked for, and then compares the names.
            places.iter().for_each(|place| bytes[place + 1] = b'x');
        }
        fs::write(self.library(), bytes).unwrap();
        self
    }

    /// The file to load.
    pub fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    /// A GPU of the scenario.
    pub fn device(&self, index: usize) -> &Device {
        &self.scenario.devices[index]
    }

    /// What the GPU `index` used between two moments of CLOCK_MONOTONIC, in µJ.
    pub fn energy_uj(&self, index: usize, from_ns: u64, to_ns: u64) -> u64 {
        let at = |ns: u64| self.device(index).energy_uj(ns.saturating_sub(self.scenario.start_ns));
        at(to_ns) - at(from_ns)
    }

    /// Does something to a GPU, from the next call on.
    pub fn control(&self, index: usize, change: impl FnOnce(&mut Control)) {
        let file = self.folder.path().join(Control::name(index));
        let mut control = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(_) => Control::default(),
        };
        change(&mut control);
        // At once, since a call may come at any moment.
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&control).unwrap()).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// Breaks a GPU: calls return `code`, or do not return.
    pub fn break_down(&self, index: usize, code: Option<u32>) {
        self.control(index, |control| {
            control.fault = Some(Fault { code });
            control.faults_begun += 1;
        });
    }

    /// Repairs it.
    pub fn repair(&self, index: usize) {
        self.control(index, |control| control.fault = None);
    }

    /// Time since the scenario's start.
    pub fn now_ns(&self) -> u64 {
        monotonic_ns() - self.scenario.start_ns
    }

    /// Waits until the scenario has run for so long.
    pub fn wait_until(&self, at_ms: u64) {
        let end_ns = self.scenario.start_ns + at_ms * 1_000_000;
        thread::sleep(Duration::from_nanos(end_ns.saturating_sub(monotonic_ns())));
    }
}

/// The GPU of an index, drawing `watts` all the time.
pub fn gpu(index: usize, watts: u64, processes: Vec<Process>) -> Device {
    Device {
        uuid: uuid(index),
        name: format!("Fake GPU {index}"),
        pci: format!("00000000:{:02X}:00.0", 0x60 + index),
        power: vec![PowerPoint {
            at_ms: 0,
            mw: watts * 1000,
        }],
        processes,
        ..Device::default()
    }
}

/// Its UUID.
pub fn uuid(index: usize) -> String {
    format!("GPU-00000000-1111-2222-3333-{index:012}")
}

/// A process that uses a GPU all the time.
pub fn process(pid: u32, sm: u32) -> Process {
    Process {
        pid,
        sm,
        memory_bytes: Some(u64::from(pid) << 20),
        ..Process::default()
    }
}

/// The library that cargo built for this package.
fn built_library() -> PathBuf {
    let program = env::current_exe().unwrap();
    // Beside the programs of tests, and in the folder of dependencies for those that are not tests.
    let places = ["libdlpm_fake_nvml.so", "deps/libdlpm_fake_nvml.so"].map(|name| program.with_file_name(name));
    match places.iter().find(|place| place.exists()) {
        Some(library) => library.clone(),
        None => panic!("cargo has not built {}", places[0].display()),
    }
}

/// Options for the GPUs of a fake.
pub fn options(fake: &FakeNvml) -> GpuOptions {
    GpuOptions {
        library: Some(fake.library()),
        // Long enough for a busy machine.
        deadline: Duration::from_secs(2),
        ..GpuOptions::default()
    }
}

/// Opens the fake's GPUs and takes the baseline.
pub fn start(fake: &FakeNvml) -> (Gpus, Vec<GpuReading>) {
    let mut gpus = Gpus::start(&options(fake)).unwrap();
    assert_eq!(gpus.notes(), [""; 0]);
    let baseline = gpus.take();
    for reading in &baseline {
        assert!(reading.energy_uj.as_ref().unwrap_err().contains("first"), "{reading:?}");
    }
    (gpus, baseline)
}

/// Energy against the integral of the scenario. A GPU is read some µs before the moment that is noted, or some ms on a
/// busy machine: 5 % of a second is more than that.
#[track_caller]
pub fn assert_energy(fake: &FakeNvml, before: &GpuReading, now: &GpuReading) {
    let expected_uj = fake.energy_uj(0, before.read_at_ns.unwrap(), now.read_at_ns.unwrap());
    let ratio = *now.energy_uj.as_ref().unwrap() as f64 / expected_uj as f64;
    assert!((0.95..1.05).contains(&ratio), "{ratio}: {now:?}");
}

/// SM time of a process.
pub fn sm_percent_us(reading: &GpuReading, pid: u32) -> u64 {
    let found = reading.processes.iter().find(|process| process.pid == pid);
    found.map_or(0, |process| process.sm_percent_us)
}

/// The processes on a GPU.
pub fn pids(reading: &GpuReading) -> Vec<u32> {
    reading.processes.iter().map(|process| process.pid).collect()
}
