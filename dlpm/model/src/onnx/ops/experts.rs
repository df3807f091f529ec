//! Mixtures of experts: each token is multiplied with the weights of the `k` experts that a router chose for it.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Stop, bad, product},
};

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "MoE" => experts(call, [2, 4, 6]),
        "QMoE" => experts(call, [2, 5, 8]),
        _ => return None,
    })
}

/// Tokens × k × the weights of one expert. The weights of all experts lie in one tensor each; where they are packed, the length
/// of their rows is that of the vectors that meet them.
fn experts(call: &Call<'_>, weights_at: [usize; 3]) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 2)?;
    let Some((width, outer)) = input.split_last() else {
        return bad("its input is a scalar");
    };
    let tokens = product(outer.iter().copied())?;
    let [first, second, third] = weights_at;
    let rows = |at: usize| -> Flow<u64> {
        match call.shape(at)? {
            [_, rows, _] => Ok(*rows),
            _ => bad(format!("the weights in its input {at} do not have three dimensions")),
        }
    };
    // Gate and value side by side, where they are fused, are twice as many rows as the second product has columns.
    let outer_rows = rows(first)?;
    let fused = call.int("swiglu_fusion").unwrap_or(0) != 0;
    let inner = if fused { outer_rows / 2 } else { outer_rows };
    let mut of_one = product([outer_rows, *width])?;
    let mut add = |more: u64| match of_one.checked_add(more) {
        Some(sum) => {
            of_one = sum;
            Ok(())
        }
        None => bad("a product of dimensions has more than 64 bits"),
    };
    add(product([rows(second)?, inner])?)?;
    if call.input(third).is_some() {
        add(product([rows(third)?, *width])?)?;
    }
    let Some(chosen) = call.count("k").or(Some(1)).filter(|k| *k > 0) else {
        return Err(Stop::Bad("`k` is not above 0".to_owned()));
    };
    Ok(Outcome::counted(input, product([tokens, chosen, of_one])?))
}
