//! What is known of a tensor: its dimensions, and the values of small ones from which dimensions are computed.

use std::rc::Rc;

use crate::tally::Break;

/// Values that are kept of a tensor at most. Shapes, axes and indices are far shorter.
pub const MOST_VALUES: usize = 4096;

/// Dimensions of a tensor at most.
pub const MOST_DIMS: usize = 32;

/// Why an operator has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something that it needs is only known when the model runs.
    Unknown(String),
    /// Its inputs do not fit each other.
    Bad(String),
    /// dlpm does not know the operator, or not in this form.
    Unsupported(String),
}

/// A result, or why there is none.
pub type Flow<T> = Result<T, Stop>;

/// An error of shapes that do not fit.
pub fn bad<T>(why: impl Into<String>) -> Flow<T> {
    Err(Stop::Bad(why.into()))
}

/// Something that only a run of the model can tell.
pub fn unknown<T>(what: impl Into<String>) -> Flow<T> {
    Err(Stop::Unknown(what.into()))
}

/// Values in row-major order. Truth values are integers.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Integers and truth values.
    Ints(Rc<[i64]>),
    /// Floats.
    Floats(Rc<[f64]>),
}

impl Data {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// The values at these positions; `None` if one is not there.
    pub fn pick(&self, positions: impl Iterator<Item = Option<usize>>) -> Option<Self> {
        Some(match self {
            Self::Ints(values) => Self::Ints(
                positions
                    .map(|at| values.get(at?).copied())
                    .collect::<Option<Rc<[_]>>>()?,
            ),
            Self::Floats(values) => Self::Floats(
                positions
                    .map(|at| values.get(at?).copied())
                    .collect::<Option<Rc<[_]>>>()?,
            ),
        })
    }

    /// One after the other; `None` where they are of two kinds, or too many.
    pub fn concat<'a>(parts: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let (mut ints, mut floats) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Ints(values) => ints.extend_from_slice(values),
                Self::Floats(values) => floats.extend_from_slice(values),
            }
            if ints.len() + floats.len() > MOST_VALUES {
                return None;
            }
        }
        match (ints.is_empty(), floats.is_empty()) {
            (false, false) => None,
            (true, false) => Some(Self::Floats(floats.into())),
            (_, true) => Some(Self::Ints(ints.into())),
        }
    }

    /// As floats.
    pub fn floats(&self) -> Vec<f64> {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "what ONNX computes in floats is not an exact size"
            )]
            Self::Ints(values) => values.iter().map(|value| *value as f64).collect(),
            Self::Floats(values) => values.to_vec(),
        }
    }
}

/// What is known of a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Its dimensions, if they are known.
    pub shape: Option<Rc<[u64]>>,
    /// Its values, if they are known and few.
    pub data: Option<Data>,
    /// The items, where it is a sequence.
    pub items: Option<Rc<[Tensor]>>,
    /// Which of the model's constants it is.
    pub origin: Option<usize>,
    /// Whether it is a constant of the file itself.
    pub constant: bool,
    /// The operator since which its shape or its values are not known.
    pub lost: Option<Rc<Break>>,
}

impl Tensor {
    /// Of these dimensions.
    pub fn of(shape: impl Into<Rc<[u64]>>) -> Self {
        Self {
            shape: Some(shape.into()),
            ..Self::default()
        }
    }

    /// A vector of integers.
    pub fn ints(values: Vec<i64>) -> Self {
        let shape: Rc<[u64]> = [values.len() as u64].into();
        Self::of(shape).with(Some(Data::Ints(values.into())))
    }

    /// A single integer.
    pub fn int(value: i64) -> Self {
        Self::of([]).with(Some(Data::Ints([value].into())))
    }

    /// The same with these values, where their number is that of the shape.
    pub fn with(mut self, data: Option<Data>) -> Self {
        self.data = data.filter(|data| {
            let wanted = self.shape.as_deref().and_then(|shape| elements(shape).ok());
            data.len() <= MOST_VALUES && wanted == Some(data.len() as u64)
        });
        self
    }
}

/// Elements of a tensor of this shape.
///
/// # Errors
///
/// Where 64 bits do not suffice.
pub fn elements(shape: &[u64]) -> Flow<u64> {
    product(shape.iter().copied())
}

/// A product.
///
/// # Errors
///
/// Where 64 bits do not suffice.
pub fn product(factors: impl IntoIterator<Item = u64>) -> Flow<u64> {
    let mut product = 1u64;
    let mut overflow = false;
    for factor in factors {
        if factor == 0 {
            return Ok(0);
        }
        match product.checked_mul(factor) {
            Some(next) => product = next,
            None => overflow = true,
        }
    }
    if overflow {
        return bad("a product of dimensions has more than 64 bits");
    }
    Ok(product)
}

/// The common shape of two that are broadcast.
///
/// # Errors
///
/// Where they do not fit.
pub fn broadcast(left: &[u64], right: &[u64]) -> Flow<Vec<u64>> {
    let rank = left.len().max(right.len());
    let dim = |shape: &[u64], at: usize| {
        let missing = rank - shape.len();
        at.checked_sub(missing)
            .and_then(|at| shape.get(at).copied())
            .unwrap_or(1)
    };
    (0..rank)
        .map(|at| match (dim(left, at), dim(right, at)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => bad(format!("{} and {} do not go together", show(left), show(right))),
        })
        .collect()
}

/// `2×3×4`
pub fn show(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "a scalar".to_owned();
    }
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    dims.join("×")
}

/// An axis of a tensor of `rank` dimensions, counted from the end where it is negative.
///
/// # Errors
///
/// Where there is no such axis.
pub fn axis(axis: i64, rank: usize) -> Flow<usize> {
    let rank_signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis + rank_signed } else { axis };
    match usize::try_from(at) {
        Ok(at) if at < rank => Ok(at),
        _ => bad(format!("there is no axis {axis} in {rank} dimensions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_broadcast_from_the_right() {
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast(&[], &[5]).unwrap(), [5]);
        broadcast(&[2, 3], &[2]).unwrap_err();
    }

    #[test]
    fn products_that_do_not_fit_are_refused() {
        elements(&[1 << 40, 1 << 40]).unwrap_err();
        assert_eq!(elements(&[1 << 40, 1 << 40, 0]), Ok(0));
    }

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(axis(-1, 3), Ok(2));
        axis(3, 3).unwrap_err();
        axis(i64::MIN, 3).unwrap_err();
    }
}
