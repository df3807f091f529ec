//! What the folder of a log tells of itself; a log is readable without.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{files, log::names::METADATA_NAME, tables::answer};

/// The file of the folder; `null` without one, or where it is not JSON.
///
/// # Errors
///
/// If it is there and cannot be read within the limits.
pub fn metadata(folder: &Path) -> Result<Value> {
    let path = folder.join(METADATA_NAME);
    let text = files::small(&path).with_context(|| format!("{} cannot be read; move it away", path.display()))?;
    let value = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(value.unwrap_or(Value::Null))
}

/// Whose energy was asked for, where that is known and the log is of one trace alone.
pub fn listed(metadata: &Value, traces: u64) -> Option<String> {
    if traces != 1 {
        return None;
    }
    if let Some(listed) = metadata.pointer("/dlpm/listed").and_then(Value::as_str) {
        return Some(listed.to_owned());
    }
    // Traces before 0.2 tell their command line alone.
    let words = metadata.pointer("/dlpm/command_line")?.as_array()?;
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let at = words.iter().position(|word| *word == "--")?;
    let command = words.get(at + 1..).filter(|command| !command.is_empty())?;
    Some(format!("`{}`", answer::command(command)))
}
