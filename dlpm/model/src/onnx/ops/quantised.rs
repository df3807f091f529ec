//! Quantised operators of ONNX and ONNX Runtime: those with scales and zero points as inputs of their own.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor, axis, bad, broadcast, show},
};
use super::{layout::joined, matrix, recurrent, shapes, windows};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    (call.op == "DynamicQuantizeLinear").then(|| dynamic(call))
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "QLinearAdd" | "QLinearMul" => two(call, [0, 3]),
        "QLinearWhere" => three(call),
        "QLinearConcat" => concat(call),
        "QLinearAveragePool" => windows::pool(call),
        "QLinearGlobalAveragePool" => windows::global_pool(call),
        "QLinearReduceMean" => shapes::reduce(call),
        "QLinearConv" => windows::conv(call, 3),
        "QGemm" => matrix::gemm(call, 0, 3),
        "QLinearLeakyRelu"
        | "QLinearSigmoid"
        | "QLinearSoftmax"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "QuantizeWithOrder"
        | "DequantizeWithOrder"
        | "QOrderedGelu"
        | "QOrderedLayerNormalization"
        | "QuantizeBFP"
        | "DequantizeBFP" => call.shape(0).map(Outcome::of),
        "QOrderedMatMul" => matrix::multiply(call, 0, 2),
        "DynamicQuantizeLSTM" => recurrent::with_weights(call, true),
        _ => return None,
    })
}

/// The quantised tensor, its scale and its zero point.
fn dynamic(call: &Call<'_>) -> Flow<Outcome> {
    Ok(Outcome {
        outputs: vec![Tensor::of(call.shape(0)?), Tensor::of([]), Tensor::of([])],
        mult_adds: None,
    })
}

fn two(call: &Call<'_>, at: [usize; 2]) -> Flow<Outcome> {
    Ok(Outcome::of(broadcast(call.shape(at[0])?, call.shape(at[1])?)?))
}

fn three(call: &Call<'_>) -> Flow<Outcome> {
    let values = broadcast(call.shape(1)?, call.shape(4)?)?;
    Ok(Outcome::of(broadcast(call.shape(0)?, &values)?))
}

/// Scale and zero point of the result, then each part with its own.
fn concat(call: &Call<'_>) -> Flow<Outcome> {
    let first = call.shape(2)?;
    let at = axis(call.int("axis").unwrap_or(1), first.len())?;
    let mut shape = first.to_vec();
    for other in (5..call.inputs.len()).step_by(3) {
        let next = call.shape(other)?;
        if !joined(&mut shape, next, at) {
            return bad(format!(
                "{} and {} cannot be joined at axis {at}",
                show(first),
                show(next)
            ));
        }
    }
    Ok(Outcome::of(shape))
}
