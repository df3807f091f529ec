//! What a user asks of a language model: sequences, context, prompt, and the type of its cache.

use std::str::FromStr;

use crate::ModelError;

/// Most sequences or tokens that can be asked for. Its square has less than 64 bits.
const MOST: u64 = 1 << 30;

/// Most pairs of a number of sequences and a context in one sweep.
const MOST_ROWS: usize = 256;

/// The context where the user asks for none and the model was trained for as many tokens, or more.
const USUAL_CONTEXT: u64 = 4096;

/// For how much work is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Sequences side by side, one or more; empty for one.
    pub batches: Vec<u64>,
    /// Tokens in the context of a new token, itself included; empty for the trained length, but 4096 at most.
    pub contexts: Vec<u64>,
    /// Tokens of the prompt; as many as the context without it.
    pub prompt_tokens: Option<u64>,
    /// Of what the cache of keys and values is.
    pub cache: CacheType,
}

impl Settings {
    /// Each number of sequences with each context, in the order in which they were asked for.
    ///
    /// # Errors
    ///
    /// Where there are too many.
    pub(crate) fn pairs(&self, trained_context: Option<u64>) -> Result<Vec<(u64, u64)>, ModelError> {
        let usual = [trained_context.map_or(USUAL_CONTEXT, |trained| trained.clamp(1, USUAL_CONTEXT))];
        let contexts = if self.contexts.is_empty() {
            &usual[..]
        } else {
            &self.contexts
        };
        let batches = if self.batches.is_empty() {
            &[1][..]
        } else {
            &self.batches
        };
        if batches.len().saturating_mul(contexts.len()) > MOST_ROWS {
            return Err(ModelError::Input(format!(
                "--batch and --context ask for more than {MOST_ROWS} pairs; ask for fewer"
            )));
        }
        let pairs = batches
            .iter()
            .flat_map(|batch| contexts.iter().map(|context| (*batch, *context)));
        Ok(pairs.collect())
    }
}

/// The type of the elements in a cache of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 32 bits.
    F32,
    /// 16 bits, which is what llama.cpp and most servers take.
    #[default]
    F16,
    /// 16 bits.
    Bf16,
    /// 8 bits.
    Fp8,
    /// 8.5 bits, with the scale of a block of 32.
    Q8_0,
    /// 4.5 bits, with the scale of a block of 32.
    Q4_0,
}

const NAMES: [(&str, CacheType); 6] = [
    ("f32", CacheType::F32),
    ("f16", CacheType::F16),
    ("bf16", CacheType::Bf16),
    ("fp8", CacheType::Fp8),
    ("q8_0", CacheType::Q8_0),
    ("q4_0", CacheType::Q4_0),
];

impl CacheType {
    /// Its name, as on the command line.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("f16", |(name, _)| name)
    }

    /// Bytes of 32 elements.
    pub(crate) fn bytes_of_32(self) -> u64 {
        match self {
            Self::F32 => 128,
            Self::F16 | Self::Bf16 => 64,
            Self::Fp8 => 32,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
        }
    }
}

impl FromStr for CacheType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        found.map(|(_, known)| *known).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("`{text}` is not a type of a cache; choose one of {}", names.join(", "))
        })
    }
}

/// Reads a number of sequences or tokens.
///
/// # Errors
///
/// Where it is not a whole number from 1 to 2³⁰.
pub fn size(text: &str) -> Result<u64, String> {
    let value = text.parse().ok().filter(|value| (1..=MOST).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a whole number from 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_types_are_checked() {
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["0", "-1", "1.5", "", "1073741825", "99999999999999999999"] {
            assert!(size(wrong).unwrap_err().contains("not a whole number"), "{wrong}");
        }
        for (name, cache) in NAMES {
            assert_eq!(name.to_uppercase().parse(), Ok(cache));
            assert_eq!(cache.as_str(), name);
        }
        "int3".parse::<CacheType>().unwrap_err();
    }
}
