//! Operators of `ai.onnx.preview.training`: steps of optimizers, which are elementwise, and gradients.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Stop, Tensor, bad},
};

/// The domain of these operators.
pub const DOMAIN: &str = "ai.onnx.preview.training";

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        // Of each tensor: its values, its gradient, and what the optimizer keeps of it.
        "Adagrad" | "Momentum" => step(call, 3),
        "Adam" => step(call, 4),
        "Gradient" => Err(Stop::Unsupported(
            "dlpm counts forward passes, and this is a backward pass".to_owned(),
        )),
        _ => return None,
    })
}

/// The new values, and what the optimizer keeps, have the shapes of the old ones. The rate and the number of the step stand
/// before them, and the gradients between.
fn step(call: &Call<'_>, kinds: usize) -> Flow<Outcome> {
    let rest = call.inputs.len().saturating_sub(2);
    let Some(tensors) = rest.checked_div(kinds).filter(|tensors| tensors * kinds == rest) else {
        return bad("its inputs are not those of whole tensors");
    };
    let same = (0..kinds).filter(|kind| *kind != 1).flat_map(|kind| {
        let first = 2 + kind * tensors;
        first..first + tensors
    });
    let outputs = same.map(|at| call.shape(at).map(Tensor::of));
    Ok(Outcome {
        outputs: outputs.collect::<Flow<_>>()?,
        mult_adds: None,
    })
}
