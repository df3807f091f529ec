//! Names as systemd escapes them (systemd.unit(5)).

/// A name without escapes: `\x2d` is the byte `-`. A slash stays escaped, since ids hold none; what is not an escape stays.
pub fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .strip_prefix(b"x")
            .and_then(|digits| digits.get(..2))
            .filter(|digits| byte == b'\\' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (byte, next) = match code {
            Some(code) if code != b'/' => (code, after.get(3..).unwrap_or_default()),
            _ => (byte, after),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn escapes_of_systemd() {
        assert_eq!(unescaped(r"qemu\x2d3\x2dvm\x2done"), "qemu-3-vm-one");
        assert_eq!(unescaped(r"a-b\x20c\x2fd"), r"a-b c\x2fd");
        assert_eq!(unescaped(r"caf\xc3\xa9"), "café");
        for same in [r"a\x2", r"a\", r"a\xzz", r"a\y2d", r"a\x+1"] {
            assert_eq!(unescaped(same), same);
        }
    }
}
