//! Normalisations, also fused with the sum before them, and their further outputs.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor, axis, bad, show},
};

/// Evaluates an operator of this family. ONNX Runtime's simplified forms also stand in the standard domain, where its own
/// optimiser writes them.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "LayerNormalization" | "SimplifiedLayerNormalization" | "RMSNormalization" => layer(call),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip(call, 0),
        "BatchNormalization" => batch(call),
        "GroupNormalization" | "InstanceNormalization" => call.shape(0).map(Outcome::of),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "EmbedLayerNormalization" => embedding(call, 2, 3),
        "QEmbedLayerNormalization" => embedding(call, 2, 3),
        "GroupNorm" => call.shape(0).map(Outcome::of),
        "SkipGroupNorm" => call.shape(0).map(|shape| Outcome {
            outputs: vec![Tensor::of(shape); 2],
            mult_adds: None,
        }),
        _ => return evaluate(call),
    })
}

/// Mean and deviation have 1 in place of what is normalised.
fn layer(call: &Call<'_>) -> Flow<Outcome> {
    let shape = call.shape(0)?;
    let mut outputs = vec![Tensor::of(shape)];
    if call.outputs > 1 {
        let from = axis(call.int("axis").unwrap_or(-1), shape.len())?;
        let dims = shape.iter().enumerate();
        let statistics: Vec<u64> = dims.map(|(at, dim)| if at < from { *dim } else { 1 }).collect();
        outputs.extend([Tensor::of(statistics.as_slice()), Tensor::of(statistics)]);
    }
    Ok(Outcome {
        outputs,
        mult_adds: None,
    })
}

/// The sum of input and skip is the fourth output.
fn skip(call: &Call<'_>, at: usize) -> Flow<Outcome> {
    let shape = call.shape(at)?;
    let Some((_, outer)) = shape.split_last() else {
        return bad("its input is a scalar");
    };
    let statistics: Vec<u64> = outer.iter().copied().chain([1]).collect();
    Ok(Outcome {
        outputs: vec![
            Tensor::of(shape),
            Tensor::of(statistics.as_slice()),
            Tensor::of(statistics),
            Tensor::of(shape),
        ],
        mult_adds: None,
    })
}

/// With the statistics of a training pass.
fn batch(call: &Call<'_>) -> Flow<Outcome> {
    let mut outputs = vec![Tensor::of(call.shape(0)?)];
    if call.outputs > 1 {
        let channels = Tensor::of(call.shape(3)?);
        outputs.extend(vec![channels; call.outputs - 1]);
    }
    Ok(Outcome {
        outputs,
        mult_adds: None,
    })
}

/// Words and positions are looked up, added and normalised; the sum before that is the third output.
fn embedding(call: &Call<'_>, words_at: usize, positions_at: usize) -> Flow<Outcome> {
    let (ids, words) = (call.shape(0)?, call.shape(words_at)?);
    call.shape(positions_at)?;
    let ([batch, length], [_, width]) = (ids, words) else {
        return bad(format!(
            "words of {} do not go with a table of {}",
            show(ids),
            show(words)
        ));
    };
    let embedded = Tensor::of([*batch, *length, *width]);
    Ok(Outcome {
        outputs: vec![embedded.clone(), Tensor::of([*batch]), embedded],
        mult_adds: None,
    })
}
