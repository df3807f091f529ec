//! Operations of PyTorch's operators.

use std::collections::HashMap;

use super::{
    schema::{Argument, Graph, Node},
    sizes::Sizes,
};
use crate::{
    ModelError, modules,
    onnx::value::{Flow, MOST_DIMS, Stop, bad, elements, product, unknown},
    products::{einsum, matmul},
    tally::{Run, Tally},
};

/// Graphs in each other at most.
const MOST_DEPTH: usize = 16;

/// Counts the operators of a graph.
///
/// # Errors
///
/// Where sizes contradict each other, or something is too large.
pub fn graph(
    graph: &Graph,
    sizes: &Sizes,
    tally: &mut Tally,
    with_modules: bool,
    depth: usize,
) -> Result<(), ModelError> {
    if depth > MOST_DEPTH {
        return Err(ModelError::TooLarge("its graphs are nested too deep".to_owned()));
    }
    let shapes: Shapes<'_> = graph
        .tensor_values
        .iter()
        .filter(|(_, tensor)| tensor.sizes.len() <= MOST_DIMS)
        .filter_map(|(name, tensor)| Some((name.as_str(), sizes.shape(&tensor.sizes)?)))
        .collect();
    for node in &graph.nodes {
        let target = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
        if let Some(inner) = transparent(target, node) {
            self::graph(inner, sizes, tally, with_modules, depth + 1)?;
            continue;
        }
        // Without the overload: `aten.linear`.
        let op = target.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let op = crate::printable(&op);
        let call = Call { node, shapes: &shapes };
        match call.mult_adds(target) {
            Ok(None) => {}
            Ok(Some(mult_adds)) => {
                let output = call.output().and_then(|name| call.shape(name));
                let stack = node.metadata.nn_module_stack.as_deref().unwrap_or_default();
                let module = with_modules.then(|| modules::of_stack(stack));
                tally.run(&Run {
                    op: &op,
                    key: std::ptr::from_ref(node).addr(),
                    name: call.output().unwrap_or_default(),
                    module: module.as_deref(),
                    input: call.input(0).ok().as_deref(),
                    output: &output.unwrap_or_default(),
                    mult_adds,
                })?;
            }
            Err(Stop::Bad(why)) => {
                return Err(ModelError::Shapes {
                    node: format!("{op} `{}`", crate::printable(call.output().unwrap_or_default())),
                    why,
                });
            }
            Err(Stop::Unknown(why) | Stop::Unsupported(why)) => tally.cannot(&op, &why),
        }
    }
    Ok(())
}

/// A graph that is run once as a part of this one: under another setting of gradients or precision.
fn transparent<'a>(target: &str, node: &'a Node) -> Option<&'a Graph> {
    let name = target.strip_prefix("higher_order.")?;
    if !(name.starts_with("wrap_with_") || matches!(name, "hints_wrapper" | "invoke_subgraph")) {
        return None;
    }
    node.inputs.iter().find_map(|input| match &input.arg {
        Argument::Graph(inner) => Some(&inner.graph),
        _ => None,
    })
}

/// Shapes of the tensors whose sizes are known, by name.
type Shapes<'a> = HashMap<&'a str, Vec<u64>>;

struct Call<'a> {
    node: &'a Node,
    shapes: &'a Shapes<'a>,
}

impl<'a> Call<'a> {
    fn output(&self) -> Option<&'a str> {
        self.node.outputs.iter().find_map(Argument::tensor)
    }

    fn shape(&self, name: &str) -> Option<Vec<u64>> {
        self.shapes.get(name).cloned()
    }

    /// The shape of the argument `at` that is a tensor.
    fn input(&self, at: usize) -> Flow<Vec<u64>> {
        let mut tensors = self.node.inputs.iter().filter_map(|input| input.arg.tensor());
        match tensors.nth(at).and_then(|name| self.shape(name)) {
            Some(shape) => Ok(shape),
            None => unknown("the size of a tensor is only known when the model runs"),
        }
    }

    fn result(&self) -> Flow<Vec<u64>> {
        match self.output().and_then(|name| self.shape(name)) {
            Some(shape) => Ok(shape),
            None => unknown("the size of its result is only known when the model runs"),
        }
    }

    /// The shapes of the list of tensors called `name`.
    fn list(&self, name: &str) -> Flow<Vec<Vec<u64>>> {
        let tensors = self.node.inputs.iter().find_map(|input| match &input.arg {
            Argument::Tensors(tensors) if input.name == name => Some(tensors),
            _ => None,
        });
        let shapes = tensors.and_then(|tensors| tensors.iter().map(|tensor| self.shape(&tensor.name)).collect());
        match shapes {
            Some(shapes) => Ok(shapes),
            None => unknown("the size of a tensor is only known when the model runs"),
        }
    }

    fn flag(&self, name: &str) -> bool {
        let mut inputs = self.node.inputs.iter();
        inputs.any(|input| input.name == name && matches!(input.arg, Argument::Bool(true)))
    }

    /// `None` where the operator has no operations by definition.
    fn mult_adds(&self, target: &str) -> Flow<Option<u64>> {
        let mut parts = target.split('.');
        let (space, op) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let overload = parts.next().unwrap_or_default();
        match space {
            "aten" => self.aten(op, overload),
            // Numbers, views and the like: the decompositions of these have no products either.
            "prims" | "_operator" | "builtins" | "math" | "torch" | "profiler" | "prim" => Ok(None),
            "quantized_decomposed" | "torchao" if op.contains("quantize") || op.starts_with("choose_qparams") => {
                Ok(None)
            }
            // What is sent to other processes.
            "_c10d_functional" | "c10d_functional" | "c10d" => Ok(None),
            "torchvision" if op == "deform_conv2d" => self.convolution(false).map(Some),
            "torchvision" if matches!(op, "nms" | "roi_align" | "roi_pool" | "ps_roi_align" | "ps_roi_pool") => {
                Ok(None)
            }
            _ => unsupported("dlpm has no rule for it"),
        }
    }

    fn aten(&self, op: &str, overload: &str) -> Flow<Option<u64>> {
        let count = match op {
            "linear" => {
                let weights = self.input(1)?;
                product([elements(&self.result()?)?, weights.last().copied().unwrap_or(1)])
            }
            "conv1d" | "conv2d" | "conv3d" => self.convolution(false),
            "convolution" | "_convolution" => self.convolution(self.flag("transposed")),
            "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => self.convolution(true),
            "matmul" | "mm" | "bmm" | "mv" | "dot" | "vdot" | "_scaled_mm" | "_scaled_mm_v2" | "_int_mm"
            | "_sparse_mm" | "hspmm" => self.product(0, 1),
            "addmm" | "baddbmm" | "addmv" | "addbmm" | "sspaddmm" | "_addmm_activation" => self.product(1, 2),
            "_grouped_mm" | "_scaled_grouped_mm" | "_scaled_grouped_mm_v2" => self.grouped(),
            "_weight_int8pack_mm" | "_weight_int4pack_mm" | "_weight_int4pack_mm_for_cpu" | "inner" => self.by_result(),
            "tensordot" => self.tensordot(),
            "einsum" => self.einsum(),
            "lstm" | "gru" | "rnn_tanh" | "rnn_relu" if overload == "input" => self.recurrent(),
            "lstm_cell" | "gru_cell" | "rnn_tanh_cell" | "rnn_relu_cell" => self.cell(),
            "scaled_dot_product_attention"
            | "_scaled_dot_product_flash_attention"
            | "_scaled_dot_product_flash_attention_for_cpu"
            | "_scaled_dot_product_efficient_attention"
            | "_scaled_dot_product_cudnn_attention"
            | "_scaled_dot_product_fused_attention_overrideable" => self.attention(),
            op if has_products(op) => return unsupported("dlpm has no rule for it"),
            _ => return Ok(None),
        };
        count.map(Some)
    }

    fn product(&self, left: usize, right: usize) -> Flow<u64> {
        let (_, mult_adds) = matmul(&self.input(left)?, &self.input(right)?)?;
        Ok(mult_adds)
    }

    /// Groups of rows, each with a matrix of its own; or of columns; or of what is summed over. The groups of one operand lie
    /// side by side, so that together they are as much work as one.
    fn grouped(&self) -> Flow<u64> {
        let (left, right) = (self.input(0)?, self.input(1)?);
        let sizes = match (left.as_slice(), right.as_slice()) {
            ([rows, length], [_, right_length, columns])
            | ([rows, length], [right_length, columns])
            | ([_, rows, length], [right_length, columns])
                if length == right_length =>
            {
                [1, *rows, *length, *columns]
            }
            ([groups, rows, length], [right_groups, right_length, columns])
                if groups == right_groups && length == right_length =>
            {
                [*groups, *rows, *length, *columns]
            }
            _ => return bad("the sizes of its tensors do not go together"),
        };
        product(sizes)
    }

    /// Elements of the result × the last dimension of the left operand.
    fn by_result(&self) -> Flow<u64> {
        let left = self.input(0)?;
        product([elements(&self.result()?)?, left.last().copied().unwrap_or(1)])
    }

    /// What is summed over stands in both operands, and not in the result: the root of what is too much.
    fn tensordot(&self) -> Flow<u64> {
        let (left, right, result) = (
            elements(&self.input(0)?)?,
            elements(&self.input(1)?)?,
            elements(&self.result()?)?,
        );
        let both = u128::from(left) * u128::from(right);
        let Some(squared) = both.checked_div(u128::from(result)) else {
            return Ok(0);
        };
        match u64::try_from(squared.isqrt()) {
            Ok(summed) => product([result, summed]),
            Err(_) => bad("a dimension has more than 64 bits"),
        }
    }

    /// Positions × weights of a position; transposed, the positions are those of the input.
    fn convolution(&self, transposed: bool) -> Flow<u64> {
        let (input, weights) = (self.input(0)?, self.input(1)?);
        let rank = weights.len().saturating_sub(2);
        let positions = if transposed { &input } else { &self.result()? };
        // Without a batch there is one dimension less.
        let (outer, spatial) = positions.split_at(positions.len().saturating_sub(rank));
        let batch = match outer {
            [batch, _] => *batch,
            [_] => 1,
            _ => return bad("the sizes of its tensors do not go together"),
        };
        product([batch].into_iter().chain(spatial.iter().copied()).chain(weights))
    }

    fn einsum(&self) -> Flow<u64> {
        let equation = self.node.inputs.iter().find_map(|input| match &input.arg {
            Argument::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let shapes = self.list("tensors")?;
        let shapes: Vec<&[u64]> = shapes.iter().map(Vec::as_slice).collect();
        let (_, mult_adds) = einsum(equation.unwrap_or_default(), &shapes)?;
        Ok(mult_adds)
    }

    /// Every weight that is a matrix is used once in every step, for every sequence.
    fn recurrent(&self) -> Flow<u64> {
        let input = self.input(0)?;
        let Some((_, steps)) = input.split_last() else {
            return bad("its input is a scalar");
        };
        let matrices = self.list("params")?.into_iter().filter(|shape| shape.len() == 2);
        let mut weights = 0u64;
        for matrix in matrices {
            weights = match weights.checked_add(elements(&matrix)?) {
                Some(weights) => weights,
                None => return bad("its weights have more than 64 bits"),
            };
        }
        product(steps.iter().copied().chain([weights]))
    }

    fn cell(&self) -> Flow<u64> {
        let batch = match *self.input(0)? {
            [batch, _] => batch,
            _ => 1,
        };
        let tensors = self.node.inputs.iter();
        let weights = tensors.filter(|input| matches!(input.name.as_str(), "w_ih" | "w_hh"));
        let mut sum = 0u64;
        for weight in weights {
            let Some(shape) = weight.arg.tensor().and_then(|name| self.shape(name)) else {
                return unknown("the size of its weights is not known");
            };
            sum = match sum.checked_add(elements(&shape)?) {
                Some(sum) => sum,
                None => return bad("its weights have more than 64 bits"),
            };
        }
        product([batch, sum])
    }

    /// Queries with keys, and what comes of it with values.
    fn attention(&self) -> Flow<u64> {
        let (queries, keys, values) = (self.input(0)?, self.input(1)?, self.input(2)?);
        match (queries.as_slice(), keys.as_slice(), values.as_slice()) {
            ([batch @ .., length, width], [.., keys, _], [.., value_width]) => {
                let Some(widths) = width.checked_add(*value_width) else {
                    return bad("a dimension has more than 64 bits");
                };
                product(batch.iter().copied().chain([*length, *keys, widths]))
            }
            _ => bad("the sizes of its tensors do not go together"),
        }
    }
}

fn unsupported<T>(why: &str) -> Flow<T> {
    Err(Stop::Unsupported(why.to_owned()))
}

/// Whether the name of an operator of PyTorch tells that it multiplies and accumulates. All others are elementwise, move
/// elements, or reduce them.
fn has_products(op: &str) -> bool {
    const PARTS: [&str; 8] = [
        "_mm",
        "matmul",
        "attention",
        "transformer",
        "lstm",
        "gru",
        "rnn",
        "linalg",
    ];
    const WHOLE: [&str; 14] = [
        "inner",
        "matrix_exp",
        "matrix_power",
        "chain_matmul",
        "cholesky",
        "cholesky_inverse",
        "cholesky_solve",
        "inverse",
        "pinverse",
        "svd",
        "qr",
        "lstsq",
        "triangular_solve",
        "_trilinear",
    ];
    // Norms, and views of what there is: sums of squares are not products of two tensors. A norm of a matrix that needs its
    // singular values appears in a program as `linalg_svd`.
    const WITHOUT: [&str; 7] = [
        "linalg_vector_norm",
        "linalg_norm",
        "linalg_matrix_norm",
        "linalg_cross",
        "linalg_diagonal",
        "_convert_weight_to_int4pack",
        "_convert_weight_to_int4pack_for_cpu",
    ];
    if WITHOUT.contains(&op) {
        return false;
    }
    let names_products = op.ends_with("mm") || op.ends_with("dot") || PARTS.iter().any(|part| op.contains(part));
    let convolves = op.contains("conv") && !op.contains("convert");
    let combines = op.contains("linear") && !op.contains("upsample");
    names_products || convolves || combines || WHOLE.contains(&op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_operators_with_products() {
        for op in [
            "_some_mm",
            "conv_tbc",
            "quantized_lstm",
            "linalg_solve",
            "linalg_multi_dot",
            "matrix_exp",
            "bilinear",
        ] {
            assert!(has_products(op), "{op}");
        }
        for op in [
            "relu",
            "lgamma",
            "digamma",
            "upsample_bilinear2d",
            "_convert_indices_from_coo_to_csr",
            "add",
            "embedding",
            "fft_rfft",
            "stft",
            "cdist",
            "renorm",
            "linalg_vector_norm",
            "linalg_norm",
            "linalg_cross",
        ] {
            assert!(!has_products(op), "{op}");
        }
    }
}
