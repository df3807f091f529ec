//! Attention as ONNX Runtime fuses it: with the weights that make queries, keys and values, packed, with a past, with fewer heads
//! of keys.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Stop, Tensor, bad, product, show},
};
use super::attention::{add, products};
use crate::products::matmul;

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Attention" => with_weights(call, 4, 6),
        "QAttention" => with_weights(call, 8, usize::MAX),
        "DecoderMaskedSelfAttention" => with_weights(call, 4, 6),
        "MultiHeadAttention" => multi_head(call, 6, 8),
        "DecoderMaskedMultiHeadAttention" => multi_head(call, 5, 7),
        "GroupQueryAttention" => grouped(call, 6),
        "SparseAttention" => grouped(call, 7),
        "PackedAttention" => packed(call),
        "LongformerAttention" => Err(Stop::Unsupported(
            "how many positions are global is only known when it runs".to_owned(),
        )),
        "GatedRelativePositionBias" => gated_bias(call),
        "RelativePositionBias" => relative_bias(call),
        _ => return None,
    })
}

/// A whole number that is an input, where its value is known.
fn known(call: &Call<'_>, at: usize) -> Option<u64> {
    let value = *call.ints_of(at).ok()?.first()?;
    u64::try_from(value).ok()
}

/// How much of the past there is: the length of what is kept, or, where that is a buffer of the largest length, the number that
/// is an input of its own.
fn past(call: &Call<'_>, at: usize, axis: usize, length_at: usize) -> Flow<Option<u64>> {
    if call.input(at).is_none() {
        return Ok(None);
    }
    let kept = call.shape_of_rank(at, axis + 1)?;
    let length = kept.get(axis).copied().unwrap_or_default();
    let shared = call.flag("past_present_share_buffer") || (length_at != usize::MAX && call.input(length_at).is_some());
    Ok(Some(if shared {
        known(call, length_at).unwrap_or(length)
    } else {
        length
    }))
}

fn sum(left: u64, right: u64) -> Flow<u64> {
    add(left, right)
}

/// One product makes queries, keys and values; then those of attention.
fn with_weights(call: &Call<'_>, past_at: usize, length_at: usize) -> Flow<Outcome> {
    let (input, weights) = (call.shape(0)?, call.shape(1)?);
    let ([batch, length, _], [_, all]) = (input, weights) else {
        return bad(format!("{} does not go with weights of {}", show(input), show(weights)));
    };
    let (key_width, value_width) = match call.counts("qkv_hidden_sizes")?.as_deref() {
        Some([_, key, value]) => (*key, *value),
        _ => (all / 3, all / 3),
    };
    let (_, of_weights) = matmul(input, weights)?;
    let kept = past(call, past_at, 3, length_at)?;
    let total = sum(*length, kept.unwrap_or(0))?;
    let of_products = products(*batch, 1, *length, total, [key_width, value_width])?;
    let mut outputs = vec![Tensor::of([*batch, *length, value_width])];
    if call.outputs > 1 {
        let heads = call.count("num_heads").unwrap_or(1).max(1);
        let shared = call.flag("past_present_share_buffer");
        let present = match call.input(past_at).and_then(|past| past.shape.as_deref()) {
            Some(past) if shared => past.to_vec(),
            _ => vec![2, *batch, heads, total, key_width / heads],
        };
        outputs.push(Tensor::of(present));
    }
    Ok(Outcome {
        outputs,
        mult_adds: Some(add(of_weights, of_products)?),
    })
}

/// Queries, keys and values are inputs, or packed in the first or the second of them.
fn multi_head(call: &Call<'_>, past_at: usize, length_at: usize) -> Flow<Outcome> {
    let query = call.shape(0)?;
    let (batch, length, heads, head) = match *query {
        [batch, length, heads, 3, head] => (batch, length, heads, head),
        [batch, length, width] => {
            let heads = call.count("num_heads").unwrap_or(1).max(1);
            (batch, length, heads, width / heads)
        }
        ref other => return bad(format!("its queries are {}", show(other))),
    };
    let width = product([heads, head])?;
    let (keys, value_width) = if query.len() == 5 || call.input(1).is_none() {
        (length, width)
    } else {
        let key = call.shape(1)?;
        let keys = match *key {
            [_, keys, _] | [_, keys, _, 2, _] | [_, _, keys, _] => keys,
            ref other => return bad(format!("its keys are {}", show(other))),
        };
        let value_width = match call.input(2) {
            None => width,
            Some(_) => match *call.shape(2)? {
                [_, _, width] => width,
                [_, heads, _, head] => product([heads, head])?,
                ref other => return bad(format!("its values are {}", show(other))),
            },
        };
        if let [_, _, key_width] = *key
            && key_width != width
        {
            return bad(format!("queries of {width} do not go with keys of {key_width}"));
        }
        (keys, value_width)
    };
    let kept = past(call, past_at, 2, length_at)?;
    let total = sum(keys, kept.unwrap_or(0))?;
    let mult_adds = products(batch, 1, length, total, [width, value_width])?;
    let present = |at: usize, width: u64| match call.input(at).and_then(|past| past.shape.as_deref()) {
        Some(past) if call.flag("past_present_share_buffer") || call.input(length_at).is_some() => Tensor::of(past),
        _ => Tensor::of([batch, heads, total, width.checked_div(heads).unwrap_or_default()]),
    };
    Ok(Outcome {
        outputs: vec![
            Tensor::of([batch, length, value_width]),
            present(past_at, width),
            present(past_at + 1, value_width),
            Tensor::of([batch, heads, length, total]),
        ],
        mult_adds: Some(mult_adds),
    })
}

/// Several heads of queries share one of keys and values. The past may be a buffer of the largest length; how much of it is
/// used, the total length tells, where its value is known.
fn grouped(call: &Call<'_>, total_at: usize) -> Flow<Outcome> {
    let query = call.shape(0)?;
    let (Some(heads @ 1..), Some(kv_heads @ 1..)) = (call.count("num_heads"), call.count("kv_num_heads")) else {
        return bad("`num_heads` or `kv_num_heads` is missing");
    };
    let [batch, length, all] = *query else {
        return bad(format!("its queries are {}", show(query)));
    };
    let packed = call.input(1).is_none();
    let parts = if packed {
        add(heads, product([2, kv_heads])?)?
    } else {
        heads
    };
    let head = all.checked_div(parts).unwrap_or_default();
    let new = if packed {
        length
    } else {
        match *call.shape(1)? {
            [_, keys, _] => keys,
            [_, _, keys, _] => keys,
            ref other => return bad(format!("its keys are {}", show(other))),
        }
    };
    let kept = match call.input(3) {
        None => 0,
        Some(_) => match *call.shape(3)? {
            [_, _, length, _] => length,
            ref other => return bad(format!("its past keys are {}", show(other))),
        },
    };
    let by_shapes = sum(kept, new)?;
    // More than the past and what is new cannot be read.
    let total = known(call, total_at)
        .filter(|total| *total <= by_shapes)
        .unwrap_or(by_shapes);
    let width = product([heads, head])?;
    // A buffer that holds all of it stays as it is.
    let is_buffer = known(call, total_at).is_some_and(|total| kept >= total) && kept > 0;
    let present = Tensor::of([batch, kv_heads, if is_buffer { kept } else { by_shapes }, head]);
    Ok(Outcome {
        outputs: vec![
            Tensor::of([batch, length, width]),
            present.clone(),
            present,
            Tensor::of([batch, heads, length, total]),
        ],
        mult_adds: Some(products(batch, 1, length, total, [width, width])?),
    })
}

/// Tokens of all sequences one after the other: how long each sequence is, is only known when the model runs; at most, the padded
/// table of their positions.
fn packed(call: &Call<'_>) -> Flow<Outcome> {
    let (input, weights, positions) = (call.shape(0)?, call.shape(1)?, call.shape(3)?);
    let ([tokens, _], [_, all], [batch, length]) = (input, weights, positions) else {
        return bad(format!("{} does not go with weights of {}", show(input), show(weights)));
    };
    let (key_width, value_width) = match call.counts("qkv_hidden_sizes")?.as_deref() {
        Some([_, key, value]) => (*key, *value),
        _ => (all / 3, all / 3),
    };
    if product([*batch, *length])? != *tokens {
        return Err(Stop::Unsupported(
            "the lengths of its sequences are only known when the model runs".to_owned(),
        ));
    }
    let (_, of_weights) = matmul(input, weights)?;
    let of_products = products(*batch, 1, *length, *length, [key_width, value_width])?;
    Ok(Outcome::counted([*tokens, value_width], add(of_weights, of_products)?))
}

/// A product of each head of each query with the weights of the gates.
fn gated_bias(call: &Call<'_>) -> Flow<Outcome> {
    let (query, weights) = (call.shape(0)?, call.shape(3)?);
    let (Some(heads @ 1..), [batch, length, _], [_, gates]) = (call.count("num_heads"), query, weights) else {
        return bad(format!("{} does not go with weights of {}", show(query), show(weights)));
    };
    let width = query.last().copied().unwrap_or_default();
    let mult_adds = product([*batch, *length, width, *gates])?;
    Ok(Outcome::counted([*batch, heads, *length, *length], mult_adds))
}

fn relative_bias(call: &Call<'_>) -> Flow<Outcome> {
    let table = call.shape_of_rank(0, 2)?;
    let heads = table.last().copied().unwrap_or_default();
    match (known(call, 1), known(call, 2)) {
        (Some(queries), Some(keys)) => Ok(Outcome::of([1, heads, queries, keys])),
        _ => super::super::value::unknown("its lengths are only known when the model runs"),
    }
}
