//! Attention: the two products with keys and values.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Stop, Tensor, bad, product, show},
};
use crate::products::matmul;

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    (call.op == "Attention").then(|| attention(call))
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Attention" => fused(call),
        "MultiHeadAttention" => multi_head(call),
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
fn products(batch: u64, heads: u64, queries: u64, keys: u64, widths: [u64; 2]) -> Flow<u64> {
    let Some(width) = widths[0].checked_add(widths[1]) else {
        return bad("a dimension has more than 64 bits");
    };
    product([batch, heads, queries, keys, width])
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
    let Some(total) = keys.length.checked_add(past) else {
        return bad("a dimension has more than 64 bits");
    };
    let mult_adds = products(batch, queries.heads, queries.length, total, [keys.width, values.width])?;
    let shape = if query.len() == 4 {
        vec![batch, queries.heads, queries.length, values.width]
    } else {
        vec![batch, queries.length, product([queries.heads, values.width])?]
    };
    let present = |heads: &Heads| Tensor::of([batch, heads.heads, total, heads.width]);
    Ok(Outcome {
        outputs: vec![Tensor::of(shape), present(&keys), present(&values)],
        mult_adds: Some(mult_adds),
    })
}

/// ONNX Runtime's, with the weights that make queries, keys and values.
fn fused(call: &Call<'_>) -> Flow<Outcome> {
    let (input, weights) = (call.shape(0)?, call.shape(1)?);
    let ([batch, length, _], [_, all]) = (input, weights) else {
        return bad(format!("{} does not go with weights of {}", show(input), show(weights)));
    };
    if call.input(4).is_some() || call.ints("qkv_hidden_sizes").is_some() {
        return Err(Stop::Unsupported("with a past or widths of its own".to_owned()));
    }
    let (_, of_weights) = matmul(input, weights)?;
    let width = all / 3;
    let of_products = products(*batch, 1, *length, *length, [width, width])?;
    match of_weights.checked_add(of_products) {
        Some(mult_adds) => Ok(Outcome::counted([*batch, *length, width], mult_adds)),
        None => bad("a product of dimensions has more than 64 bits"),
    }
}

fn multi_head(call: &Call<'_>) -> Flow<Outcome> {
    if call.input(1).is_none() || call.input(6).is_some() || call.input(7).is_some() {
        return Err(Stop::Unsupported("packed, or with a past".to_owned()));
    }
    let (queries, keys, values) = (call.shape(0)?, call.shape(1)?, call.shape(2)?);
    let ([batch, length, width], [_, keys, key_width], [_, _, value_width]) = (queries, keys, values) else {
        return Err(Stop::Unsupported("with keys and values in heads".to_owned()));
    };
    if width != key_width {
        return bad(format!("queries of {width} do not go with keys of {key_width}"));
    }
    let mult_adds = products(*batch, 1, *length, *keys, [*width, *value_width])?;
    Ok(Outcome::counted([*batch, *length, *value_width], mult_adds))
}
