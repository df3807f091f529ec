//! GPUs through NVML: energy, and the processes that used the SMs.
//!
//! Nothing of NVML leaves this module: readings are plain values of [`crate::interval`].

mod asleep;
mod calls;
mod energy;
mod library;
mod meter;
mod processes;
mod reader;
mod records;
mod room;
mod sm_time;
mod worker;

use std::{
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    interval::{GpuReading, MeterSource},
    sources::{
        clock::monotonic_ns,
        drm::{self, Drm},
    },
};
use library::{Found, KnownGpu, NoLibrary, Which};
pub use worker::Asked;
use worker::Worker;

/// The first call initialises every GPU, which takes seconds each where the driver does not stay loaded for them.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Time that a GPU has to answer in; NVML takes some ten milliseconds, and more where others ask it as well.
const DEADLINE: Duration = Duration::from_millis(500);

/// Time in which it shows whether a GPU's counter moves.
const EXAMINATION: Duration = Duration::from_secs(2);

/// Time to close the library in at the end.
const END_DEADLINE: Duration = Duration::from_millis(500);

/// Which GPUs are measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuSelection {
    /// None, and NVML is not loaded.
    None,
    /// All that there are, if any.
    #[default]
    All,
    /// These: UUIDs, PCI addresses or indices.
    Named(Vec<String>),
}

impl GpuSelection {
    /// Both together: `none` wins over all else, `all` over names.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more);
                Self::Named(names)
            }
        }
    }
}

/// One `--gpu`.
impl FromStr for GpuSelection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "all" => Ok(Self::All),
            "" => Err("give none, all, or a GPU's index, UUID or PCI address".to_owned()),
            name => Ok(Self::Named(vec![name.to_owned()])),
        }
    }
}

/// How GPUs are found and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// Which.
    pub selection: GpuSelection,
    /// NVIDIA's library, where it is not found by its name.
    pub library: Option<PathBuf>,
    /// The root of sysfs, which tells which GPUs sleep.
    pub sysfs: PathBuf,
    /// Time that finding the GPUs may take.
    pub start_deadline: Duration,
    /// Time that a reading may take.
    pub deadline: Duration,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            selection: GpuSelection::default(),
            library: None,
            sysfs: PathBuf::from("/sys"),
            start_deadline: START_DEADLINE,
            deadline: DEADLINE,
        }
    }
}

/// Why GPUs cannot be measured although that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The library that was named cannot be loaded.
    #[error(
        "--nvml-library {} cannot be loaded ({cause}): give NVIDIA's libnvidia-ml.so.1 as the driver installed it, or \
         leave the option out if it is where the system finds it",
        path.display()
    )]
    Library {
        /// The file.
        path: PathBuf,
        /// What the dynamic loader said.
        cause: String,
    },
    /// A GPU was named and there is no NVML to ask.
    #[error(
        "the GPU {wanted} cannot be measured: {reason}. `nvidia-smi -L` shows whether the driver works; `--gpu all` \
         measures the GPUs that there are, if any"
    )]
    Unavailable {
        /// What was typed.
        wanted: String,
        /// Why.
        reason: String,
    },
    /// A GPU was named that is not there.
    #[error("there is no GPU {wanted}: {}", those(there))]
    NoSuchGpu {
        /// What was typed.
        wanted: String,
        /// The GPUs that there are: index, UUID, PCI address and name.
        there: Vec<String>,
    },
}

fn those(gpus: &[String]) -> String {
    match gpus {
        [] => "the NVIDIA driver shows none; leave --gpu out, or give `--gpu all`".to_owned(),
        some => format!(
            "there are {}; give an index, a UUID or a PCI address of these",
            some.join(", ")
        ),
    }
}

/// The GPUs that are measured, each with its thread.
pub struct Gpus {
    /// Those of other makers.
    drm: Drm,
    workers: Vec<Worker>,
    notes: Vec<String>,
    deadline: Duration,
    answered: Arc<Notify>,
}

impl Gpus {
    /// Loads NVML and finds the GPUs. The first reading is only the beginning of the first interval.
    ///
    /// No library, no driver or no GPU is a note, unless a GPU was named. One that sleeps is left alone, unless it was
    /// named.
    ///
    /// # Errors
    ///
    /// Where a GPU or a library that was named is not there.
    pub fn start(options: &GpuOptions) -> Result<Self, GpuError> {
        let mut gpus = Self {
            drm: Drm::default(),
            workers: Vec::new(),
            notes: Vec::new(),
            deadline: options.deadline,
            answered: Arc::default(),
        };
        let wanted = match &options.selection {
            GpuSelection::None => return Ok(gpus),
            GpuSelection::All => None,
            GpuSelection::Named(names) => Some(names.as_slice()),
        };
        gpus.drm = Drm::start(&options.sysfs, wanted, monotonic_ns());
        gpus.notes.extend_from_slice(gpus.drm.notes());
        // Of the names, those of NVIDIA's.
        let is_other = |name: &String| !gpus.drm.addresses().any(|address| address.eq_ignore_ascii_case(name));
        let names: Option<Vec<String>> =
            wanted.map(|names| names.iter().filter(|name| is_other(name)).cloned().collect());
        if names.as_ref().is_some_and(Vec::is_empty) {
            return Ok(gpus);
        }
        let wanted = names.as_ref();
        let on_bus = match wanted {
            None => asleep::gpus(&options.sysfs),
            Some(_) => Vec::new(),
        };
        let (sleeping, awake): (Vec<_>, Vec<_>) = on_bus.iter().partition(|gpu| asleep::is_asleep(&gpu.status));
        gpus.notes.extend(sleeping.iter().map(|gpu| {
            format!(
                "the GPU at {} is not measured: it sleeps (runtime suspend), and reading it would wake it; `--gpu {}` \
                 measures it all the same",
                gpu.address, gpu.address
            )
        }));
        let which = match (sleeping.is_empty(), awake.is_empty()) {
            (true, _) => Which::All,
            // Only to load the library would wake one.
            (false, true) => return Ok(gpus),
            (false, false) => Which::At(awake.iter().map(|gpu| gpu.address.clone()).collect()),
        };
        let found = match (
            library::find(options.library.as_deref(), which, options.start_deadline),
            wanted,
        ) {
            (Ok(found), _) => found,
            (Err(NoLibrary::NotLoaded(cause)), _) if options.library.is_some() => {
                let path = options.library.clone().unwrap_or_default();
                return Err(GpuError::Library { path, cause });
            }
            (Err(error), Some(names)) => {
                let others = drm::there(&options.sysfs);
                let others = match others.is_empty() {
                    true => String::new(),
                    false => format!(", and of other makers there are {}", others.join(", ")),
                };
                return Err(GpuError::Unavailable {
                    wanted: names.join(", "),
                    reason: format!("{}{others}", error.reason()),
                });
            }
            (Err(error), None) => {
                gpus.notes
                    .push(format!("no NVIDIA GPU is measured: {}", error.reason()));
                return Ok(gpus);
            }
        };
        let chosen = choose(&found, wanted.map(Vec::as_slice))?;
        gpus.notes.extend(found.notes);
        if chosen.is_empty() && gpus.notes.is_empty() {
            gpus.notes
                .push("no NVIDIA GPU is measured: the driver shows none".to_owned());
        }
        for mut identity in chosen {
            let index = identity.index;
            let address = asleep::kernel_address(&identity.pci);
            let here = on_bus.iter().find(|gpu| Some(&gpu.address) == address.as_ref());
            identity.status = here.map(|gpu| gpu.status.clone());
            match Worker::start(found.nvml.clone(), identity, Arc::clone(&gpus.answered)) {
                Ok(worker) => gpus.workers.push(worker),
                Err(error) => gpus.notes.push(format!(
                    "GPU {index} is not measured: no thread can be started for it ({error})"
                )),
            }
        }
        Ok(gpus)
    }

    /// What the user has to know of them, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// GPUs of other makers than NVIDIA.
    pub fn drm(&self) -> &Drm {
        &self.drm
    }

    /// The same, to read them.
    pub fn drm_mut(&mut self) -> &mut Drm {
        &mut self.drm
    }

    /// Number of GPUs.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether no GPU is measured.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// UUID of each GPU.
    pub fn uuids(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().map(|worker| worker.identity().uuid.as_str())
    }

    /// Each GPU in words: index, name, UUID, PCI address, and where its energy comes from.
    pub fn describe(&self) -> Vec<String> {
        let identities = self.workers.iter().map(Worker::identity);
        identities
            .map(|gpu| {
                let source = match gpu.source {
                    MeterSource::NvmlPower => "its power is integrated",
                    _ => "energy counter",
                };
                format!("{} ({}; {source})", describe(gpu), gpu.name)
            })
            .collect()
    }

    /// Asks every GPU for the reading that ends an interval; they read at the same time, and answer in the order of the
    /// requests.
    pub fn request(&mut self) -> Vec<Asked> {
        self.workers.iter_mut().map(Worker::request).collect()
    }

    /// Whether [`Self::collect`] would not wait: every GPU has answered, or is not waited for any longer.
    pub fn is_ready(&mut self, asked: &[Asked]) -> bool {
        let deadline = self.deadline;
        let mut each = self.workers.iter_mut().zip(asked);
        each.all(|(worker, asked)| worker.is_ready(*asked, deadline))
    }

    /// The readings that were asked for, by index; one that is not there by the deadline is not known. What was asked
    /// first has to be collected first.
    pub fn collect(&mut self, asked: &[Asked]) -> Vec<GpuReading> {
        let deadline = self.deadline;
        let each = self.workers.iter_mut().zip(asked);
        each.map(|(worker, asked)| worker.collect(*asked, deadline)).collect()
    }

    /// [`Gpus::request`] and [`Gpus::collect`].
    pub fn take(&mut self) -> Vec<GpuReading> {
        let asked = self.request();
        self.collect(&asked)
    }

    /// Reads until the energy of every GPU that answers is known, or it is clear that it will not be: longer than a
    /// counter may stand still.
    pub fn examine(&mut self) -> Vec<GpuReading> {
        let start = Instant::now();
        let mut readings = self.take();
        let is_open = |reading: &GpuReading| reading.energy_uj.is_err() && reading.power_mw.is_some();
        while readings.iter().any(is_open) && start.elapsed() < EXAMINATION {
            std::thread::sleep(EXAMINATION / 20);
            readings = self.take();
        }
        readings
    }

    /// How long a reading is waited for.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Is told whenever a GPU has answered.
    pub fn answered(&self) -> Arc<Notify> {
        Arc::clone(&self.answered)
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        // A process that ends while a thread is inside the library could fall over it.
        let start = Instant::now();
        self.workers.iter_mut().for_each(Worker::end);
        for worker in &mut self.workers {
            worker.wait(END_DEADLINE.saturating_sub(start.elapsed()));
        }
    }
}

fn choose(found: &Found, wanted: Option<&[String]>) -> Result<Vec<KnownGpu>, GpuError> {
    let Some(wanted) = wanted else {
        return Ok(found.gpus.clone());
    };
    for name in wanted {
        if !found.gpus.iter().any(|gpu| is_called(gpu, name)) {
            return Err(GpuError::NoSuchGpu {
                wanted: name.clone(),
                there: found.gpus.iter().map(describe).collect(),
            });
        }
    }
    let is_wanted = |gpu: &&KnownGpu| wanted.iter().any(|name| is_called(gpu, name));
    Ok(found.gpus.iter().filter(is_wanted).cloned().collect())
}

/// Whether `name` is the index, the UUID or the PCI address of a GPU. The kernel writes PCI addresses with four digits
/// of the domain (`0000:65:00.0`), NVML with eight.
fn is_called(gpu: &KnownGpu, name: &str) -> bool {
    let pci = gpu.pci.trim_start_matches('0');
    name == gpu.index.to_string()
        || name.eq_ignore_ascii_case(&gpu.uuid)
        || name.contains(':') && !pci.is_empty() && name.trim_start_matches('0').eq_ignore_ascii_case(pci)
}

fn describe(gpu: &KnownGpu) -> String {
    format!("{} {} {}", gpu.index, gpu.uuid, gpu.pci)
}
