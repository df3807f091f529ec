//! What each operator makes of shapes and small values, and how many multiply-accumulate operations it has.
//!
//! Shapes and meanings are those of ONNX's operator list (<https://onnx.ai/onnx/operators/>).

mod arithmetic;
mod attention;
mod elementwise;
mod experts;
mod fused_attention;
mod indexing;
mod layout;
mod losses;
mod matrix;
mod normalise;
mod quantised;
mod recurrent;
pub mod sequences;
mod shapes;
mod signal;
mod traditional;
mod training;
mod windows;

use super::{
    call::{Call, Outcome},
    data_type,
    parameters::Role,
    value::{Flow, Stop, elements},
};

/// Domains whose operators are ONNX's own.
pub fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// The rules of some operators; `None` where it has none for one.
type Family = fn(&Call<'_>) -> Option<Flow<Outcome>>;

const STANDARD: [Family; 14] = [
    elementwise::evaluate,
    arithmetic::evaluate,
    matrix::evaluate,
    windows::evaluate,
    shapes::evaluate,
    layout::evaluate,
    indexing::evaluate,
    normalise::evaluate,
    recurrent::evaluate,
    attention::evaluate,
    quantised::evaluate,
    sequences::evaluate,
    signal::evaluate,
    losses::evaluate,
];

const CONTRIB: [Family; 9] = [
    elementwise::evaluate_contrib,
    matrix::evaluate_contrib,
    windows::evaluate_contrib,
    normalise::evaluate_contrib,
    fused_attention::evaluate_contrib,
    quantised::evaluate_contrib,
    experts::evaluate_contrib,
    signal::evaluate_contrib,
    indexing::evaluate_contrib,
];

fn families(domain: &str) -> &'static [Family] {
    match domain {
        "com.microsoft" => &CONTRIB,
        "com.microsoft.nchwc" => &[windows::evaluate_blocked],
        windows::CHANNELS_LAST => &[windows::evaluate_channels_last],
        "ai.onnx.ml" => &[traditional::evaluate],
        "ai.onnx.preview" => &[attention::evaluate],
        training::DOMAIN => &[training::evaluate],
        _ if is_standard(domain) => &STANDARD,
        _ => &[],
    }
}

/// Evaluates an operator.
///
/// # Errors
///
/// Why there is no result; its operations are then not counted.
pub fn evaluate(call: &Call<'_>) -> Flow<Outcome> {
    families(call.domain)
        .iter()
        .find_map(|family| family(call))
        .unwrap_or_else(|| Err(Stop::Unsupported("dlpm has no rule for it".to_owned())))
}

/// Whether an operator may have operations that count, so that it must be listed where its shapes are not known.
pub fn is_counted(domain: &str, op: &str) -> bool {
    const COUNTED: [&str; 18] = [
        "Attention",
        "CausalConvWithState",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "FlexAttention",
        "GRU",
        "Gemm",
        "LSTM",
        "LinearAttention",
        "LinearClassifier",
        "LinearRegressor",
        "MatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "RNN",
    ];
    /// Parts of the names of ONNX Runtime's operators.
    const PARTS: [&str; 8] = ["MatMul", "Gemm", "Conv", "Attention", "LSTM", "MoE", "Gated", "SVM"];
    if COUNTED.contains(&op) || PARTS.iter().any(|part| op.contains(part)) {
        return true;
    }
    // Of an operator that nobody knows, nobody knows whether it has products.
    !is_standard(domain) && !DOMAINS.contains(&domain)
}

/// Domains whose operators are known by name.
const DOMAINS: [&str; 5] = [
    "com.microsoft",
    "com.microsoft.nchwc",
    windows::CHANNELS_LAST,
    "ai.onnx.ml",
    training::DOMAIN,
];

/// As what an operator reads a constant in this place: statistics of a batch normalisation, and scales and zero points of
/// quantised values, are not parameters.
pub fn role(op: &str, at: usize) -> Role {
    let only = |places: &[usize]| {
        if places.contains(&at) {
            Role::Parameter
        } else {
            Role::Scale
        }
    };
    match op {
        "BatchNormalization" if matches!(at, 3 | 4) => Role::Statistic,
        // Of any type: the biases of quantised layers are integers of 32 bits.
        "DequantizeLinear" if at == 0 => Role::Weight,
        "QLinearConv" if at == 8 => Role::Weight,
        "QGemm" if at == 6 => Role::Weight,
        "QAttention" if at == 2 => Role::Weight,
        "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" => only(&[0]),
        "QLinearConv" => only(&[0, 3, 8]),
        "QLinearMatMul" | "QLinearAdd" | "QLinearMul" | "QGemm" => only(&[0, 3]),
        "QLinearConcat" => {
            if at >= 2 && at % 3 == 2 {
                Role::Parameter
            } else {
                Role::Scale
            }
        }
        op if op.starts_with("QLinear") => only(&[0]),
        "ConvInteger" | "MatMulInteger" => only(&[0, 1]),
        "MatMulIntegerToFloat" => only(&[0, 1, 6]),
        "DynamicQuantizeMatMul" => only(&[0, 1, 4]),
        "DynamicQuantizeLSTM" => only(&[0, 1, 2, 3, 5, 6, 7]),
        "QAttention" => only(&[0, 1]),
        "MatMulNBits" | "MatMulBnb4" => match at {
            0 | 1 | 5 => Role::Parameter,
            _ => Role::Scale,
        },
        "GatherBlockQuantized" => only(&[0]),
        "QMoE" => match at {
            0 | 1 | 2 | 4 | 5 | 7 | 8 | 10 => Role::Parameter,
            _ => Role::Scale,
        },
        "QEmbedLayerNormalization" => match at {
            0..=7 => Role::Parameter,
            _ => Role::Scale,
        },
        _ => Role::Parameter,
    }
}

/// How many weights a constant in this place holds, where several lie in one element.
pub fn packed_weights(call: &Call<'_>, at: usize, data_type: i64) -> Option<u64> {
    let elements = || {
        let shape = call.input(at)?.shape.as_deref()?;
        elements(shape).ok()
    };
    match (call.op, at) {
        ("MatMulNBits" | "MatMulBnb4", 1) => call.count("K")?.checked_mul(call.count("N")?),
        ("GatherBlockQuantized", 0) => {
            let bits = call.count("bits").unwrap_or(4);
            match data_type::bits(data_type) {
                Some(8) if bits < 8 => elements()?.checked_mul(8u64.checked_div(bits)?),
                _ => None,
            }
        }
        ("QMoE", 2 | 5 | 8) => {
            let bits = call.count("expert_weight_bits").unwrap_or(4);
            elements()?.checked_mul(8u64.checked_div(bits)?.max(1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
