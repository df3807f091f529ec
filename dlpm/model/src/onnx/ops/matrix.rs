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
        "Gemm" => gemm(call, 0, 1),
        "Einsum" => equation(call),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "FusedGemm" | "GemmFastGelu" if call.shape(0).is_ok_and(|shape| shape.len() != 2) => multiply(call, 0, 1),
        "FusedGemm" | "GemmFastGelu" | "GemmFloat8" => gemm(call, 0, 1),
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" | "MatMulInteger16" => multiply(call, 0, 1),
        "FusedMatMul" | "FusedMatMulActivation" | "TransposeMatMul" | "SparseToDenseMatMul" => fused(call, 0, 1),
        "MatMulNBits" => packed(call),
        "MatMulBnb4" => packed(call),
        "CDist" => distances(call),
        _ => return None,
    })
}

pub fn multiply(call: &Call<'_>, left: usize, right: usize) -> Flow<Outcome> {
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

/// Transposed at the last two dimensions, or with the first one moved to the last but one.
fn fused(call: &Call<'_>, left_at: usize, right_at: usize) -> Flow<Outcome> {
    let operand = |at: usize, batch: &str, rows: &str| -> Flow<Vec<u64>> {
        let mut shape = call.shape(at)?.to_vec();
        if call.flag(batch) && shape.len() > 2 {
            let first = shape.remove(0);
            shape.insert(shape.len() - 1, first);
        }
        Ok(transposed(&shape, call.flag(rows)))
    };
    let left = operand(left_at, "transBatchA", "transA")?;
    let right = operand(right_at, "transBatchB", "transB")?;
    let (shape, mult_adds) = matmul(&left, &right)?;
    Ok(Outcome::counted(shape, mult_adds))
}

/// A product of two matrices, each of which may be transposed.
pub fn gemm(call: &Call<'_>, left_at: usize, right_at: usize) -> Flow<Outcome> {
    let (left, right) = (call.shape(left_at)?, call.shape(right_at)?);
    if left.len() != 2 || right.len() != 2 {
        return bad(format!("{} and {} are not two matrices", show(left), show(right)));
    }
    fused(call, left_at, right_at)
}

/// The distance of each row of one to each row of the other; only differences, by definition.
fn distances(call: &Call<'_>) -> Flow<Outcome> {
    match (call.shape(0)?, call.shape(1)?) {
        ([left, _], [right, _]) => Ok(Outcome::of([*left, *right])),
        (left, right) => bad(format!("{} and {} are not two matrices", show(left), show(right))),
    }
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
