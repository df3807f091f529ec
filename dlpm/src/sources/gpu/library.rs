//! NVIDIA's management library: loaded at run time, and asked which GPUs there are.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use super::calls;
use crate::interval::MeterSource;

/// The names that the driver installs: the first is there for programs, the second for those who build some.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// More GPUs than this no driver shows.
const MOST_GPUS: u32 = 1024;

/// What identifies a GPU, and what has to be known before it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownGpu {
    pub(super) uuid: String,
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) pci: String,
    pub(super) source: MeterSource,
    /// Its driver's newest functions write more than they promise.
    pub(super) third_is_unsafe: bool,
    /// It is found again by its PCI address: a search by UUID would wake others.
    pub(super) by_address: bool,
    /// The file that says whether it sleeps, where it is then to be left alone.
    pub(super) status: Option<PathBuf>,
}

/// The library, ready, with the GPUs that answer.
pub(super) struct Found {
    pub(super) nvml: Arc<Nvml>,
    pub(super) gpus: Vec<KnownGpu>,
    /// Why GPUs are left out, a sentence each.
    pub(super) notes: Vec<String>,
}

/// Why there is no library to ask.
#[derive(Debug)]
pub(super) enum NoLibrary {
    /// It cannot be loaded.
    NotLoaded(String),
    /// It was loaded and does not work.
    NotWorking(String),
}

impl NoLibrary {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::NotLoaded(reason) | Self::NotWorking(reason) => reason,
        }
    }
}

/// Which GPUs the library is asked for.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// All.
    All,
    /// Those at these PCI addresses, and no others, since they sleep.
    At(Vec<String>),
}

/// Loads the library and finds the GPUs, on a thread of its own: with a sick driver this may never come back.
pub(super) fn find(library: Option<&Path>, which: Which, deadline: Duration) -> Result<Found, NoLibrary> {
    let (sender, receiver) = mpsc::channel();
    let library: Option<PathBuf> = library.map(Path::to_owned);
    thread::Builder::new()
        .name("dlpm-nvml".to_owned())
        .spawn(move || {
            // Nobody listens any more once the deadline has passed.
            let _ = sender.send(load(library.as_deref()).and_then(|nvml| enumerate(nvml, &which)));
        })
        .map_err(|error| NoLibrary::NotWorking(format!("no thread can be started for NVML: {error}")))?;
    receiver.recv_timeout(deadline).unwrap_or_else(|_| {
        Err(NoLibrary::NotWorking(format!(
            "the NVIDIA driver has not answered for {} s",
            deadline.as_secs()
        )))
    })
}

fn load(library: Option<&Path>) -> Result<Nvml, NoLibrary> {
    if cfg!(target_feature = "crt-static") {
        return Err(NoLibrary::NotLoaded(
            "this dlpm is linked statically and cannot load libraries; the Debian package and the archive without \
             `static` in its name can"
                .to_owned(),
        ));
    }
    let names: Vec<OsString> = match library {
        Some(path) => vec![in_this_folder(path).into()],
        None => NAMES.iter().map(OsString::from).collect(),
    };
    let mut not_loaded = String::new();
    for name in names {
        match Nvml::builder().lib_path(&name).init() {
            Ok(nvml) => return Ok(nvml),
            Err(NvmlError::LibloadingError(error)) => not_loaded = error.to_string(),
            Err(NvmlError::FailedToLoadSymbol(_)) if library.is_some() => {
                not_loaded = "it is another library: NVML begins with the function nvmlInit_v2".to_owned();
            }
            Err(error) => return Err(NoLibrary::NotWorking(describe(&error))),
        }
    }
    if library.is_none() {
        not_loaded = format!(
            "the NVIDIA driver's library {} is not found; if it is elsewhere, name it with --nvml-library",
            NAMES[0]
        );
    }
    Err(NoLibrary::NotLoaded(not_loaded))
}

/// A name that is a file here: without a folder the dynamic loader looks in those of the system alone.
fn in_this_folder(library: &Path) -> PathBuf {
    let here = Path::new(".").join(library);
    let is_name = library.components().count() == 1 && !library.is_absolute();
    if is_name && here.is_file() {
        here
    } else {
        library.to_owned()
    }
}

fn enumerate(nvml: Nvml, which: &Which) -> Result<Found, NoLibrary> {
    let count = nvml
        .device_count()
        .map_err(|error| NoLibrary::NotWorking(describe(&error)))?;
    if count > MOST_GPUS {
        return Err(NoLibrary::NotWorking(format!("it says that there are {count} GPUs")));
    }
    let driver = calls::driver_version(&nvml).unwrap_or_default();
    let third_is_unsafe = calls::is_third_unsafe(&driver);
    let mut gpus: Vec<KnownGpu> = Vec::new();
    let mut notes = Vec::new();
    let by_index = |index: u32| {
        let gpu = nvml
            .device_by_index(index)
            .and_then(|gpu| identify(index, &gpu, third_is_unsafe));
        (format!("GPU {index}"), gpu)
    };
    let by_address = |address: &String| {
        let gpu = nvml.device_by_pci_bus_id(address.as_str()).and_then(|gpu| {
            Ok(KnownGpu {
                by_address: true,
                ..identify(gpu.index()?, &gpu, third_is_unsafe)?
            })
        });
        (format!("the GPU at {address}"), gpu)
    };
    let found: Vec<_> = match which {
        Which::All => (0..count).map(by_index).collect(),
        Which::At(addresses) => addresses.iter().map(by_address).collect(),
    };
    for (who, identity) in found {
        match identity {
            // It is found again by its UUID, and its zone is named after it.
            Ok(identity) if identity.uuid.is_empty() => {
                notes.push(format!("{who} is not measured: its driver does not report its UUID"));
            }
            Ok(identity) => match gpus.iter().find(|other| other.uuid == identity.uuid) {
                Some(other) => notes.push(format!(
                    "{who} is not measured: its driver gives it the UUID of GPU {}",
                    other.index
                )),
                None => gpus.push(identity),
            },
            Err(error) => notes.push(format!("{who} is not measured: {}", describe(&error))),
        }
    }
    gpus.sort_by_key(|gpu| gpu.index);
    if third_is_unsafe && !gpus.is_empty() {
        notes.push(format!(
            "the NVIDIA driver {driver} writes larger records of processes than its interface says: processes are \
             listed by its older functions"
        ));
    }
    Ok(Found {
        nvml: Arc::new(nvml),
        gpus,
        notes,
    })
}

fn identify(index: u32, gpu: &Device<'_>, third_is_unsafe: bool) -> Result<KnownGpu, NvmlError> {
    let counter = gpu.total_energy_consumption();
    Ok(KnownGpu {
        uuid: calls::uuid(gpu)?,
        index,
        name: calls::name(gpu).unwrap_or_default(),
        pci: calls::pci_address(gpu).unwrap_or_default(),
        source: match counter {
            Err(error) if is_absent(&error) => MeterSource::NvmlPower,
            _ => MeterSource::NvmlEnergy,
        },
        third_is_unsafe,
        by_address: false,
        status: None,
    })
}

/// Whether an error means that there is no such thing here, neither now nor later.
pub(super) fn is_absent(error: &NvmlError) -> bool {
    matches!(error, NvmlError::NotSupported) || is_no_function(error)
}

/// Whether the library or the driver is too old for a function.
pub(super) fn is_no_function(error: &NvmlError) -> bool {
    matches!(error, NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_))
}

/// An error as part of a sentence.
pub(super) fn describe(error: &NvmlError) -> String {
    match error {
        NvmlError::DriverNotLoaded => "the NVIDIA driver is not loaded".to_owned(),
        NvmlError::LibRmVersionMismatch => {
            "the NVIDIA library and the loaded driver are of different versions: restart the machine, or load the \
             driver again"
                .to_owned()
        }
        NvmlError::FailedToLoadSymbol(_) => "the NVIDIA library does not have this function".to_owned(),
        other => format!("NVML says that {other}"),
    }
}
