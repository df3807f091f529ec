//! Losses, and other operators that newer versions of ONNX added.

use super::super::{
    call::{Call, Outcome, count},
    value::{Flow, Tensor, axis, bad, product, show},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => loss(call),
        "CenterCropPad" => crop_or_pad(call),
        "CumProd" | "SwiGLU" => call.shape(0).map(Outcome::of),
        "BitCast" => call.shape(0).map(Outcome::of),
        "CausalConvWithState" => causal(call),
        _ => return None,
    })
}

/// One number, or one for each label; the logarithms of the probabilities are the second output.
fn loss(call: &Call<'_>) -> Flow<Outcome> {
    let (scores, labels) = (call.shape(0)?, call.shape(1)?);
    let loss = if call.text("reduction") == "none" {
        Tensor::of(labels)
    } else {
        Tensor::of([])
    };
    Ok(Outcome {
        outputs: vec![loss, Tensor::of(scores)],
        mult_adds: None,
    })
}

fn crop_or_pad(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let wanted = call.ints_of(1)?;
    let axes: Vec<usize> = match call.ints("axes") {
        Some(axes) => axes.iter().map(|at| axis(*at, input.len())).collect::<Flow<_>>()?,
        None => (0..input.len()).collect(),
    };
    if axes.len() != wanted.len() {
        return bad(format!("{} sizes are not for {} axes", wanted.len(), axes.len()));
    }
    let mut shape = input.to_vec();
    for (at, size) in axes.iter().zip(wanted) {
        if let Some(dim) = shape.get_mut(*at) {
            *dim = count(*size, "shape")?;
        }
    }
    Ok(Outcome::of(shape))
}

/// A convolution of each channel with its own kernel, over what was before and what is now.
fn causal(call: &Call<'_>) -> Flow<Outcome> {
    let (input, weights) = (call.shape(0)?, call.shape(1)?);
    let ([batch, channels, length], [weight_channels, 1, kernel]) = (input, weights) else {
        return bad(format!("{} does not go with weights of {}", show(input), show(weights)));
    };
    if channels != weight_channels {
        return bad(format!(
            "{channels} channels do not go with weights of {}",
            show(weights)
        ));
    }
    Ok(Outcome {
        outputs: vec![
            Tensor::of(input),
            Tensor::of([*batch, *channels, kernel.saturating_sub(1)]),
        ],
        mult_adds: Some(product([*batch, *channels, *length, *kernel])?),
    })
}
