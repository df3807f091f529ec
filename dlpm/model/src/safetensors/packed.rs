//! Weights that are packed into integers, as GPTQ, AWQ, bitsandbytes and MXFP4 store them: how many there are.

use std::collections::BTreeMap;

use super::{Entry, bits};
use crate::weights::Why;

/// What a tensor is.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Parameters: of this type, so many.
    Parameters(String, u64),
    /// Something else.
    Not(Why),
}

/// Names of the scales, zero points and tables beside a quantised weight.
const SCALES: [&str; 24] = [
    "SCB",
    "absmax",
    "biases",
    "g_idx",
    "input_global_scale",
    "input_scale",
    "k_scale",
    "nested_absmax",
    "nested_quant_map",
    "output_scale",
    "quant_map",
    "qzeros",
    "scale",
    "scales",
    "v_scale",
    "weight_format",
    "weight_g_idx",
    "weight_global_scale",
    "weight_scale",
    "weight_scale_2",
    "weight_scale_inv",
    "weight_shape",
    "weight_zero_point",
    "zeros",
];

/// What the tensor `name` with so many elements is; `all` is the whole header.
pub fn part(all: &BTreeMap<String, Entry>, name: &str, dtype: &str, elements: u64) -> Part {
    let (stem, last) = name.rsplit_once('.').unwrap_or(("", name));
    let beside = |last: &str| {
        let key = if stem.is_empty() {
            last.to_owned()
        } else {
            format!("{stem}.{last}")
        };
        all.get(&key)
    };
    let packed = |each: u64| match elements.checked_mul(bits(dtype).unwrap_or(0) / each.max(1)) {
        Some(count) => Part::Parameters(format!("{each}-bit in {dtype}"), count),
        None => Part::Not(Why::Unknown),
    };
    let is_integer = matches!(dtype, "I8" | "U8" | "I16" | "U16" | "I32" | "U32" | "I64" | "U64");
    // GPTQ and AWQ: the zero points are packed as the weights are, one for each scale.
    if last == "qweight" {
        let columns = |entry: Option<&Entry>| entry?.shape.as_ref()?.last().copied();
        let each = columns(beside("qzeros"))
            .zip(columns(beside("scales")))
            .and_then(|(zeros, scales)| zeros.checked_mul(32)?.checked_div(scales));
        return match each {
            Some(each @ (2 | 3 | 4 | 8)) => packed_exactly(elements, dtype, each),
            _ => Part::Not(Why::Packed),
        };
    }
    if name.contains(".quant_state.") || (SCALES.contains(&last) && is_beside_quantised(all, stem)) {
        return Part::Not(Why::Scale);
    }
    // bitsandbytes and NVIDIA's ModelOpt: two weights in a byte.
    if dtype == "U8"
        && (all.contains_key(&format!("{name}.absmax"))
            || matches!(last, "weight" | "weight_packed") && is_fp8(beside("weight_scale")))
    {
        return packed(4);
    }
    // MXFP4, as gpt-oss has it.
    if let Some(of) = name.strip_suffix("_blocks")
        && dtype == "U8"
        && all.contains_key(&format!("{of}_scales"))
    {
        return packed(4);
    }
    if name
        .strip_suffix("_scales")
        .is_some_and(|of| all.contains_key(&format!("{of}_blocks")))
    {
        return Part::Not(Why::Scale);
    }
    if is_integer && matches!(last, "weight_packed" | "W_q" | "q_weight" | "codes" | "qweight_packed") {
        return Part::Not(Why::Packed);
    }
    // MLX packs into 32 bits, too.
    if matches!(dtype, "U32" | "I32") && last == "weight" {
        return Part::Not(Why::Packed);
    }
    if crate::is_statistic(name) {
        Part::Not(Why::Statistic)
    } else if crate::is_average(name) {
        Part::Not(Why::Average)
    } else if super::is_weight(dtype) {
        Part::Parameters(dtype.to_owned(), elements)
    } else if is_integer || dtype == "BOOL" {
        Part::Not(Why::Integer)
    } else {
        Part::Not(Why::Unknown)
    }
}

/// Three bits do not divide 32, but 32 elements hold 32 × 32 / 3 of them.
fn packed_exactly(elements: u64, dtype: &str, each: u64) -> Part {
    let all_bits = elements.checked_mul(bits(dtype).unwrap_or(0));
    match all_bits.and_then(|bits| bits.checked_div(each)) {
        Some(count) => Part::Parameters(format!("{each}-bit in {dtype}"), count),
        None => Part::Not(Why::Unknown),
    }
}

fn is_fp8(entry: Option<&Entry>) -> bool {
    entry
        .and_then(|entry| entry.dtype.as_deref())
        .is_some_and(|dtype| dtype.starts_with("F8"))
}

/// Whether the weight that such a tensor stands beside is quantised.
fn is_beside_quantised(all: &BTreeMap<String, Entry>, stem: &str) -> bool {
    let quantised = |key: &str| {
        let dtype = all.get(key).and_then(|entry| entry.dtype.as_deref());
        dtype.is_some_and(|dtype| !matches!(dtype, "F64" | "F32" | "F16" | "BF16") || key.ends_with("qweight"))
    };
    // Of bitsandbytes, the tables hang below the weight itself.
    quantised(stem)
        || ["weight", "qweight", "weight_packed", "W_q", "q_weight"]
            .iter()
            .any(|last| {
                quantised(&if stem.is_empty() {
                    (*last).to_owned()
                } else {
                    format!("{stem}.{last}")
                })
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_are_counted_or_listed() {
        let tensors: [(&str, &str, &[u64]); 19] = [
            // GPTQ with 4 bits, 64 × 64; AWQ with 4 bits.
            ("g.qweight", "I32", &[8, 64]),
            ("g.qzeros", "I32", &[1, 8]),
            ("g.scales", "F16", &[1, 64]),
            ("g.g_idx", "I32", &[64]),
            // bitsandbytes.
            ("b.weight", "U8", &[32, 1]),
            ("b.weight.absmax", "F32", &[1]),
            ("b.weight.quant_state.bitsandbytes__nf4", "U8", &[80]),
            ("i.weight", "I8", &[4, 4]),
            ("i.SCB", "F32", &[4]),
            // MXFP4, FP8, and a form whose bits nobody says.
            ("m.down_proj_blocks", "U8", &[2, 16]),
            ("m.down_proj_scales", "U8", &[2]),
            ("f.weight", "F8_E4M3", &[4, 4]),
            ("f.weight_scale_inv", "F32", &[1, 1]),
            ("x.weight_packed", "I32", &[4, 1]),
            // Without a quantised weight, a scale is a parameter.
            ("norm.scale", "F32", &[7]),
            ("norm.running_mean", "F32", &[7]),
            ("position_ids", "I64", &[7]),
            ("model_ema.w", "F32", &[7]),
            ("new", "Q3", &[7]),
        ];
        let all: BTreeMap<String, Entry> = tensors
            .iter()
            .map(|(name, dtype, shape)| {
                let entry = Entry {
                    dtype: Some((*dtype).to_owned()),
                    shape: Some(shape.to_vec()),
                    data_offsets: Some((0, 0)),
                };
                ((*name).to_owned(), entry)
            })
            .collect();
        let of = |name: &str| {
            let (_, dtype, shape) = tensors.iter().find(|(of, ..)| *of == name).unwrap();
            part(&all, name, dtype, shape.iter().product())
        };
        for (name, count) in [
            ("g.qweight", 4096),
            ("b.weight", 64),
            ("i.weight", 16),
            ("m.down_proj_blocks", 64),
            ("f.weight", 16),
            ("norm.scale", 7),
        ] {
            assert!(
                matches!(of(name), Part::Parameters(_, found) if found == count),
                "{name}: {:?}",
                of(name)
            );
        }
        for (name, why) in [
            ("g.qzeros", Why::Scale),
            ("g.scales", Why::Scale),
            ("g.g_idx", Why::Scale),
            ("b.weight.absmax", Why::Scale),
            ("b.weight.quant_state.bitsandbytes__nf4", Why::Scale),
            ("i.SCB", Why::Scale),
            ("m.down_proj_scales", Why::Scale),
            ("f.weight_scale_inv", Why::Scale),
            ("x.weight_packed", Why::Packed),
            ("norm.running_mean", Why::Statistic),
            ("position_ids", Why::Integer),
            ("model_ema.w", Why::Average),
            ("new", Why::Unknown),
        ] {
            assert_eq!(of(name), Part::Not(why), "{name}");
        }
    }
}
