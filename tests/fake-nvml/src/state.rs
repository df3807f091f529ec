//! The scenario that is being played, and how calls about a device reach it.

use std::{
    ffi::{CStr, OsStr},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND as FUNCTION_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED, nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN,
    nvmlReturn_t,
};

use crate::{
    account,
    scenario::{Control, Device, Scenario},
};

/// What is being played: initialisations less shutdowns, and the scenario.
static PLAYING: RwLock<(u32, Option<Arc<State>>)> = RwLock::new((0, None));

/// A scenario with its start on two clocks.
pub struct State {
    pub scenario: Scenario,
    /// Where the library is.
    folder: PathBuf,
    /// CLOCK_MONOTONIC.
    start_ns: u64,
    /// CLOCK_REALTIME, for the time stamps of samples.
    pub start_unix_us: u64,
}

impl State {
    /// What a test does to the GPU at `index`; nothing, where there is no file.
    fn control(&self, index: usize) -> Result<Control, nvmlReturn_t> {
        let path = self.folder.join(Control::name(index));
        let Ok(text) = fs::read(&path) else {
            return Ok(Control::default());
        };
        serde_json::from_slice(&text).map_err(|error| {
            eprintln!("fake NVML: {}: {error}", path.display());
            UNKNOWN
        })
    }

    /// Time since the start.
    pub fn now_ns(&self) -> u64 {
        clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(self.start_ns)
    }
}

/// Begins to play the scenario beside the library, if none is being played.
pub fn init() -> Result<(), nvmlReturn_t> {
    let mut playing = PLAYING.write().unwrap_or_else(PoisonError::into_inner);
    if playing.1.is_none() {
        let scenario = read_scenario().map_err(|error| {
            eprintln!("fake NVML: {error}");
            UNKNOWN
        })?;
        if scenario.init_hangs {
            drop(playing);
            sleep_forever();
        }
        if let Some(code) = scenario.init_error {
            return Err(code);
        }
        if scenario.account {
            own_path().and_then(|path| account::open(&path)).map_err(|error| {
                eprintln!("fake NVML: {error}");
                UNKNOWN
            })?;
        }
        let now_ns = clock_ns(libc::CLOCK_MONOTONIC);
        let start_ns = if scenario.start_ns == 0 {
            now_ns
        } else {
            scenario.start_ns
        };
        let since_us = now_ns.saturating_sub(start_ns) / 1000;
        let folder = own_path().map_err(|_| UNKNOWN)?.with_file_name("");
        playing.1 = Some(Arc::new(State {
            folder,
            start_ns,
            start_unix_us: clock_ns(libc::CLOCK_REALTIME) / 1000 - since_us,
            scenario,
        }));
    }
    playing.0 += 1;
    Ok(())
}

/// Ends to play with the last user.
pub fn shutdown() -> Result<(), nvmlReturn_t> {
    let mut playing = PLAYING.write().unwrap_or_else(PoisonError::into_inner);
    playing.0 = playing.0.checked_sub(1).ok_or(UNINITIALIZED)?;
    if playing.0 == 0 {
        playing.1 = None;
    }
    Ok(())
}

/// The scenario, for the function `name`.
pub fn state(name: &str) -> Result<Arc<State>, nvmlReturn_t> {
    let playing = PLAYING.read().unwrap_or_else(PoisonError::into_inner);
    let state = playing.1.clone().ok_or(UNINITIALIZED)?;
    if state.scenario.missing.iter().any(|missing| missing == name) {
        return Err(FUNCTION_NOT_FOUND);
    }
    Ok(state)
}

/// A device at the moment of a call.
pub struct At {
    pub state: Arc<State>,
    index: usize,
    pub instance: Option<usize>,
    pub now_ns: u64,
    pub control: Control,
}

impl At {
    /// The device `handle` for the function `name`, after what its scenario lets a call go through.
    pub fn enter(name: &str, handle: nvmlDevice_t) -> Result<Self, nvmlReturn_t> {
        let state = state(name)?;
        let (generation, index, instance) = decode(handle).ok_or(INVALID_ARGUMENT)?;
        let at = Self::reach(state, index, instance)?;
        if generation != at.generation() {
            return Err(GPU_IS_LOST);
        }
        if let Some((_, code)) = at.control.failing.iter().find(|(failing, _)| failing == name) {
            return Err(*code);
        }
        if at.device().unsupported.iter().any(|unsupported| unsupported == name) {
            return Err(NOT_SUPPORTED);
        }
        Ok(at)
    }

    /// The device at `index`, if it can be reached.
    pub fn reach(state: Arc<State>, index: usize, instance: Option<usize>) -> Result<Self, nvmlReturn_t> {
        if state.scenario.latency_us > 0 {
            thread::sleep(Duration::from_micros(state.scenario.latency_us));
        }
        if index >= state.scenario.devices.len() {
            return Err(INVALID_ARGUMENT);
        }
        let mut control = state.control(index)?;
        while let Some(fault) = control.fault {
            if let Some(code) = fault.code {
                return Err(code);
            }
            thread::sleep(Duration::from_millis(5));
            control = state.control(index)?;
        }
        Ok(Self {
            now_ns: state.now_ns(),
            state,
            index,
            instance,
            control,
        })
    }

    pub fn device(&self) -> &Device {
        &self.state.scenario.devices[self.index]
    }

    pub fn index(&self) -> usize {
        self.index
    }

    /// A handle of this device, or of one of its instances.
    pub fn handle(&self, instance: Option<usize>) -> nvmlDevice_t {
        encode(self.generation(), self.index, instance)
    }

    /// What a handle must be of.
    fn generation(&self) -> usize {
        if self.device().renews_handles {
            self.control.faults_begun
        } else {
            0
        }
    }
}

/// Marks a handle as one that was made here.
const TAG: usize = 0xfa4e << 40;

fn encode(generation: usize, index: usize, instance: Option<usize>) -> nvmlDevice_t {
    let instance = instance.map_or(0, |instance| instance + 1);
    std::ptr::without_provenance_mut(TAG | generation << 16 | index << 8 | instance)
}

/// Generation, index and instance of a handle; `None` for one that was not made here.
fn decode(handle: nvmlDevice_t) -> Option<(usize, usize, Option<usize>)> {
    let bits = handle.addr().checked_sub(TAG).filter(|bits| bits >> 40 == 0)?;
    Some((bits >> 16, bits >> 8 & 0xff, (bits & 0xff).checked_sub(1)))
}

fn read_scenario() -> Result<Scenario, String> {
    let path = own_path()?.with_file_name("scenario.json");
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The file that this library was loaded from.
fn own_path() -> Result<PathBuf, String> {
    // SAFETY: Dl_info consists of pointers and is filled in by dladdr.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    let found = unsafe { libc::dladdr((&raw const PLAYING).cast(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return Err("the dynamic loader does not know this library".to_owned());
    }
    // SAFETY: dladdr set a string that lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Ok(Path::new(OsStr::from_bytes(name.to_bytes())).to_owned())
}

pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; the clocks used here exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn sleep_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
