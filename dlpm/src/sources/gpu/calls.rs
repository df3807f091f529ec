//! The calls of NVML whose answer has no fixed size, made by dlpm itself into [`Room`] of its own.
//!
//! nvml-wrapper makes room for as many bytes as the interface names, and takes each text to have an end.

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};

use super::{
    library::{describe, is_no_function},
    records::{Records, decode},
    room::Room,
    sm_time::Sample,
};

/// Processes of a GPU that there is room for at first.
const FIRST_PROCESSES: usize = 64;

/// More processes than this are not on one GPU: 1 MiB of room.
const MOST_PROCESSES: usize = 16_384;

/// More samples than this no driver keeps (some hundred are usual): 4 MiB of room.
const MOST_SAMPLES: usize = 65_536;

/// Bytes of a sample of utilisation.
const SAMPLE: usize = 32;

/// Records that texts get the room of, and the bytes of it that the driver is told.
const TEXT_RECORDS: usize = 4;
const TEXT: u32 = 96;

/// Where the address stands in `nvmlPciInfo_t`, behind one in an older form and five numbers, and its length.
const PCI_ADDRESS: (usize, usize) = (36, 32);

/// Tries for an answer that grows between two calls.
const TRIES: u32 = 4;

/// Which of two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Compute,
    Graphics,
}

/// The functions that list processes, and the size of a record that each promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    First,
    Second,
    Third,
}

impl Generation {
    /// Newest first, since it knows most; where the driver is one whose newest writes what it does not promise, last.
    pub(super) fn order(third_is_unsafe: bool) -> [Self; 3] {
        if third_is_unsafe {
            [Self::Second, Self::First, Self::Third]
        } else {
            [Self::Third, Self::Second, Self::First]
        }
    }

    fn record(self) -> usize {
        match self {
            Self::First => 16,
            Self::Second | Self::Third => 24,
        }
    }
}

/// Whether `version` is a driver whose functions of the third generation write records of 32 bytes: 535.43 to 535.98.
pub(super) fn is_third_unsafe(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    parts.next() == Some(Some(535)) && parts.next().flatten().is_some_and(|minor| (43..=98).contains(&minor))
}

/// Processes of a list, by the first of the functions in `order` that there is.
///
/// # Errors
///
/// Those of NVML, and a sentence where what it wrote is not a list.
pub(super) fn processes(
    gpu: &Device<'_>,
    list: List,
    order: [Generation; 3],
    total_bytes: Option<u64>,
) -> Result<Result<Records, String>, NvmlError> {
    let mut last = NvmlError::FunctionNotFound;
    for generation in order {
        match processes_by(gpu, list, generation, total_bytes) {
            Err(error) if is_no_function(&error) => last = error,
            other => return other,
        }
    }
    Err(last)
}

fn processes_by(
    gpu: &Device<'_>,
    list: List,
    generation: Generation,
    total_bytes: Option<u64>,
) -> Result<Result<Records, String>, NvmlError> {
    // SAFETY: the handle is used as long as `gpu` lives, and not given away.
    let handle = unsafe { gpu.handle() };
    let library = gpu.nvml().lib();
    /// Calls the function with that name, if there is one, with room for records of any size.
    macro_rules! call {
        ($function:ident) => {{
            let function = nvml_sym(library.$function.as_ref())?;
            fill(FIRST_PROCESSES, MOST_PROCESSES, |room, count| {
                // SAFETY: the handle is valid, and the room has more bytes than `count` records of any known size.
                unsafe { function(handle, count, room.pointer()) }
            })?
        }};
    }
    let (room, count) = match (list, generation) {
        (List::Compute, Generation::First) => call!(nvmlDeviceGetComputeRunningProcesses),
        (List::Compute, Generation::Second) => call!(nvmlDeviceGetComputeRunningProcesses_v2),
        (List::Compute, Generation::Third) => call!(nvmlDeviceGetComputeRunningProcesses_v3),
        (List::Graphics, Generation::First) => call!(nvmlDeviceGetGraphicsRunningProcesses),
        (List::Graphics, Generation::Second) => call!(nvmlDeviceGetGraphicsRunningProcesses_v2),
        (List::Graphics, Generation::Third) => call!(nvmlDeviceGetGraphicsRunningProcesses_v3),
    };
    Ok(decode(&room, count, generation.record(), total_bytes))
}

/// The samples of utilisation newer than a time (µs since 1970; 0 is all that there are).
///
/// # Errors
///
/// Those of NVML, and a sentence where what it wrote are not samples.
pub(super) fn samples(gpu: &Device<'_>, after_us: u64) -> Result<Result<Vec<Sample>, String>, NvmlError> {
    // SAFETY: the handle is used as long as `gpu` lives, and not given away.
    let handle = unsafe { gpu.handle() };
    let function = nvml_sym(gpu.nvml().lib().nvmlDeviceGetProcessUtilization.as_ref())?;
    let mut expected = 0;
    // SAFETY: without a place for samples only their number is stored.
    let code = unsafe { function(handle, std::ptr::null_mut(), &raw mut expected, after_us) };
    match nvml_try(code) {
        Ok(()) | Err(NvmlError::InsufficientSize(_)) => {}
        Err(error) => return Err(error),
    }
    if expected == 0 {
        return Ok(Ok(Vec::new()));
    }
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    let (room, count) = fill(expected, MOST_SAMPLES, |room, count| {
        // SAFETY: the handle is valid, and the room has more bytes than `count` samples.
        unsafe { function(handle, room.pointer(), count, after_us) }
    })?;
    let extent = room.extent();
    if count > room.records() || extent > room.records() * SAMPLE {
        return Ok(Err(format!(
            "the NVIDIA driver gave {count} samples of utilisation where it had room for {}",
            room.records()
        )));
    }
    // pid, 4 bytes that fill up, time, and the utilisation of the SMs and of the memory before two others.
    let sample = |place: usize| Sample {
        pid: room.word(place * SAMPLE),
        at_us: room.long(place * SAMPLE + 8),
        sm_percent: room.word(place * SAMPLE + 16),
        mem_percent: room.word(place * SAMPLE + 20),
    };
    // What it says that it wrote, and did not, is the pattern of the room.
    let written = (0..count).filter(|place| (place + 1) * SAMPLE <= extent);
    Ok(Ok(written.map(sample).collect()))
}

/// Calls `function` with room for `first` records, and with more for as long as it asks for more: the room, and the
/// number of records that it says it wrote.
fn fill(
    first: usize,
    most: usize,
    mut function: impl FnMut(&mut Room, &mut u32) -> u32,
) -> Result<(Room, usize), NvmlError> {
    let mut records = first.min(most);
    for _ in 0..TRIES {
        let mut room = Room::for_records(records);
        let mut count = u32::try_from(records).unwrap_or(u32::MAX);
        let code = function(&mut room, &mut count);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match nvml_try(code) {
            Ok(()) => return Ok((room, count)),
            // More than there is room for, and some that come meanwhile.
            Err(NvmlError::InsufficientSize(_)) if records < most => {
                records = count.max(records).saturating_add(records / 2 + 8).min(most);
            }
            Err(error) => return Err(error),
        }
    }
    Err(NvmlError::InsufficientSize(None))
}

/// A GPU's UUID.
pub(super) fn uuid(gpu: &Device<'_>) -> Result<String, NvmlError> {
    // SAFETY: the handle is used as long as `gpu` lives, and not given away.
    let handle = unsafe { gpu.handle() };
    let function = nvml_sym(gpu.nvml().lib().nvmlDeviceGetUUID.as_ref())?;
    // SAFETY: the room has more than the bytes that the driver is told.
    text(|room| unsafe { function(handle, room.pointer(), TEXT) })
}

/// The name of its product.
pub(super) fn name(gpu: &Device<'_>) -> Result<String, NvmlError> {
    // SAFETY: the handle is used as long as `gpu` lives, and not given away.
    let handle = unsafe { gpu.handle() };
    let function = nvml_sym(gpu.nvml().lib().nvmlDeviceGetName.as_ref())?;
    // SAFETY: the room has more than the bytes that the driver is told.
    text(|room| unsafe { function(handle, room.pointer(), TEXT) })
}

/// Its PCI address.
pub(super) fn pci_address(gpu: &Device<'_>) -> Result<String, NvmlError> {
    // SAFETY: the handle is used as long as `gpu` lives, and not given away.
    let handle = unsafe { gpu.handle() };
    let function = nvml_sym(gpu.nvml().lib().nvmlDeviceGetPciInfo_v3.as_ref())?;
    let mut room = Room::for_records(TEXT_RECORDS);
    // SAFETY: the room has more bytes than the structure.
    nvml_try(unsafe { function(handle, room.pointer()) })?;
    let (offset, length) = PCI_ADDRESS;
    Ok(printable(&room.text(offset, length)))
}

/// The driver's version.
pub(super) fn driver_version(nvml: &Nvml) -> Result<String, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlSystemGetDriverVersion.as_ref())?;
    // SAFETY: the room has more than the bytes that the driver is told.
    text(|room| unsafe { function(room.pointer(), TEXT) })
}

fn text(function: impl FnOnce(&mut Room) -> u32) -> Result<String, NvmlError> {
    let mut room = Room::for_records(TEXT_RECORDS);
    nvml_try(function(&mut room))?;
    Ok(printable(&room.text(0, usize::try_from(TEXT).unwrap_or(0))))
}

/// A text of the driver without what could not be printed.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .filter(|letter| letter.is_ascii_graphic() || *letter == ' ')
        .collect()
}

/// A reason why a list cannot be read.
pub(super) fn flatten<T>(result: Result<Result<T, String>, NvmlError>) -> Result<T, String> {
    result.map_err(|error| describe(&error)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_with_larger_records_are_known() {
        for version in ["535.43.02", "535.54.03", "535.86.10", "535.98"] {
            assert!(is_third_unsafe(version), "{version}");
        }
        for version in [
            "535.42",
            "535.104.05",
            "535.261.03",
            "530.43.02",
            "575.0.0-fake",
            "535",
            "",
            "535.x",
        ] {
            assert!(!is_third_unsafe(version), "{version}");
        }
    }

    #[test]
    fn room_grows_within_bounds() {
        const TOO_SMALL: u32 = 7;
        let needs = |needed: u32| {
            fill(64, 1000, |room, count| {
                assert_eq!(room.records(), *count as usize);
                let enough = *count >= needed;
                *count = needed;
                if enough { 0 } else { TOO_SMALL }
            })
        };
        assert!(needs(10).is_ok_and(|(room, count)| (room.records(), count) == (64, 10)));
        assert!(needs(900).is_ok_and(|(room, count)| room.records() >= 900 && count == 900));
        for endless in [1001, u32::MAX] {
            assert!(
                matches!(needs(endless), Err(NvmlError::InsufficientSize(_))),
                "{endless}"
            );
        }
        // One that asks for more each time.
        let mut calls = 0;
        let greedy = fill(1, usize::MAX >> 10, |_, count| {
            calls += 1;
            *count += 1;
            TOO_SMALL
        });
        assert!(greedy.is_err() && calls == TRIES);
    }
}
