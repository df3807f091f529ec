//! Operators that choose elements, and those whose result has a size that only the values decide.

use super::super::{
    call::{Call, Outcome, count},
    value::{Data, Flow, MOST_DIMS, MOST_VALUES, Tensor, axis, bad, elements, show, unknown},
};

/// Operators without operations that count, whose shapes depend on values.
const OF_VALUES: [&str; 3] = ["ImageDecoder", "NonMaxSuppression", "Unique"];

/// Why their shapes are not known.
const DEPENDS: &str = "the size of its result depends on the values";

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "GatherND" => gather_nd(call),
        "GatherBlockQuantized" => gather_quantised(call),
        _ => return None,
    })
}

/// Rows of few bits: where bytes hold several values each, the last dimension is longer than that of the data.
fn gather_quantised(call: &Call<'_>) -> Flow<Outcome> {
    let (data, indices, scales) = (call.shape_of_rank(0, 2)?, call.shape(1)?, call.shape(2)?);
    let at = axis(call.int("gather_axis").unwrap_or(0), data.len())?;
    let block = call.count("block_size").unwrap_or(128);
    let quantised = axis(call.int("quantize_axis").unwrap_or(1), data.len())?;
    let mut row = data.to_vec();
    // A block of values for each scale: more of them than elements says how many an element holds.
    if let (Some(dim), Some(blocks)) = (row.get_mut(quantised), scales.get(quantised)) {
        let bits = call.count("bits").unwrap_or(4).max(1);
        let packed = dim.saturating_mul(8) / bits;
        if *dim < blocks.saturating_sub(1).saturating_mul(block).saturating_add(1) {
            *dim = packed;
        }
    }
    let mut shape = row.get(..at).unwrap_or_default().to_vec();
    shape.extend_from_slice(indices);
    shape.extend_from_slice(row.get(at + 1..).unwrap_or_default());
    if shape.len() > MOST_DIMS {
        return bad(format!("a tensor has more than {MOST_DIMS} dimensions"));
    }
    Ok(Outcome::of(shape))
}

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Gather" => gather(call),
        "GatherElements" => call.shape(1).map(Outcome::of),
        "GatherND" => gather_nd(call),
        "Slice" => slice(call),
        "TopK" => top_k(call),
        "OneHot" => one_hot(call),
        "NonZero" => non_zero(call),
        "Compress" => compress(call),
        "StringNormalizer" => normalise_text(call),
        "StringSplit" => split_text(call),
        "TfIdfVectorizer" => frequencies(call),
        op if OF_VALUES.contains(&op) => unknown(DEPENDS),
        _ => return None,
    })
}

fn gather(call: &Call<'_>) -> Flow<Outcome> {
    let (input, indices) = (call.shape_of_rank(0, 1)?, call.shape(1)?);
    let at = call.axis(0, input.len())?;
    let size = input.get(at).copied().unwrap_or_default();
    let mut shape = input.get(..at).unwrap_or_default().to_vec();
    shape.extend_from_slice(indices);
    shape.extend_from_slice(input.get(at + 1..).unwrap_or_default());
    if shape.len() > MOST_DIMS {
        return bad(format!("a tensor has more than {MOST_DIMS} dimensions"));
    }
    let data = match (&call.needed(0)?.data, &call.needed(1)?.data, input) {
        (Some(data), Some(Data::Ints(indices)), [_]) => {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            data.pick(indices.iter().map(|index| {
                let from_begin = if *index < 0 { index.checked_add(size)? } else { *index };
                usize::try_from(from_begin).ok()
            }))
        }
        _ => None,
    };
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

fn gather_nd(call: &Call<'_>) -> Flow<Outcome> {
    let (input, indices) = (call.shape(0)?, call.shape_of_rank(1, 1)?);
    let batch = usize::try_from(call.int("batch_dims").unwrap_or(0)).unwrap_or_default();
    let Some((depth, outer)) = indices.split_last() else {
        return bad("its indices are a scalar");
    };
    let taken = usize::try_from(*depth).ok().and_then(|depth| depth.checked_add(batch));
    let Some(inner) = taken.and_then(|taken| input.get(taken..)) else {
        return bad(format!("indices of {} do not fit {}", show(indices), show(input)));
    };
    Ok(Outcome::of([outer, inner].concat()))
}

/// Begins, ends and steps by axis.
fn slice(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let (Some(starts), Some(ends)) = (call.ints_either(1, "starts")?, call.ints_either(2, "ends")?) else {
        return bad("it has no begin or no end");
    };
    let axes: Vec<usize> = match call.ints_either(3, "axes")? {
        Some(axes) => axes.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?,
        None => (0..starts.len()).collect(),
    };
    let steps = call.ints_either(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()]
        .iter()
        .any(|length| *length != starts.len())
    {
        return bad("its begins, ends, axes and steps are not of one length");
    }
    let mut cuts: Vec<(i128, i128, u64)> = input.iter().map(|dim| (0, 1, *dim)).collect();
    for ((at, step), (start, end)) in axes.iter().zip(&steps).zip(starts.iter().zip(&ends)) {
        let (Some(cut), Some(dim)) = (cuts.get_mut(*at), input.get(*at)) else {
            return bad(format!("{} has no axis {at}", show(input)));
        };
        *cut = cut_of(
            i128::from(*dim),
            i128::from(*start),
            i128::from(*end),
            i128::from(*step),
        )?;
    }
    let shape: Vec<u64> = cuts.iter().map(|(_, _, count)| *count).collect();
    let data = match &call.needed(0)?.data {
        Some(data) if elements(&shape)? <= MOST_VALUES as u64 => sliced(data, input, &cuts, &shape),
        _ => None,
    };
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

/// First position, step and number of positions along one axis.
fn cut_of(dim: i128, start: i128, end: i128, step: i128) -> Flow<(i128, i128, u64)> {
    if step == 0 {
        return bad("a step is 0");
    }
    let absolute = |position: i128| if position < 0 { position + dim } else { position };
    let (low, high) = if step > 0 { (0, dim) } else { (-1, dim - 1) };
    let start = absolute(start).clamp(if step > 0 { 0 } else { low }, high);
    // -1 as an end means the last one, far below it the begin.
    let end = absolute(end).clamp(low, high);
    let count = if step > 0 {
        (end - start + step - 1).div_euclid(step)
    } else {
        (start - end - step - 1).div_euclid(-step)
    };
    Ok((start, step, u64::try_from(count.max(0)).unwrap_or_default()))
}

fn sliced(data: &Data, input: &[u64], cuts: &[(i128, i128, u64)], shape: &[u64]) -> Option<Data> {
    let total = elements(shape).ok()?;
    data.pick((0..total).map(|flat| {
        let (mut rest, mut position, mut stride) = (flat, 0i128, 1i128);
        for ((start, step, count), dim) in cuts.iter().zip(input).rev() {
            let index = i128::from(rest.checked_rem(*count)?);
            rest = rest.checked_div(*count)?;
            position += (start + index * step) * stride;
            stride *= i128::from(*dim);
        }
        usize::try_from(position).ok()
    }))
}

fn top_k(call: &Call<'_>) -> Flow<Outcome> {
    let mut shape = call.shape(0)?.to_vec();
    let at = call.axis(-1, shape.len())?;
    let wanted = match call.int("k") {
        Some(k) => k,
        None => match call.ints_of(1)?.first() {
            Some(k) => *k,
            None => return bad("it has no k"),
        },
    };
    if let Some(dim) = shape.get_mut(at) {
        *dim = count(wanted, "k")?;
    }
    let output = Tensor::of(shape);
    Ok(Outcome {
        outputs: vec![output.clone(), output],
        mult_adds: None,
    })
}

fn one_hot(call: &Call<'_>) -> Flow<Outcome> {
    let indices = call.shape(0)?;
    let depth = match call.data(1)?.floats().first() {
        Some(depth) => count(super::arithmetic::to_int(*depth), "depth")?,
        None => return bad("it has no depth"),
    };
    let at = call.axis(-1, indices.len() + 1)?;
    let mut shape = indices.to_vec();
    shape.insert(at.min(shape.len()), depth);
    Ok(Outcome::of(shape))
}

fn non_zero(call: &Call<'_>) -> Flow<Outcome> {
    let rank = call.shape(0)?.len();
    let Data::Ints(values) = call.data(0)? else {
        return unknown(DEPENDS);
    };
    let found = values.iter().filter(|value| **value != 0).count();
    let shape = [rank as u64, found as u64];
    let data = (rank == 1).then(|| {
        let positions = values.iter().zip(0i64..).filter(|(value, _)| **value != 0);
        Data::Ints(positions.map(|(_, at)| at).collect())
    });
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

/// As many as the condition has true values; without an axis, of all elements in a row.
fn compress(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let Some(Data::Ints(condition)) = &call.needed(1)?.data else {
        return unknown(DEPENDS);
    };
    let of = |length: u64| {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        condition.iter().take(length).filter(|value| **value != 0).count() as u64
    };
    if call.int("axis").is_none() {
        return Ok(Outcome::of([of(elements(input)?)]));
    }
    let at = call.axis(0, input.len())?;
    let mut shape = input.to_vec();
    if let Some(dim) = shape.get_mut(at) {
        *dim = of(*dim);
    }
    Ok(Outcome::of(shape))
}

/// Words that are left out make it shorter; without such words it is as long as before.
fn normalise_text(call: &Call<'_>) -> Flow<Outcome> {
    if call.attribute("stopwords").is_some_and(|words| words.texts > 0) {
        return unknown(DEPENDS);
    }
    call.shape(0).map(Outcome::of)
}

/// The parts, of which only the values tell how many there are, and how many each text has.
fn split_text(call: &Call<'_>) -> Flow<Outcome> {
    Ok(Outcome {
        outputs: vec![Tensor::default(), Tensor::of(call.shape(0)?)],
        mult_adds: None,
    })
}

/// A row of frequencies, one for each index that the attribute names, for each row of words.
fn frequencies(call: &Call<'_>) -> Flow<Outcome> {
    let indexes = call.ints("ngram_indexes").unwrap_or_default();
    let Some(last) = indexes.iter().max() else {
        return bad("it has no `ngram_indexes`");
    };
    let columns = count(*last, "ngram_indexes")?.saturating_add(1);
    match call.shape(0)? {
        [] | [_] => Ok(Outcome::of([columns])),
        [rows, _] => Ok(Outcome::of([*rows, columns])),
        other => bad(format!("its input is {}", show(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_as_in_python() {
        const FAR: i128 = i64::MAX as i128;
        for (dim, start, end, step, first, count) in [
            (10, 2, 5, 1, 2, 3),
            (10, -3, FAR, 1, 7, 3),
            (10, 0, FAR, 3, 0, 4),
            (10, 9, -FAR, -1, 9, 10),
            (10, -1, 0, -2, 9, 5),
            (10, 5, 2, 1, 5, 0),
            (0, 0, FAR, 1, 0, 0),
        ] {
            assert_eq!(
                cut_of(dim, start, end, step),
                Ok((first, step, count)),
                "{dim} {start} {end} {step}"
            );
        }
        cut_of(3, 0, 3, 0).unwrap_err();
    }
}
