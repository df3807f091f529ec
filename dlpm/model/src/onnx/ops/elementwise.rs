//! Operators whose first output has the shape of their first input.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor},
};

const SAME: [&str; 61] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
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
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "IsInf",
    "IsNaN",
    "LRN",
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

const SAME_TOO: [&str; 7] = [
    "Tanh",
    "TensorScatter",
    "ThresholdedRelu",
    "Trilu",
    "Binarizer",
    "CastLike",
    "RegexFullMatch",
];

/// ONNX Runtime's operators of the kind.
const CONTRIB: [&str; 13] = [
    "BiasAdd",
    "BiasDropout",
    "BiasGelu",
    "BiasSoftmax",
    "FastGelu",
    "Gelu",
    "GemmaRotaryEmbedding",
    "IsAllFinite",
    "NGramRepeatBlock",
    "QuickGelu",
    "RotaryEmbedding",
    "ScaledSiLU",
    "Trilu",
];

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    (SAME.contains(&call.op) || SAME_TOO.contains(&call.op)).then(|| same(call))
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    CONTRIB.contains(&call.op).then(|| same(call))
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
        "Dropout" | "BiasDropout" => outcome.outputs.push(Tensor::of(shape)),
        _ => {}
    }
    Ok(outcome)
}
