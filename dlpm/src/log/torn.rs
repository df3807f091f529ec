//! The end of a log that was being written when its trace ended.

/// Whether a line can be the beginning of one of ours, or zeros that a power cut left in its place.
pub fn looks_torn(line: &[u8]) -> bool {
    line.starts_with(b"{\"") || line.starts_with(b"\"") || line.trim_ascii() == b"{" || line.contains(&0)
}
