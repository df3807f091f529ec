//! Operators on elements of tensors that are broadcast, and the values of small ones.

use std::rc::Rc;

use super::super::{
    call::{Call, Outcome},
    data_type,
    value::{Data, Flow, MOST_VALUES, Tensor, broadcast, elements},
};

const BROADCAST: [&str; 25] = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "StringConcat",
    "Sub",
    "Sum",
    "Xor",
    "Where",
    "Cast",
];

/// Inputs whose values are combined at most.
const MOST_INPUTS: usize = 16;

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    if !BROADCAST.contains(&call.op) {
        return None;
    }
    Some(match call.op {
        "Cast" => cast(call),
        _ => combine(call),
    })
}

fn cast(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.needed(0)?;
    let to = call.int("to").unwrap_or_default();
    let data = match (&input.data, data_type::is_float(to)) {
        (Some(data), true) => Some(Data::Floats(data.floats().into())),
        (Some(Data::Floats(values)), false) => {
            let truth = to == data_type::BOOL;
            let ints = values.iter().map(|value| {
                if truth {
                    i64::from(*value != 0.0)
                } else {
                    to_int(*value)
                }
            });
            Some(Data::Ints(ints.collect()))
        }
        (Some(Data::Ints(values)), false) if to == data_type::BOOL => {
            Some(Data::Ints(values.iter().map(|value| i64::from(*value != 0)).collect()))
        }
        (data, _) => data.clone(),
    };
    Ok(Outcome::one(Tensor::of(call.shape(0)?).with(data)))
}

/// Towards zero, as ONNX casts; what is too large for 64 bits becomes the largest.
#[expect(clippy::cast_possible_truncation, reason = "a cast that saturates is what is wanted")]
pub fn to_int(value: f64) -> i64 {
    value as i64
}

fn combine(call: &Call<'_>) -> Flow<Outcome> {
    let mut shape = call.shape(0)?.to_vec();
    for at in 1..call.inputs.len() {
        shape = broadcast(&shape, call.shape(at)?)?;
    }
    let output = Tensor::of(shape.as_slice());
    let data = if elements(&shape)? <= MOST_VALUES as u64 && call.inputs.len() <= MOST_INPUTS {
        values(call, &shape)
    } else {
        None
    };
    Ok(Outcome::one(output.with(data)))
}

/// The values of a result of this shape, where those of all inputs are known.
fn values(call: &Call<'_>, shape: &[u64]) -> Option<Data> {
    let inputs: Vec<Data> = (0..call.inputs.len())
        .map(|at| spread(call.input(at)?, shape))
        .collect::<Option<_>>()?;
    if let ("Where", [condition, yes, no]) = (call.op, inputs.as_slice()) {
        let Data::Ints(condition) = condition else { return None };
        return match (yes, no) {
            (Data::Ints(yes), Data::Ints(no)) => Some(Data::Ints(choose(condition, yes, no))),
            (Data::Floats(yes), Data::Floats(no)) => Some(Data::Floats(choose(condition, yes, no))),
            _ => None,
        };
    }
    let (first, rest) = inputs.split_first()?;
    rest.iter()
        .try_fold(first.clone(), |left, right| fold_two(call.op, &left, right))
}

fn choose<T: Copy>(condition: &[i64], yes: &[T], no: &[T]) -> Rc<[T]> {
    condition
        .iter()
        .zip(yes.iter().zip(no))
        .map(|(condition, (yes, no))| if *condition == 0 { *no } else { *yes })
        .collect()
}

/// The values of a tensor when it is broadcast.
pub fn spread(tensor: &Tensor, shape: &[u64]) -> Option<Data> {
    let (from, data) = (tensor.shape.as_deref()?, tensor.data.as_ref()?);
    if from == shape {
        return Some(data.clone());
    }
    let missing = shape.len().checked_sub(from.len())?;
    let total = usize::try_from(elements(shape).ok()?)
        .ok()
        .filter(|total| *total <= MOST_VALUES)?;
    data.pick((0..total).map(|flat| {
        let (mut rest, mut position, mut stride) = (flat as u64, 0u64, 1u64);
        for (at, dim) in shape.iter().enumerate().rev() {
            let index = rest.checked_rem(*dim)?;
            rest = rest.checked_div(*dim)?;
            if let Some(of) = at.checked_sub(missing).and_then(|at| from.get(at)) {
                position += if *of == 1 { 0 } else { index * stride };
                stride *= of;
            }
        }
        usize::try_from(position).ok()
    }))
}

fn fold_two(op: &str, left: &Data, right: &Data) -> Option<Data> {
    if let (Data::Ints(left), Data::Ints(right)) = (left, right) {
        let results: Option<Rc<[i64]>> = left
            .iter()
            .zip(right.iter())
            .map(|(a, b)| of_ints(op, *a, *b))
            .collect();
        return results.map(Data::Ints);
    }
    let (left, right) = (left.floats(), right.floats());
    let pairs = || left.iter().zip(right.iter());
    let compare: Option<fn(f64, f64) -> bool> = match op {
        "Equal" => Some(|a, b| a == b),
        "Less" => Some(|a, b| a < b),
        "LessOrEqual" => Some(|a, b| a <= b),
        "Greater" => Some(|a, b| a > b),
        "GreaterOrEqual" => Some(|a, b| a >= b),
        _ => None,
    };
    if let Some(compare) = compare {
        return Some(Data::Ints(pairs().map(|(a, b)| i64::from(compare(*a, *b))).collect()));
    }
    let combine: fn(f64, f64) -> f64 = match op {
        "Add" | "Sum" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => f64::powf,
        "Max" => f64::max,
        "Min" => f64::min,
        _ => return None,
    };
    Some(Data::Floats(pairs().map(|(a, b)| combine(*a, *b)).collect()))
}

/// `None` where the result has no 64 bits.
fn of_ints(op: &str, a: i64, b: i64) -> Option<i64> {
    Some(match op {
        "Add" | "Sum" => a.checked_add(b)?,
        "Sub" => a.checked_sub(b)?,
        "Mul" => a.checked_mul(b)?,
        // Towards zero, as C++ does.
        "Div" => a.checked_div(b)?,
        // With the sign of the divisor, as Python does; `fmod` is for floats.
        "Mod" => a.checked_rem(b).map(|rest| {
            if rest != 0 && (rest < 0) != (b < 0) {
                rest + b
            } else {
                rest
            }
        })?,
        "Pow" => a.checked_pow(u32::try_from(b).ok()?)?,
        "Max" => a.max(b),
        "Min" => a.min(b),
        "And" => i64::from(a != 0 && b != 0),
        "Or" => i64::from(a != 0 || b != 0),
        "Xor" => i64::from((a != 0) != (b != 0)),
        "Equal" => i64::from(a == b),
        "Less" => i64::from(a < b),
        "LessOrEqual" => i64::from(a <= b),
        "Greater" => i64::from(a > b),
        "GreaterOrEqual" => i64::from(a >= b),
        "BitwiseAnd" => a & b,
        "BitwiseOr" => a | b,
        "BitwiseXor" => a ^ b,
        _ => return None,
    })
}

/// The values of an operator with one input.
pub fn fold_one(call: &Call<'_>, data: &Data) -> Option<Data> {
    match data {
        Data::Ints(values) => {
            let fold: fn(i64) -> Option<i64> = match call.op {
                "Neg" => i64::checked_neg,
                "Relu" => |value| Some(value.max(0)),
                "Abs" => i64::checked_abs,
                "Sign" => |value| Some(value.signum()),
                "Not" => |value| Some(i64::from(value == 0)),
                "CastLike" => Some,
                "Clip" => return clip(call, values),
                _ => return None,
            };
            values
                .iter()
                .map(|value| fold(*value))
                .collect::<Option<Rc<[_]>>>()
                .map(Data::Ints)
        }
        Data::Floats(values) => {
            let fold: fn(f64) -> f64 = match call.op {
                "Neg" => |value| -value,
                "Relu" => |value| value.max(0.0),
                "Abs" => f64::abs,
                "Ceil" => f64::ceil,
                "Floor" => f64::floor,
                "Round" => f64::round_ties_even,
                "Sqrt" => f64::sqrt,
                "Exp" => f64::exp,
                "Log" => f64::ln,
                "Reciprocal" => f64::recip,
                _ => return None,
            };
            Some(Data::Floats(values.iter().map(|value| fold(*value)).collect()))
        }
    }
}

fn clip(call: &Call<'_>, values: &[i64]) -> Option<Data> {
    let bound = |at| match call.input(at) {
        None => Some(None),
        Some(_) => call.ints_of(at).ok()?.first().map(|value| Some(*value)),
    };
    let (low, high) = (bound(1)?, bound(2)?);
    let clipped = values.iter().map(|value| {
        let raised = low.map_or(*value, |low| low.max(*value));
        high.map_or(raised, |high| high.min(raised))
    });
    Some(Data::Ints(clipped.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_divide_as_in_onnx() {
        assert_eq!(of_ints("Div", -7, 2), Some(-3));
        assert_eq!(of_ints("Mod", -7, 2), Some(1));
        assert_eq!(of_ints("Div", 1, 0), None);
        assert_eq!(of_ints("Mod", i64::MIN, -1), None);
        assert_eq!(of_ints("Mul", i64::MAX, 2), None);
    }

    #[test]
    fn values_are_broadcast() {
        let row = Tensor::of([3]).with(Some(Data::Ints([1, 2, 3].into())));
        assert_eq!(spread(&row, &[2, 3]), Some(Data::Ints([1, 2, 3, 1, 2, 3].into())));
        let column = Tensor::of([2, 1]).with(Some(Data::Ints([1, 2].into())));
        assert_eq!(spread(&column, &[2, 2]), Some(Data::Ints([1, 1, 2, 2].into())));
    }
}
