//! Operators whose first output has the shape of their first input.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor},
};

const SAME: [&str; 66] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "Bernoulli",
    "BitwiseNot",
    "Celu",
    "Ceil",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "EyeLike",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "QuantizeLinear",
    "RMSNormalization",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "Relu",
    "ReverseSequence",
    "RotaryEmbedding",
    "Round",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
];

const SAME_TOO: [&str; 6] = [
    "Tanh",
    "TensorScatter",
    "ThresholdedRelu",
    "Trilu",
    "Binarizer",
    "CastLike",
];

/// ONNX Runtime's operators of the kind.
const CONTRIB: [&str; 11] = [
    "BiasGelu",
    "FastGelu",
    "Gelu",
    "QuickGelu",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization",
    "LayerNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "RotaryEmbedding",
];

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    (SAME.contains(&call.op) || SAME_TOO.contains(&call.op)).then(|| same(call))
}

/// Whether an operator of ONNX Runtime belongs to this family.
pub fn is_contrib(op: &str) -> bool {
    CONTRIB.contains(&op)
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    is_contrib(call.op).then(|| same(call))
}

fn same(call: &Call<'_>) -> Flow<Outcome> {
    let shape = call.shape(0)?;
    let mut output = Tensor::of(shape);
    if let Some(data) = &call.needed(0)?.data {
        output = output.with(super::arithmetic::fold_one(call, data));
    }
    let mut outcome = Outcome::one(output);
    match call.op {
        // The mask.
        "Dropout" => outcome.outputs.push(Tensor::of(shape)),
        // With the statistics of a training pass.
        "BatchNormalization" if call.outputs > 1 => {
            let channels = call.input(3).cloned().unwrap_or_default();
            let statistics = Tensor {
                shape: channels.shape,
                ..Tensor::default()
            };
            outcome.outputs.extend(vec![statistics; call.outputs - 1]);
        }
        _ => {}
    }
    Ok(outcome)
}
