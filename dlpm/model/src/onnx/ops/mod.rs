//! What each operator makes of shapes and small values, and how many multiply-accumulate operations it has.
//!
//! Shapes and meanings are those of ONNX's operator list (<https://onnx.ai/onnx/operators/>).

mod arithmetic;
mod attention;
mod elementwise;
mod indexing;
mod layout;
mod matrix;
mod recurrent;
mod shapes;
mod windows;

use super::{
    call::{Call, Outcome},
    value::{Flow, Stop},
};

/// Domains whose operators are ONNX's own.
pub fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// The rules of some operators; `None` where it has none for one.
type Family = fn(&Call<'_>) -> Option<Flow<Outcome>>;

/// Evaluates an operator.
///
/// # Errors
///
/// Why there is no result; its operations are then not counted.
pub fn evaluate(domain: &str, call: &Call<'_>) -> Flow<Outcome> {
    let families: &[Family] = if is_standard(domain) {
        &[
            elementwise::evaluate,
            arithmetic::evaluate,
            matrix::evaluate,
            windows::evaluate,
            shapes::evaluate,
            layout::evaluate,
            indexing::evaluate,
            recurrent::evaluate,
            attention::evaluate,
        ]
    } else if domain == "com.microsoft" {
        &[
            elementwise::evaluate_contrib,
            matrix::evaluate_contrib,
            windows::evaluate_contrib,
            attention::evaluate_contrib,
        ]
    } else {
        &[]
    };
    families
        .iter()
        .find_map(|family| family(call))
        .unwrap_or_else(|| Err(Stop::Unsupported("dlpm has no rule for it".to_owned())))
}

/// Whether an operator has operations that count, so that it must be listed where its shapes are not known.
pub fn is_counted(domain: &str, op: &str) -> bool {
    const COUNTED: [&str; 14] = [
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "QLinearConv",
        "DeformConv",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "Einsum",
        "LSTM",
        "GRU",
        "RNN",
        "Attention",
    ];
    if is_standard(domain) {
        COUNTED.contains(&op)
    } else {
        !elementwise::is_contrib(op)
    }
}

/// Whether a constant in this place is a parameter: statistics of a batch normalisation, and scales and zero points of
/// quantised values, are none.
pub fn is_parameter_input(op: &str, at: usize) -> bool {
    match op {
        "BatchNormalization" => !matches!(at, 3 | 4),
        "QuantizeLinear" | "DequantizeLinear" => at == 0,
        "QLinearConv" => matches!(at, 0 | 3 | 8),
        "QLinearMatMul" => matches!(at, 0 | 3),
        "ConvInteger" | "MatMulInteger" => at < 2,
        _ => true,
    }
}
