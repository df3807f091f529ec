//! Operators that move elements: permutations, concatenation, padding, other sizes of images.

use super::super::{
    call::{Call, Outcome, count},
    value::{Data, Flow, MOST_VALUES, Tensor, axis, bad, elements, product, show},
};
use super::arithmetic::to_int;

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Transpose" => transpose(call),
        "Concat" => concat(call),
        "Split" => split(call),
        "Pad" => pad(call),
        "DepthToSpace" => depth_to_space(call),
        "SpaceToDepth" => space_to_depth(call),
        "Resize" | "Upsample" => resize(call),
        "GridSample" => grid_sample(call),
        "AffineGrid" => affine_grid(call),
        _ => return None,
    })
}

/// Distance of neighbours along each axis, in elements.
fn strides(shape: &[u64]) -> Flow<Vec<u64>> {
    (1..=shape.len())
        .map(|from| elements(shape.get(from..).unwrap_or_default()))
        .collect()
}

fn transpose(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let order: Vec<usize> = match call.ints("perm").filter(|perm| !perm.is_empty()) {
        Some(perm) => perm.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?,
        None => (0..input.len()).rev().collect(),
    };
    let dims: Option<Vec<u64>> = order.iter().map(|at| input.get(*at).copied()).collect();
    let Some(shape) = dims.filter(|dims| dims.len() == input.len()) else {
        return bad(format!("`perm` is not an order of the dimensions of {}", show(input)));
    };
    let data = match &call.needed(0)?.data {
        Some(data) => {
            let from = strides(input)?;
            data.pick((0..data.len()).map(|flat| {
                let (mut rest, mut position) = (flat as u64, 0);
                for (at, dim) in order.iter().zip(&shape).rev() {
                    position += rest.checked_rem(*dim)? * from.get(*at)?;
                    rest = rest.checked_div(*dim)?;
                }
                usize::try_from(position).ok()
            }))
        }
        None => None,
    };
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

fn concat(call: &Call<'_>) -> Flow<Outcome> {
    let first = call.shape(0)?;
    let at = call.axis(1, first.len())?;
    let mut shape = first.to_vec();
    for other in 1..call.inputs.len() {
        let next = call.shape(other)?;
        if !joined(&mut shape, next, at) {
            return bad(format!(
                "{} and {} cannot be joined at axis {at}",
                show(first),
                show(next)
            ));
        }
    }
    let parts: Option<Vec<&Data>> = call.inputs.iter().map(|input| input.as_ref()?.data.as_ref()).collect();
    let data = parts
        .filter(|_| first.len() == 1)
        .and_then(|parts| Data::concat(parts.into_iter()));
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

/// Adds the length of `next` at one axis; whether the two fit.
pub fn joined(shape: &mut [u64], next: &[u64], at: usize) -> bool {
    let dims = next.iter().zip(shape.iter()).enumerate();
    let fits = next.len() == shape.len() && dims.into_iter().all(|(axis, (a, b))| axis == at || a == b);
    match (shape.get_mut(at), next.get(at)) {
        (Some(total), Some(more)) if fits => match total.checked_add(*more) {
            Some(sum) => {
                *total = sum;
                true
            }
            None => false,
        },
        _ => false,
    }
}

fn split(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let at = call.axis(0, input.len())?;
    let size = input.get(at).copied().unwrap_or_default();
    let parts = match call.ints_either(1, "split")? {
        Some(parts) => parts
            .iter()
            .map(|part| count(*part, "split"))
            .collect::<Flow<Vec<_>>>()?,
        None => {
            let parts = call.count("num_outputs").unwrap_or(call.outputs as u64).max(1);
            if parts > call.outputs.max(1) as u64 {
                return bad(format!("it splits in {parts}, but has {} outputs", call.outputs));
            }
            let each = size.div_ceil(parts);
            (0..parts)
                .map(|part| size.saturating_sub(part.saturating_mul(each)).min(each))
                .collect()
        }
    };
    let total = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part));
    if total != Some(size) {
        return bad(format!("its parts do not add up to the {size} of axis {at}"));
    }
    let mut begin = 0u64;
    let mut outputs = Vec::new();
    for part in parts.into_iter().take(call.outputs) {
        let mut shape = input.to_vec();
        if let Some(dim) = shape.get_mut(at) {
            *dim = part;
        }
        let data = match &call.needed(0)?.data {
            Some(data) if input.len() == 1 => {
                data.pick((begin..begin.saturating_add(part)).map(|position| usize::try_from(position).ok()))
            }
            _ => None,
        };
        begin += part;
        outputs.push(Tensor::of(shape).with(data));
    }
    Ok(Outcome {
        outputs,
        mult_adds: None,
    })
}

fn pad(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let Some(pads) = call.ints_either(1, if call.opset < 2 { "paddings" } else { "pads" })? else {
        return bad("it has no pads");
    };
    let axes: Vec<usize> = if call.input(3).is_some() {
        let axes = call.ints_of(3)?.iter();
        axes.map(|at| axis(*at, input.len())).collect::<Flow<_>>()?
    } else {
        (0..input.len()).collect()
    };
    if pads.len() != 2 * axes.len() {
        return bad(format!("{} pads are not for {} dimensions", pads.len(), axes.len()));
    }
    let (begins, ends) = pads.split_at(axes.len());
    let mut shape = input.to_vec();
    for (at, (begin, end)) in axes.iter().zip(begins.iter().zip(ends)) {
        if let Some(dim) = shape.get_mut(*at) {
            let padded = i128::from(*dim) + i128::from(*begin) + i128::from(*end);
            match u64::try_from(padded) {
                Ok(padded) => *dim = padded,
                Err(_) => return bad(format!("its pads leave nothing of dimension {at} of {}", show(input))),
            }
        }
    }
    // A vector with zeros, as exporters pad the pads themselves.
    let constant = matches!(call.text("mode"), "" | "constant") && (call.input(2).is_none() || fills_with_zero(call));
    let data = match (&call.needed(0)?.data, pads.as_slice(), shape.as_slice()) {
        (Some(Data::Ints(values)), [begin, _], [total]) if constant && *total <= MOST_VALUES as u64 => {
            let at = |position: i64| usize::try_from(position).ok().and_then(|at| values.get(at).copied());
            let total = i64::try_from(*total).unwrap_or_default();
            let padded = (0..total).map(|position| at(position.saturating_sub(*begin)).unwrap_or(0));
            Some(Data::Ints(padded.collect()))
        }
        _ => None,
    };
    Ok(Outcome::one(Tensor::of(shape).with(data)))
}

fn fills_with_zero(call: &Call<'_>) -> bool {
    matches!(call.data(2), Ok(data) if data.floats() == [0.0])
}

fn blocks<'a>(call: &'a Call<'_>) -> Flow<(&'a [u64], u64)> {
    let input = call.shape_of_rank(0, 4)?;
    match call.count("blocksize") {
        Some(block @ 1..) => Ok((input, block)),
        _ => bad("it has no blocksize"),
    }
}

fn depth_to_space(call: &Call<'_>) -> Flow<Outcome> {
    let ([batch, channels, height, width], block) = blocks(call)? else {
        return bad("its input does not have four dimensions");
    };
    let area = product([block, block])?;
    let rows = product([*height, block])?;
    let columns = product([*width, block])?;
    Ok(Outcome::of([*batch, channels / area.max(1), rows, columns]))
}

fn space_to_depth(call: &Call<'_>) -> Flow<Outcome> {
    let ([batch, channels, height, width], block) = blocks(call)? else {
        return bad("its input does not have four dimensions");
    };
    let channels = product([*channels, block, block])?;
    Ok(Outcome::of([*batch, channels, height / block, width / block]))
}

fn resize(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let axes: Vec<usize> = match call.ints("axes").filter(|axes| !axes.is_empty()) {
        Some(axes) => axes.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?,
        None => (0..input.len()).collect(),
    };
    // Upsample and Resize of version 10: scales are input 1; later roi, scales, sizes.
    let old = call.op == "Upsample" || call.opset < 11;
    let scales_at = if old { 1 } else { 2 };
    let has_sizes = !old && call.input(3).is_some_and(|sizes| sizes.shape.as_deref() != Some(&[0]));
    let mut shape = input.to_vec();
    if has_sizes {
        let sizes = call.ints_of(3)?.iter().map(|size| count(*size, "sizes"));
        let sizes = sizes.collect::<Flow<Vec<u64>>>()?;
        let scale = common_scale(call.text("keep_aspect_ratio_policy"), input, &axes, &sizes);
        for (at, size) in axes.iter().zip(sizes) {
            if let Some(dim) = shape.get_mut(*at) {
                *dim = scale.map_or(size, |scale| scaled(*dim, scale));
            }
        }
        return Ok(Outcome::of(shape));
    }
    let scales = match call.attribute("scales") {
        Some(attribute) => attribute.floats.clone(),
        None => call.data(scales_at)?.floats(),
    };
    if scales.len() != axes.len() {
        return bad(format!("{} scales are not for {} dimensions", scales.len(), axes.len()));
    }
    for (at, scale) in axes.iter().zip(scales) {
        if let Some(dim) = shape.get_mut(*at) {
            #[expect(clippy::cast_precision_loss, reason = "ONNX computes this in floats")]
            let scaled = (*dim as f64 * scale).floor();
            *dim = u64::try_from(to_int(scaled)).unwrap_or_default();
        }
    }
    Ok(Outcome::of(shape))
}

/// The scale of all sides where their ratio is kept: the smallest or the largest of those that were asked for.
#[expect(clippy::cast_precision_loss, reason = "ONNX computes this in floats")]
fn common_scale(policy: &str, input: &[u64], axes: &[usize], sizes: &[u64]) -> Option<f64> {
    let scales = axes.iter().zip(sizes).filter_map(|(at, size)| {
        let dim = input.get(*at).filter(|dim| **dim > 0)?;
        Some(*size as f64 / *dim as f64)
    });
    match policy {
        "not_larger" => scales.reduce(f64::min),
        "not_smaller" => scales.reduce(f64::max),
        _ => None,
    }
}

/// Halves are rounded up.
#[expect(clippy::cast_precision_loss, reason = "ONNX computes this in floats")]
fn scaled(dim: u64, scale: f64) -> u64 {
    u64::try_from(to_int((dim as f64 * scale + 0.5).floor())).unwrap_or_default()
}

fn grid_sample(call: &Call<'_>) -> Flow<Outcome> {
    let (input, grid) = (call.shape_of_rank(0, 3)?, call.shape_of_rank(1, 3)?);
    let ([batch, channels, ..], [_, spatial @ .., _]) = (input, grid) else {
        return bad("it has no channels");
    };
    let mut shape = vec![*batch, *channels];
    shape.extend_from_slice(spatial);
    Ok(Outcome::of(shape))
}

fn affine_grid(call: &Call<'_>) -> Flow<Outcome> {
    let size: Vec<u64> = call
        .ints_of(1)?
        .iter()
        .map(|dim| count(*dim, "size"))
        .collect::<Flow<_>>()?;
    let [batch, _, spatial @ ..] = size.as_slice() else {
        return bad("its size has no channels");
    };
    let mut shape = vec![*batch];
    shape.extend_from_slice(spatial);
    shape.push(spatial.len() as u64);
    Ok(Outcome::of(shape))
}
