//! Recurrent layers.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor, bad, product, show},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    matches!(call.op, "LSTM" | "GRU" | "RNN").then(|| with_weights(call, false))
}

/// In every step and for every sequence, each weight of the input and of the state is used once. Quantised weights are
/// transposed: directions × inputs × gates.
pub fn with_weights(call: &Call<'_>, transposed: bool) -> Flow<Outcome> {
    let (input, weights, states) = (call.shape(0)?, call.shape(1)?, call.shape(2)?);
    let ([first, second, size], [directions, one, other], [_, state_one, state_other]) = (input, weights, states)
    else {
        return bad(format!(
            "{} with weights of {} is not a sequence",
            show(input),
            show(weights)
        ));
    };
    let (gates, weight_size, state_gates, hidden) = if transposed {
        (other, one, state_other, state_one)
    } else {
        (one, other, state_one, state_other)
    };
    if weight_size != size || gates != state_gates {
        return bad(format!("{} does not go with weights of {}", show(input), show(weights)));
    }
    let batch_first = call.flag("layout");
    let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
    let of_input = product([*steps, *batch, *directions, *gates, *size])?;
    let of_state = product([*steps, *batch, *directions, *gates, *hidden])?;
    let Some(mult_adds) = of_input.checked_add(of_state) else {
        return bad("a product of dimensions has more than 64 bits");
    };
    let (all, last) = if batch_first {
        ([*batch, *steps, *directions, *hidden], [*batch, *directions, *hidden])
    } else {
        ([*steps, *directions, *batch, *hidden], [*directions, *batch, *hidden])
    };
    Ok(Outcome {
        outputs: vec![Tensor::of(all), Tensor::of(last), Tensor::of(last)],
        mult_adds: Some(mult_adds),
    })
}
