//! Fourier transforms and windows. By definition they have no operations that count.

use super::super::{
    call::{Call, Outcome, count},
    value::{Flow, axis, bad, show, unknown},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "DFT" => dft(call),
        "STFT" => stft(call),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => size(call, 0).map(|size| Outcome::of([size])),
        "MelWeightMatrix" => mel(call),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Rfft" => one_sided(call, true),
        "Irfft" => one_sided(call, false),
        _ => return None,
    })
}

fn size(call: &Call<'_>, at: usize) -> Flow<u64> {
    match call.ints_of(at)?.first() {
        Some(size) => count(*size, "size"),
        None => bad(format!("its input {at} is empty")),
    }
}

/// The axis is cut or padded to the length of the transform; one-sided, half of the result is left out, or was left out before.
/// The last dimension is 1 or 2: real, or real and imaginary.
fn dft(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 2)?;
    let at = match call.input(2) {
        Some(_) => match call.ints_of(2)?.first() {
            Some(at) => axis(*at, input.len())?,
            None => return bad("its axis is empty"),
        },
        // An attribute until version 19, whose default was 1; then an input, whose default is -2.
        None => call.axis(if call.opset < 20 { 1 } else { -2 }, input.len())?,
    };
    let (inverse, one_sided) = (call.flag("inverse"), call.flag("onesided"));
    let mut shape = input.to_vec();
    let (Some(parts), Some(of_axis)) = (input.last(), input.get(at)) else {
        return bad("its input is a scalar");
    };
    let length = match call.input(1) {
        Some(_) => size(call, 1)?,
        None if inverse && one_sided => of_axis.saturating_sub(1).saturating_mul(2),
        None => *of_axis,
    };
    let real_result = inverse && one_sided;
    if !(1..=2).contains(parts) {
        return bad(format!("the last dimension of {} is not 1 or 2", show(input)));
    }
    if let Some(last) = shape.last_mut() {
        *last = if real_result { 1 } else { 2 };
    }
    if let Some(dim) = shape.get_mut(at) {
        *dim = if one_sided && !inverse { length / 2 + 1 } else { length };
    }
    Ok(Outcome::of(shape))
}

/// Batch × frames × frequencies × 2.
fn stft(call: &Call<'_>) -> Flow<Outcome> {
    let signal = call.shape_of_rank(0, 2)?;
    let step = size(call, 1)?;
    let frame = match (call.input(3), call.input(2)) {
        (Some(_), _) => size(call, 3)?,
        (None, Some(_)) => match call.shape(2)? {
            [length] => *length,
            other => return bad(format!("its window is {}", show(other))),
        },
        (None, None) => return bad("it has neither a window nor the length of a frame"),
    };
    let [batch, length, ..] = signal else {
        return bad("its signal has no length");
    };
    let Some(frames) = length.checked_sub(frame).and_then(|free| free.checked_div(step)) else {
        return bad(format!("a frame of {frame} does not fit a signal of {length}"));
    };
    let one_sided = call.int("onesided").unwrap_or(1) != 0;
    let frequencies = if one_sided { frame / 2 + 1 } else { frame };
    Ok(Outcome::of([*batch, frames.saturating_add(1), frequencies, 2]))
}

fn mel(call: &Call<'_>) -> Flow<Outcome> {
    let (bins, length) = (size(call, 0)?, size(call, 1)?);
    Ok(Outcome::of([length / 2 + 1, bins]))
}

/// Of the last dimension.
fn one_sided(call: &Call<'_>, forward: bool) -> Flow<Outcome> {
    if call.int("signal_ndim").unwrap_or(1) != 1 {
        return unknown("it transforms several dimensions at once");
    }
    let input = call.shape_of_rank(0, 2)?;
    match input {
        [outer @ .., length] if forward => {
            let mut shape = outer.to_vec();
            shape.extend([length / 2 + 1, 2]);
            Ok(Outcome::of(shape))
        }
        [outer @ .., half, 2] => {
            let mut shape = outer.to_vec();
            shape.push(half.saturating_sub(1).saturating_mul(2));
            Ok(Outcome::of(shape))
        }
        other => bad(format!("the last dimension of {} is not 2", show(other))),
    }
}
