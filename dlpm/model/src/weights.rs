//! The tensors of a file: what counts as parameters, by type, and what does not, by reason.

use std::collections::BTreeMap;

use super::{ModelError, details::WeightSum};

/// Why a tensor does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Running mean or variance of a batch normalisation, or how many batches it has seen.
    Statistic,
    /// The file says that it is a buffer.
    Buffer,
    /// An optimizer's.
    Optimizer,
    /// A moving average of the parameters.
    Average,
    /// The same tensors under a second name.
    Copy,
    /// Beside the model in a checkpoint.
    Beside,
    /// Scales, zero points and tables of quantised weights.
    Scale,
    /// Integers or truth values, which nothing says are weights.
    Integer,
    /// Constants of a program, which are not weights by their name or type.
    Unused,
    /// Packed in a form that dlpm does not know, so that it may hold parameters.
    Packed,
    /// Of a type that dlpm does not know, so that it may hold parameters.
    Unknown,
}

impl Why {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Statistic => "statistics of a batch normalisation",
            Self::Buffer => "buffers, as the file says",
            Self::Optimizer => "the state of an optimizer",
            Self::Average => "a moving average of the parameters",
            Self::Copy => "a copy of the parameters",
            Self::Beside => "beside the model in the checkpoint",
            Self::Scale => "scales, zero points and tables of quantised weights",
            Self::Integer => "integers or truth values",
            Self::Unused => "constants that no operator reads as a weight",
            Self::Packed => "packed in a form that dlpm does not know: there are more parameters than counted",
            Self::Unknown => "of a type that dlpm does not know: there are more parameters than counted",
        }
    }

    /// Whether such a tensor may hold parameters.
    pub fn may_count(self) -> bool {
        matches!(self, Self::Packed | Self::Unknown)
    }
}

/// The tensors of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Parameters by type of element.
    pub by_type: BTreeMap<String, WeightSum>,
    /// What does not count.
    pub left_out: BTreeMap<Why, WeightSum>,
}

impl Weights {
    /// Counts a tensor of so many parameters.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn count(&mut self, data_type: &str, parameters: u64, bits: Option<u64>) -> Result<(), ModelError> {
        let sum = self
            .by_type
            .entry(super::printable(data_type))
            .or_insert(WeightSum::EMPTY);
        sum.add(parameters, bits.map(|bits| bits.div_ceil(8)))
    }

    /// Notes a tensor that does not count.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn leave_out(&mut self, why: Why, elements: u64, bits: Option<u64>) -> Result<(), ModelError> {
        let sum = self.left_out.entry(why).or_insert(WeightSum::EMPTY);
        sum.add(elements, bits.map(|bits| bits.div_ceil(8)))
    }

    /// All parameters.
    ///
    /// # Errors
    ///
    /// Where the sum has more than 64 bits.
    pub fn parameters(&self) -> Result<u64, ModelError> {
        let mut sums = self.by_type.values();
        sums.try_fold(0u64, |all, sum| all.checked_add(sum.elements))
            .ok_or_else(|| ModelError::TooLarge("its parameters have more than 64 bits".to_owned()))
    }

    /// Whether there may be more parameters than were counted.
    pub fn is_lower_bound(&self) -> bool {
        self.left_out.keys().any(|why| why.may_count())
    }
}
