//! What the PMU's files say of its events.

use std::{fs, io, path::Path};

use super::{super::EnergyError, scale::Scale};

/// Configuration and scale of an event; `None` if the PMU has no such event.
pub(super) fn read_event(events: &Path, name: &str) -> Result<Option<(u64, Scale)>, String> {
    let read = |suffix: &str| read_line(&events.join(format!("{name}{suffix}")));
    let terms = match read("") {
        Ok(terms) => terms,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    // The PMU's format has one term, `event`, which is the lowest byte of the configuration.
    let config = terms
        .strip_prefix("event=")
        .map(|value| match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        })
        .and_then(Result::ok)
        .filter(|&config| config <= 0xff)
        .ok_or_else(|| format!("`{terms}` is not an event that dlpm understands"))?;
    let unit = read(".unit").map_err(|error| format!("its unit cannot be read: {error}"))?;
    if unit != "Joules" {
        return Err(format!("its unit is `{unit}` and not `Joules`"));
    }
    let scale = read(".scale").map_err(|error| format!("its scale cannot be read: {error}"))?;
    match Scale::parse(&scale) {
        Some(scale) => Ok(Some((config, scale))),
        None => Err(format!("its scale `{scale}` is not a number of joules")),
    }
}

pub(super) fn read_line(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

pub(super) fn malformed(path: &Path, content: &str) -> EnergyError {
    EnergyError::Malformed {
        path: path.to_owned(),
        content: content.chars().take(40).collect(),
    }
}
