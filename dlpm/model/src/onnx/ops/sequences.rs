//! Sequences of tensors, and optional values.

use std::rc::Rc;

use super::super::{
    call::{Call, Outcome, count},
    value::{Data, Flow, MOST_VALUES, Tensor, axis, bad, show, unknown},
};
use super::layout::joined;

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "SequenceEmpty" => Ok(Outcome::one(sequence(Vec::new()))),
        "SequenceConstruct" => construct(call),
        "SequenceAt" => at(call),
        "SequenceInsert" => insert(call),
        "SequenceErase" => erase(call),
        "SequenceLength" => length(call),
        "SplitToSequence" => split(call),
        "ConcatFromSequence" => concat(call),
        "Optional" => match call.input(0) {
            Some(value) => Ok(Outcome::one(value.clone())),
            None => unknown("whether it holds a value is only known when the model runs"),
        },
        "OptionalGetElement" => call.needed(0).map(|value| Outcome::one(value.clone())),
        "OptionalHasElement" => match call.input(0) {
            None => Ok(Outcome::one(Tensor::int(0))),
            Some(_) => Ok(Outcome::of([])),
        },
        _ => return None,
    })
}

/// A sequence is a tensor without a shape that knows its items.
fn sequence(items: Vec<Tensor>) -> Tensor {
    Tensor {
        items: Some(items.into()),
        ..Tensor::default()
    }
}

fn items<'c>(call: &'c Call<'_>) -> Flow<&'c Rc<[Tensor]>> {
    match &call.needed(0)?.items {
        Some(items) => Ok(items),
        None => unknown("the items of its sequence are only known when the model runs"),
    }
}

/// A sequence of these, if it is within bounds.
///
/// # Errors
///
/// Where it has too many items, or sequences.
pub fn checked(items: Vec<Tensor>) -> Flow<Tensor> {
    if items.len() > MOST_VALUES {
        return unknown(format!("its sequence has more than {MOST_VALUES} items"));
    }
    // Else they could be nested without end.
    if items.iter().any(|item| item.items.is_some()) {
        return unknown("it holds sequences");
    }
    Ok(sequence(items))
}

fn construct(call: &Call<'_>) -> Flow<Outcome> {
    let items = call.inputs.iter().map(|input| input.clone().unwrap_or_default());
    checked(items.collect()).map(Outcome::one)
}

/// The position in an input; the end of the sequence where it is left out.
fn position(call: &Call<'_>, at: usize, length: usize, last: usize) -> Flow<usize> {
    match call.input(at) {
        None => Ok(last),
        Some(_) => match call.ints_of(at)?.first() {
            Some(position) if i64::try_from(length) == Ok(*position) && last == length => Ok(length),
            Some(position) => axis(*position, length),
            None => bad("its position is empty"),
        },
    }
}

fn at(call: &Call<'_>) -> Flow<Outcome> {
    let items = items(call)?;
    // Where the position is not known, any item will do if all are alike.
    if call.needed(1)?.data.is_none()
        && let Some((first, rest)) = items.split_first()
    {
        return if rest.iter().all(|item| item.shape == first.shape) {
            Ok(Outcome::one(Tensor {
                shape: first.shape.clone(),
                ..Tensor::default()
            }))
        } else {
            unknown("which item it takes is only known when the model runs")
        };
    }
    let at = position(call, 1, items.len(), 0)?;
    Ok(Outcome::one(items.get(at).cloned().unwrap_or_default()))
}

fn insert(call: &Call<'_>) -> Flow<Outcome> {
    let mut items = items(call)?.to_vec();
    let at = position(call, 2, items.len(), items.len())?;
    items.insert(at.min(items.len()), call.needed(1)?.clone());
    checked(items).map(Outcome::one)
}

fn erase(call: &Call<'_>) -> Flow<Outcome> {
    let mut items = items(call)?.to_vec();
    if items.is_empty() {
        return bad("its sequence is empty");
    }
    let at = position(call, 1, items.len(), items.len() - 1)?;
    items.remove(at);
    checked(items).map(Outcome::one)
}

fn length(call: &Call<'_>) -> Flow<Outcome> {
    let length = i64::try_from(items(call)?.len()).unwrap_or(i64::MAX);
    Ok(Outcome::one(Tensor::int(length)))
}

fn split(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let at = call.axis(0, input.len())?;
    let size = input.get(at).copied().unwrap_or_default();
    let (parts, keep) = match call.input(1) {
        None => (
            vec![1; usize::try_from(size.min(MOST_VALUES as u64 + 1)).unwrap_or_default()],
            false,
        ),
        Some(lengths) => {
            let is_scalar = lengths.shape.as_deref().is_some_and(<[u64]>::is_empty);
            let values = call.ints_of(1)?;
            match values {
                [each] if is_scalar => {
                    let each = count(*each, "split")?.max(1);
                    let parts = size.div_ceil(each);
                    if parts > MOST_VALUES as u64 {
                        return unknown(format!("it makes more than {MOST_VALUES} parts"));
                    }
                    let part = |number: u64| (size - number * each).min(each);
                    ((0..parts).map(part).collect(), true)
                }
                values => {
                    let parts = values.iter().map(|part| count(*part, "split"));
                    (parts.collect::<Flow<Vec<u64>>>()?, true)
                }
            }
        }
    };
    let total = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part));
    if total != Some(size) && parts.len() <= MOST_VALUES {
        return bad(format!("its parts do not add up to the {size} of axis {at}"));
    }
    let keep = keep || call.int("keepdims").unwrap_or(1) != 0;
    let part = |length: u64| {
        let mut shape = input.to_vec();
        if keep {
            if let Some(dim) = shape.get_mut(at) {
                *dim = length;
            }
        } else {
            shape.remove(at);
        }
        Tensor::of(shape)
    };
    checked(parts.into_iter().map(part).collect()).map(Outcome::one)
}

fn concat(call: &Call<'_>) -> Flow<Outcome> {
    let items = items(call)?;
    let Some((first, rest)) = items.split_first() else {
        return bad("its sequence is empty");
    };
    let new = call.flag("new_axis");
    let shape = |tensor: &Tensor| match tensor.shape.as_deref() {
        Some(shape) => Ok(shape.to_vec()),
        None => unknown("the shape of an item is not known"),
    };
    let mut all = shape(first)?;
    let at = axis(call.int("axis").unwrap_or(0), all.len() + usize::from(new))?;
    if new {
        let same = rest.iter().all(|item| item.shape == first.shape);
        if !same {
            return bad("the items of its sequence are not of one shape");
        }
        all.insert(at.min(all.len()), items.len() as u64);
        return Ok(Outcome::of(all));
    }
    for item in rest {
        let next = shape(item)?;
        if !joined(&mut all, &next, at) {
            return bad(format!(
                "{} and {} cannot be joined at axis {at}",
                show(&all),
                show(&next)
            ));
        }
    }
    let parts: Option<Vec<&Data>> = items.iter().map(|item| item.data.as_ref()).collect();
    let data = parts
        .filter(|_| all.len() == 1)
        .and_then(|parts| Data::concat(parts.into_iter()));
    Ok(Outcome::one(Tensor::of(all).with(data)))
}
