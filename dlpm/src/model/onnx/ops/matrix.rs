//! Matrix products.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, bad, broadcast, elements, product, show},
};
use crate::model::einsum;

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "MatMul" | "MatMulInteger" => matmul(call, 0, 1),
        "QLinearMatMul" => matmul(call, 0, 3),
        "Gemm" => gemm(call),
        "Einsum" => equation(call),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "FusedGemm" | "GemmFastGelu" => gemm(call),
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" => matmul(call, 0, 1),
        "FusedMatMul" if !call.flag("transBatchA") && !call.flag("transBatchB") => fused(call),
        "MatMulNBits" => packed(call),
        _ => return None,
    })
}

/// Shape and operations of `left · right`, as `numpy.matmul` has them: batch × rows × columns × length.
///
/// # Errors
///
/// Where they do not fit.
pub fn matmul_of(left: &[u64], right: &[u64]) -> Flow<(Vec<u64>, u64)> {
    let unfit = || bad(format!("{} and {} cannot be multiplied", show(left), show(right)));
    let (left_batch, rows, length) = match left {
        [] => return unfit(),
        [length] => (&[][..], None, *length),
        [batch @ .., rows, length] => (batch, Some(*rows), *length),
    };
    let (right_batch, right_length, columns) = match right {
        [] => return unfit(),
        [length] => (&[][..], *length, None),
        [batch @ .., length, columns] => (batch, *length, Some(*columns)),
    };
    if length != right_length {
        return unfit();
    }
    let mut shape = broadcast(left_batch, right_batch)?;
    shape.extend(rows.into_iter().chain(columns));
    let mult_adds = product([elements(&shape)?, length])?;
    Ok((shape, mult_adds))
}

fn matmul(call: &Call<'_>, left: usize, right: usize) -> Flow<Outcome> {
    let (shape, mult_adds) = matmul_of(call.shape(left)?, call.shape(right)?)?;
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
    let (shape, mult_adds) = matmul_of(&left, &right)?;
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
    let (shape, mult_adds) = matmul_of(call.shape(0)?, &[length, columns])?;
    Ok(Outcome::counted(shape, mult_adds))
}

fn equation(call: &Call<'_>) -> Flow<Outcome> {
    let shapes: Vec<&[u64]> = (0..call.inputs.len()).map(|at| call.shape(at)).collect::<Flow<_>>()?;
    let (shape, mult_adds) = einsum::count(call.text("equation"), &shapes)?;
    Ok(Outcome::counted(shape, mult_adds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_matrices_and_batches() {
        for (left, right, shape, mult_adds) in [
            (&[2, 3][..], &[3, 4][..], &[2, 4][..], 24),
            (&[3], &[3, 4], &[4], 12),
            (&[2, 3], &[3], &[2], 6),
            (&[3], &[3], &[], 3),
            (&[5, 1, 2, 3], &[7, 3, 4], &[5, 7, 2, 4], 5 * 7 * 24),
        ] {
            assert_eq!(matmul_of(left, right), Ok((shape.to_vec(), mult_adds)));
        }
        matmul_of(&[2, 3], &[2, 3]).unwrap_err();
        matmul_of(&[], &[2]).unwrap_err();
    }
}
