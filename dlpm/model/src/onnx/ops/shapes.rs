//! Operators that make tensors from shapes, change shapes only, or reduce dimensions.

use std::rc::Rc;

use super::super::{
    call::{Call, Outcome, count},
    value::{Data, Flow, MOST_DIMS, MOST_VALUES, Tensor, axis, bad, broadcast, elements, product, show, unknown},
};
use super::arithmetic::{spread, to_int};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Shape" => shape(call),
        "Size" => call
            .shape(0)
            .and_then(elements)
            .map(|size| Outcome::one(Tensor::int(i64::try_from(size).unwrap_or(i64::MAX)))),
        "Identity" => identity(call),
        "ConstantOfShape" => constant_of_shape(call),
        "Range" => range(call),
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Squeeze" => squeeze(call),
        "Unsqueeze" => unsqueeze(call),
        "Expand" => expand(call),
        "Tile" => tile(call),
        "ArgMax" | "ArgMin" => arg(call),
        "RandomNormal" | "RandomUniform" => match call.counts("shape") {
            Ok(Some(shape)) => Ok(Outcome::of(shape)),
            Ok(None) => bad("it has no attribute `shape`"),
            Err(stop) => Err(stop),
        },
        "Multinomial" => multinomial(call),
        "Det" => det(call),
        op if op.starts_with("Reduce") => reduce(call),
        _ => return None,
    })
}

fn identity(call: &Call<'_>) -> Flow<Outcome> {
    Ok(Outcome::one(call.needed(0)?.clone()))
}

fn shape(call: &Call<'_>) -> Flow<Outcome> {
    let shape = call.shape(0)?;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let bound = |value: i64| {
        let at = if value < 0 { value.saturating_add(rank) } else { value };
        usize::try_from(at.clamp(0, rank)).unwrap_or_default()
    };
    let start = bound(call.int("start").unwrap_or(0));
    let end = bound(call.int("end").unwrap_or(rank));
    let dims = shape.get(start..end).unwrap_or_default();
    let values = dims.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
    Ok(Outcome::one(Tensor::ints(values)))
}

/// The integers of an input as a shape.
fn shape_in(call: &Call<'_>, at: usize) -> Flow<Vec<u64>> {
    let dims: Vec<u64> = call
        .ints_of(at)?
        .iter()
        .map(|dim| count(*dim, "shape"))
        .collect::<Flow<_>>()?;
    check_rank(dims)
}

fn check_rank(dims: Vec<u64>) -> Flow<Vec<u64>> {
    if dims.len() > MOST_DIMS {
        return bad(format!("a tensor has more than {MOST_DIMS} dimensions"));
    }
    Ok(dims)
}

fn constant_of_shape(call: &Call<'_>) -> Flow<Outcome> {
    let shape = shape_in(call, 0)?;
    let value = call.tensor("value").and_then(|value| value.data.clone());
    let value = value.unwrap_or_else(|| Data::Floats([0.0].into()));
    let output = Tensor::of(shape.as_slice());
    let count = usize::try_from(elements(&shape)?).unwrap_or(usize::MAX);
    let data = if count <= MOST_VALUES {
        value.pick(std::iter::repeat_n(Some(0), count))
    } else {
        None
    };
    Ok(Outcome::one(output.with(data)))
}

fn range(call: &Call<'_>) -> Flow<Outcome> {
    let mut bounds = Vec::new();
    for at in 0..3 {
        match call.data(at)?.pick(std::iter::once(Some(0))) {
            Some(bound) => bounds.push(bound),
            None => return bad("a bound is empty"),
        }
    }
    if let [Data::Ints(start), Data::Ints(end), Data::Ints(step)] = bounds.as_slice() {
        let first = |values: &Rc<[i64]>| i128::from(values.first().copied().unwrap_or_default());
        let (start, end, step) = (first(start), first(end), first(step));
        if step == 0 {
            return bad("its step is 0");
        }
        let count = (end - start + step - step.signum()).div_euclid(step).max(0);
        let count = if (end - start).signum() == step.signum() {
            count
        } else {
            0
        };
        let output = Tensor::of([u64::try_from(count).unwrap_or(u64::MAX)]);
        let few = usize::try_from(count).ok().filter(|count| *count <= MOST_VALUES);
        let data = few.map(|_| {
            Data::Ints(
                (0..count)
                    .filter_map(|at| i64::try_from(start + at * step).ok())
                    .collect(),
            )
        });
        return Ok(Outcome::one(output.with(data)));
    }
    let floats: Vec<f64> = bounds.iter().flat_map(Data::floats).collect();
    let [start, end, step] = floats.as_slice() else {
        return bad("a bound is empty");
    };
    let count = ((end - start) / step).ceil().max(0.0);
    if !count.is_finite() {
        return bad("its bounds are not numbers");
    }
    Ok(Outcome::of([u64::try_from(to_int(count)).unwrap_or_default()]))
}

/// The same values under another shape.
fn reshaped(call: &Call<'_>, shape: Vec<u64>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    if elements(input)? != elements(&shape)? {
        return bad(format!("{} cannot become {}", show(input), show(&shape)));
    }
    let data = call.needed(0)?.data.clone();
    Ok(Outcome::one(Tensor::of(check_rank(shape)?).with(data)))
}

fn reshape(call: &Call<'_>) -> Flow<Outcome> {
    let Some(wanted) = call.ints_either(1, "shape")? else {
        return bad("it has no shape");
    };
    if call.needed(0)?.shape.is_none() && wanted.iter().all(|dim| *dim > 0) {
        return Ok(Outcome::of(check_rank(
            wanted.iter().map(|dim| dim.unsigned_abs()).collect(),
        )?));
    }
    let input = call.shape(0)?;
    let keep_zero = call.flag("allowzero");
    let mut shape = Vec::new();
    for (at, dim) in wanted.iter().enumerate() {
        shape.push(match dim {
            -1 => None,
            0 if !keep_zero => match input.get(at) {
                Some(dim) => Some(*dim),
                None => return bad(format!("dimension {at} is to be kept, but {} has none", show(input))),
            },
            dim => Some(count(*dim, "shape")?),
        });
    }
    let known = product(shape.iter().flatten().copied())?;
    let total = elements(input)?;
    let rest = total.checked_div(known).unwrap_or(0);
    if shape.iter().filter(|dim| dim.is_none()).count() > 1 {
        return bad("more than one dimension is open");
    }
    reshaped(call, shape.into_iter().map(|dim| dim.unwrap_or(rest)).collect())
}

fn flatten(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let at = match call.int("axis").unwrap_or(1) {
        end if usize::try_from(end) == Ok(input.len()) => input.len(),
        _ => call.axis(1, input.len())?,
    };
    let (outer, inner) = input.split_at(at);
    let shape = vec![elements(outer)?, elements(inner)?];
    reshaped(call, shape)
}

fn squeeze(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let axes: Option<Vec<usize>> = match call.ints_either(1, "axes")? {
        Some(axes) => Some(axes.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?),
        None => None,
    };
    let mut shape = Vec::new();
    for (at, dim) in input.iter().enumerate() {
        let gone = axes.as_ref().map_or(*dim == 1, |axes| axes.contains(&at));
        if !gone {
            shape.push(*dim);
        } else if *dim != 1 {
            return bad(format!("dimension {at} of {} is not 1", show(input)));
        }
    }
    reshaped(call, shape)
}

fn unsqueeze(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let Some(axes) = call.ints_either(1, "axes")? else {
        return bad("it has no axes");
    };
    let rank = input.len() + axes.len();
    if rank > MOST_DIMS {
        return bad(format!("a tensor has more than {MOST_DIMS} dimensions"));
    }
    let axes: Vec<usize> = axes.iter().map(|at| axis(*at, rank)).collect::<Flow<_>>()?;
    let mut dims = input.iter();
    let shape: Option<Vec<u64>> = (0..rank)
        .map(|at| {
            if axes.contains(&at) {
                Some(1)
            } else {
                dims.next().copied()
            }
        })
        .collect();
    match shape {
        Some(shape) => reshaped(call, shape),
        None => bad("an axis stands there twice"),
    }
}

fn expand(call: &Call<'_>) -> Flow<Outcome> {
    let shape = broadcast(call.shape(0)?, &shape_in(call, 1)?)?;
    let data = spread(call.needed(0)?, &shape);
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

fn tile(call: &Call<'_>) -> Flow<Outcome> {
    let (input, times) = (call.shape(0)?, shape_in(call, 1)?);
    if input.len() != times.len() {
        return bad(format!("{} cannot be repeated {} times", show(input), show(&times)));
    }
    let shape: Vec<u64> = input
        .iter()
        .zip(&times)
        .map(|(dim, times)| product([*dim, *times]))
        .collect::<Flow<_>>()?;
    // A vector is enough for the shapes that exporters compute.
    let data = match (&call.needed(0)?.data, input, shape.as_slice()) {
        (Some(data), [_], [total]) => match usize::try_from(*total) {
            Ok(total) if total <= MOST_VALUES => data.pick((0..total).map(|at| at.checked_rem(data.len()))),
            _ => None,
        },
        _ => None,
    };
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

/// A shape with these axes reduced.
fn without(input: &[u64], axes: &[usize], keep: bool) -> Vec<u64> {
    let dims = input.iter().enumerate();
    dims.filter_map(|(at, dim)| match (axes.contains(&at), keep) {
        (false, _) => Some(*dim),
        (true, true) => Some(1),
        (true, false) => None,
    })
    .collect()
}

/// Of each matrix. How much work it is depends on the algorithm, so that it is listed.
fn det(call: &Call<'_>) -> Flow<Outcome> {
    match call.shape_of_rank(0, 2)? {
        [outer @ .., _, _] => Ok(Outcome::of(outer)),
        _ => bad("its input is not a matrix"),
    }
}

pub fn reduce(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let axes = call.ints_either(1, "axes")?.filter(|axes| !axes.is_empty());
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?,
        None if call.flag("noop_with_empty_axes") => return identity(call),
        None => (0..input.len()).collect(),
    };
    let shape = without(input, &axes, call.int("keepdims").unwrap_or(1) != 0);
    let whole = axes.len() == input.len();
    let data = match &call.needed(0)?.data {
        Some(Data::Ints(values)) if whole => match call.op {
            "ReduceProd" => values.iter().try_fold(1i64, |all, value| all.checked_mul(*value)),
            "ReduceSum" => values.iter().try_fold(0i64, |all, value| all.checked_add(*value)),
            "ReduceMax" => values.iter().max().copied(),
            "ReduceMin" => values.iter().min().copied(),
            _ => None,
        },
        _ => None,
    };
    let data = data.map(|value| Data::Ints([value].into()));
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

fn arg(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let at = call.axis(0, input.len())?;
    Ok(Outcome::of(without(
        input,
        &[at],
        call.int("keepdims").unwrap_or(1) != 0,
    )))
}

fn multinomial(call: &Call<'_>) -> Flow<Outcome> {
    match call.shape_of_rank(0, 2)?.first() {
        Some(batch) => Ok(Outcome::of([*batch, call.count("sample_size").unwrap_or(1)])),
        None => unknown("its batch is not known"),
    }
}
