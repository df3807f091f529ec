//! Files changed at random, in the ways in which files go wrong or are made to.

use serde_json::{Value, json};

/// A generator of numbers (SplitMix64, Steele et al. 2014): the same seed, the same folder, on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.number() % end).unwrap()
    }

    /// One of these.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Numbers as they are written: at the edges of types, and beyond all.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "-1",
    "1",
    "0.5",
    "1e308",
    "-1e308",
    "1.7976931348623157e308",
    "1e309",
    "-1e400",
    "1e-320",
    "5e-324",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "340282366920938463463374607431768211456",
    "1e15",
    "1e18",
    "1e-15",
];

/// Texts that control terminals, readers of tables and of markup.
const TEXTS: [&str; 20] = [
    "",
    " ",
    "\u{1b}[2J\u{1b}]52;c;QUJD\u{7}",
    "\u{9b}2J",
    "\u{202e}gpj.exe",
    "\u{2066}a\u{2069}",
    "a\nb",
    "\r\n",
    "\t",
    "\0",
    "\u{7f}\u{85}\u{2028}\u{2029}",
    "\u{200b}\u{feff}\u{ad}\u{e0041}",
    "=1+1",
    "@SUM(A1)",
    "-2+3|cmd",
    "</script><script>alert(1)</script>",
    "<svg onload=alert(1)>&amp;\"'",
    "../../../etc/passwd",
    "END OF RECORDING SEGMENT",
    "2026-02-31 25:61:61.000000+99:99",
];

fn value(random: &mut Random) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2 => json!({}),
        3 => json!([]),
        4 => json!(vec![0; random.below(20_000)]),
        5 => json!("A".repeat(random.below(100_000))),
        6 => (0..random.below(150)).fold(json!(1), |inner, _| json!([inner])),
        7 => json!(random.number()),
        _ => json!(random.one(&TEXTS)),
    }
}

/// The value at a random place.
fn place<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let length = match value {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    };
    if length == 0 || random.below(6) == 0 {
        return value;
    }
    let index = random.below(length);
    match value {
        Value::Object(map) => place(map.values_mut().nth(index).unwrap(), random),
        Value::Array(list) => place(&mut list[index], random),
        _ => unreachable!("it has parts"),
    }
}

/// Changes the value of a JSON text.
fn change_value(text: &mut Vec<u8>, random: &mut Random) {
    let Ok(mut whole) = serde_json::from_slice::<Value>(text) else {
        return change_bytes(text, random);
    };
    let place = place(&mut whole, random);
    match (random.below(4), place) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).unwrap().clone();
            let old = map.shift_remove(&key).unwrap();
            if random.below(2) == 0 {
                map.insert((*random.one(&TEXTS)).to_owned(), old);
            }
        }
        (0, Value::Array(list)) if !list.is_empty() => {
            let copy = list[random.below(list.len())].clone();
            list.extend(vec![copy; random.below(1000)]);
        }
        (_, place) => *place = value(random),
    }
    let newline = text.ends_with(b"\n");
    *text = serde_json::to_vec(&whole).unwrap();
    if newline {
        text.push(b'\n');
    }
}

/// Changes a number, as it is written.
fn change_number(text: &mut Vec<u8>, random: &mut Random) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let starts: Vec<usize> = (1..text.len())
        .filter(|at| (text[*at].is_ascii_digit() || text[*at] == b'-') && b":[, ".contains(&text[at - 1]))
        .collect();
    if starts.is_empty() {
        return;
    }
    let begin = *random.one(&starts);
    let end = begin + text[begin..].iter().take_while(|byte| is_part(byte)).count();
    if random.below(2) == 0 {
        text.splice(begin..end, random.one(&NUMBERS).bytes());
    } else if let Some(digit) = text.get_mut(begin + random.below(end - begin)) {
        *digit = b'0' + u8::try_from(random.below(10)).unwrap();
    }
}

fn change_bytes(text: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(text.len());
    match random.below(5) {
        0 if !text.is_empty() => text[at] = u8::try_from(random.below(256)).unwrap(),
        1 => text.truncate(at),
        2 if !text.is_empty() => drop(text.drain(at..(at + random.below(40)).min(text.len()))),
        3 => drop(text.splice(at..at, random.one(&TEXTS).bytes())),
        _ => drop(text.splice(at..at, [0x80, 0xff, 0xc0, 0])),
    }
}

/// One change of a JSON text.
pub fn text(text: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0..4 => change_value(text, random),
        4..7 => change_number(text, random),
        _ => change_bytes(text, random),
    }
}

/// One change of a log.
pub fn log(lines: &mut Vec<Vec<u8>>, random: &mut Random) {
    let at = random.below(lines.len());
    let Some(line) = lines.get(at).cloned() else { return };
    match random.below(16) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, line),
        2 => lines.extend(vec![line; random.below(300)]),
        3 => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
        4 => drop(lines[at].pop()),
        5 => lines.insert(at, b"\n".repeat(1 + random.below(5))),
        6 => lines.truncate(at),
        7 => lines.insert(at, format!("{}\n", value(random)).into_bytes()),
        8 => {
            let label = random.one(&TEXTS);
            let (verb, seq) = (
                random.one(&["phase_begin", "phase_end", "gap", "dropped"]),
                random.below(8),
            );
            let event = json!({"metrics": {}, "dlpm": {"schema": 1, "event": verb, "seq": seq, "at_ns": random.number(),
                "label": label, "from_seq": 0, "to_seq": u64::MAX, "intervals": u64::MAX, "cpu_ns": u64::MAX,
                "zones": {*label: u64::MAX}}});
            lines.insert(at, format!("{event}\n").into_bytes());
        }
        _ => text(&mut lines[at], random),
    }
}
