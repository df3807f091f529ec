//! Matrix products.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, bad, show},
};
use crate::products::{einsum, matmul};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "MatMul" | "MatMulInteger" => multiply(call, 0, 1),
        "QLinearMatMul" => multiply(call, 0, 3),
        "Gemm" => gemm(call),
        "Einsum" => equation(call),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "FusedGemm" | "GemmFastGelu" => gemm(call),
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" => multiply(call, 0, 1),
        "FusedMatMul" if !call.flag("transBatchA") && !call.flag("transBatchB") => fused(call),
        "MatMulNBits" => packed(call),
        _ => return None,
    })
}

fn multiply(call: &Call<'_>, left: usize, right: usize) -> Flow<Outcome> {
    let (shape, mult_adds) = matmul(call.shape(left)?, call.shape(right)?)?;
    Ok(Outcome::counted(shape, mult_adds))
}

fn transposed(shape: &[u64], transpose: bool) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if let ([.., rows, columns], true) = (shape.as_mut_slice(), transpose) {
        std::mem::swap(rows, columns);
    }
    shape
}

fn fused(call: &Call<'_>) -> Flow<Outcome> {
    let left = transposed(call.shape(0)?, call.flag("transA"));
    let right = transposed(call.shape(1)?, call.flag("transB"));
    let (shape, mult_adds) = matmul(&left, &right)?;
    Ok(Outcome::counted(shape, mult_adds))
}

fn gemm(call: &Call<'_>) -> Flow<Outcome> {
    let (left, right) = (call.shape(0)?, call.shape(1)?);
    if left.len() != 2 || right.len() != 2 {
        return bad(format!("{} and {} are not two matrices", show(left), show(right)));
    }
    fused(call)
}

/// Weights of few bits, packed: N rows of K values.
fn packed(call: &Call<'_>) -> Flow<Outcome> {
    let (Some(length), Some(columns)) = (call.count("K"), call.count("N")) else {
        return bad("it has no attributes K and N");
    };
    let (shape, mult_adds) = matmul(call.shape(0)?, &[length, columns])?;
    Ok(Outcome::counted(shape, mult_adds))
}

fn equation(call: &Call<'_>) -> Flow<Outcome> {
    let shapes: Vec<&[u64]> = (0..call.inputs.len()).map(|at| call.shape(at)).collect::<Flow<_>>()?;
    let (shape, mult_adds) = einsum(call.text("equation"), &shapes)?;
    Ok(Outcome::counted(shape, mult_adds))
}
