//! Attention: the two products with keys and values.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor, bad, product, show},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Attention" | "FlexAttention" => attention(call),
        "LinearAttention" => linear(call),
        _ => return None,
    })
}

/// Heads, length and width of a head of one input.
struct Heads {
    heads: u64,
    length: u64,
    width: u64,
}

/// Batch × heads × length × width, or batch × length × all heads side by side.
fn heads(call: &Call<'_>, at: usize, attribute: &str) -> Flow<Heads> {
    match *call.shape(at)? {
        [_, heads, length, width] => Ok(Heads { heads, length, width }),
        [_, length, all] => match call.count(attribute) {
            Some(heads @ 1..) if all % heads == 0 => Ok(Heads {
                heads,
                length,
                width: all / heads,
            }),
            _ => bad(format!("`{attribute}` does not divide the {all} of its input {at}")),
        },
        ref other => bad(format!("its input {at} is {}", show(other))),
    }
}

/// `batch × heads × queries × keys × (width of a key + width of a value)`
pub fn products(batch: u64, heads: u64, queries: u64, keys: u64, widths: [u64; 2]) -> Flow<u64> {
    product([batch, heads, queries, keys, add(widths[0], widths[1])?])
}

/// A sum of sizes.
pub fn add(left: u64, right: u64) -> Flow<u64> {
    match left.checked_add(right) {
        Some(sum) => Ok(sum),
        None => bad("a sum of dimensions has more than 64 bits"),
    }
}

/// ONNX's own, since version 23.
fn attention(call: &Call<'_>) -> Flow<Outcome> {
    let query = call.shape_of_rank(0, 3)?;
    let batch = query.first().copied().unwrap_or_default();
    let (queries, keys, values) = (
        heads(call, 0, "q_num_heads")?,
        heads(call, 1, "kv_num_heads")?,
        heads(call, 2, "kv_num_heads")?,
    );
    let past = match call.input(4) {
        Some(_) => match *call.shape(4)? {
            [_, _, length, _] => length,
            ref other => return bad(format!("its past keys are {}", show(other))),
        },
        None => 0,
    };
    let total = add(keys.length, past)?;
    let mult_adds = products(batch, queries.heads, queries.length, total, [keys.width, values.width])?;
    let shape = if query.len() == 4 {
        vec![batch, queries.heads, queries.length, values.width]
    } else {
        vec![batch, queries.length, product([queries.heads, values.width])?]
    };
    let present = |heads: &Heads| Tensor::of([batch, heads.heads, total, heads.width]);
    Ok(Outcome {
        outputs: vec![
            Tensor::of(shape),
            present(&keys),
            present(&values),
            // The products of queries and keys.
            Tensor::of([batch, queries.heads, queries.length, total]),
        ],
        mult_adds: Some(mult_adds),
    })
}

/// A state of keys × values for each head, which every token changes and every query reads. The rules with a difference read it
/// once more for each key.
fn linear(call: &Call<'_>) -> Flow<Outcome> {
    let (query, keys, values) = (
        heads(call, 0, "q_num_heads")?,
        heads(call, 1, "kv_num_heads")?,
        heads(call, 2, "kv_num_heads")?,
    );
    let batch = call.shape(0)?.first().copied().unwrap_or_default();
    let per_key = if call.text("update_rule").ends_with("delta") || call.text("update_rule").is_empty() {
        2
    } else {
        1
    };
    let heads = add(product([keys.heads, per_key])?, query.heads)?;
    let mult_adds = product([batch, query.length, heads, keys.width, values.width])?;
    let width = product([query.heads, values.width])?;
    Ok(Outcome {
        outputs: vec![
            Tensor::of([batch, query.length, width]),
            Tensor::of([batch, keys.heads, keys.width, values.width]),
        ],
        mult_adds: Some(mult_adds),
    })
}
