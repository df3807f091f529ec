//! Sizes of tensors: numbers, or expressions of symbols such as `Add(Symbol('s0', integer=True), Integer(-1))`.

use std::collections::HashMap;

use super::schema::Size;

/// Longest expression that is computed.
const MOST_BYTES: usize = 4096;

/// Deepest expression that is computed.
const MOST_DEPTH: usize = 64;

/// The numbers of the symbols.
#[derive(Debug)]
pub struct Sizes {
    symbols: HashMap<String, u64>,
}

/// The symbol that an expression consists of.
pub fn symbol(text: &str) -> Option<&str> {
    let name = match text.strip_prefix("Symbol('") {
        Some(rest) => {
            let (name, options) = rest.split_once('\'')?;
            let closed = options.find(')')? + 1 == options.len();
            closed.then_some(name)?
        }
        None => text,
    };
    let plain = name
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let begins = name
        .chars()
        .next()
        .is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
    (plain && begins).then_some(name)
}

impl Sizes {
    /// With these symbols.
    pub fn new(symbols: HashMap<String, u64>) -> Self {
        Self { symbols }
    }

    /// Dimensions of a tensor; `None` where one is not known.
    pub fn shape(&self, sizes: &[Size]) -> Option<Vec<u64>> {
        sizes
            .iter()
            .map(|size| match size {
                Size::Number(number) => u64::try_from(*number).ok(),
                Size::Expression(text) => u64::try_from(self.value(text)?).ok(),
            })
            .collect()
    }

    /// Elements of a tensor; `None` where they are not known.
    pub fn elements(&self, sizes: &[Size]) -> Option<u64> {
        let shape = self.shape(sizes)?;
        shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim))
    }

    fn value(&self, text: &str) -> Option<i128> {
        if text.len() > MOST_BYTES {
            return None;
        }
        let mut rest = text;
        let value = self.term(&mut rest, 0)?;
        rest.trim().is_empty().then_some(value)
    }

    /// A number, a symbol, or a function of terms; `rest` is what follows.
    fn term(&self, rest: &mut &str, depth: usize) -> Option<i128> {
        if depth > MOST_DEPTH {
            return None;
        }
        let text = rest.trim_start();
        let end = text
            .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'))
            .unwrap_or(text.len());
        let (word, after) = text.split_at_checked(end)?;
        let Some(arguments) = after.strip_prefix('(') else {
            *rest = after;
            return word
                .parse()
                .ok()
                .or_else(|| self.symbols.get(word).copied().map(i128::from));
        };
        if word == "Symbol" {
            let (name, options) = arguments.strip_prefix('\'')?.split_once('\'')?;
            *rest = options.split_once(')')?.1;
            return self.symbols.get(name).copied().map(i128::from);
        }
        *rest = arguments;
        let mut values = Vec::new();
        loop {
            values.push(self.term(rest, depth + 1)?);
            let text = rest.trim_start();
            if let Some(after) = text.strip_prefix(',') {
                *rest = after;
            } else {
                *rest = text.strip_prefix(')')?;
                return apply(word, &values);
            }
        }
    }
}

fn apply(function: &str, values: &[i128]) -> Option<i128> {
    match (function, values) {
        ("Add", values) => values.iter().try_fold(0i128, |sum, value| sum.checked_add(*value)),
        ("Mul", values) => values
            .iter()
            .try_fold(1i128, |product, value| product.checked_mul(*value)),
        ("Max", values) => values.iter().max().copied(),
        ("Min", values) => values.iter().min().copied(),
        ("Integer", [value]) | ("Identity" | "ToFloat" | "TruncToInt" | "CeilToInt" | "FloorToInt", [value]) => {
            Some(*value)
        }
        ("FloorDiv" | "CleanDiv", [value, by]) if *by > 0 => Some(value.div_euclid(*by)),
        ("CeilDiv", [value, by]) if *by > 0 => Some(-(value.checked_neg()?.div_euclid(*by))),
        // Only where it is whole: rounding is a function of its own.
        ("IntTrueDiv", [value, by]) if *by > 0 && value.rem_euclid(*by) == 0 => Some(value.div_euclid(*by)),
        ("Mod" | "PythonMod", [value, by]) if *by > 0 => Some(value.rem_euclid(*by)),
        ("Pow" | "PowByNatural", [value, power]) => value.checked_pow(u32::try_from(*power).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes::new([("s0".to_owned(), 7), ("s17".to_owned(), 4)].into())
    }

    #[test]
    fn expressions_of_pytorch() {
        for (text, value) in [
            ("Symbol('s0', positive=True, integer=True)", 7),
            ("s17", 4),
            (
                "Add(FloorDiv(Add(Symbol('s0', integer=True), Integer(-1)), Integer(2)), Integer(1))",
                4,
            ),
            ("Mul(Integer(2), s0, Symbol('s17'))", 56),
            ("Mod(s0, Integer(4))", 3),
            ("CeilDiv(s0, Integer(2))", 4),
            ("Pow(s17, Integer(2))", 16),
            ("Max(s0, s17)", 7),
        ] {
            assert_eq!(sizes().value(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_or_malformed_has_no_value() {
        for text in [
            "",
            "u0",
            "Add(",
            "Add(s0",
            "Add(s0))",
            "Sin(s0)",
            "FloorDiv(s0, Integer(0))",
            "Symbol('s0",
            "s0 + 1",
        ] {
            assert_eq!(sizes().value(text), None, "{text}");
        }
        let deep = format!("{}s0{}", "Add(".repeat(100), ")".repeat(100));
        assert_eq!(sizes().value(&deep), None);
        let large = format!("Pow({}, Integer(9))", i64::MAX);
        assert_eq!(sizes().value(&large), None);
    }

    #[test]
    fn a_symbol_alone_is_a_dimension_with_a_name() {
        assert_eq!(symbol("Symbol('s0', positive=True, integer=True)"), Some("s0"));
        assert_eq!(symbol("s0"), Some("s0"));
        assert_eq!(symbol("Add(Symbol('s0'), Integer(1))"), None);
        assert_eq!(symbol("2*s0"), None);
    }
}
