//! What a folder computes: its tensors are products, and its configuration tells the attention.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    config::Config,
    families,
    names::{self, Name, Packing},
};
use crate::{
    language::{Attention, Experts, Kind, MOST_BLOCKS, Network, Runs, Side, Unknown, unknown},
    safetensors::Shape,
};

/// What a model computes.
///
/// # Errors
///
/// Where dlpm does not know the family, or a number that it needs is missing.
pub fn of(config: &Config, tensors: &BTreeMap<String, Shape>) -> Result<Network, Unknown> {
    if config.family.is_empty() {
        return unknown("the model", "config.json has no model_type");
    }
    let Some(kind) = families::kind(&config.family) else {
        return unknown(
            &format!("model_type {}", crate::printable(&config.family)),
            "dlpm does not know what it computes",
        );
    };
    let trained_context = config.number(&[
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "n_ctx",
        "seq_length",
    ]);
    let mut network = Network::new(&config.family, kind, trained_context);
    let mut text = BTreeMap::new();
    let mut others = 0u64;
    for (tensor, shape) in tensors {
        if config.is_of_several_kinds() && is_of_another_kind(tensor) {
            others += 1;
        } else if let Some(name) = names::parse(tensor) {
            text.insert(tensor.as_str(), (name, shape));
        }
    }
    if others > 0 {
        let why = format!("{others} tensors: only the part for text is counted");
        network.unsupported.push(("images or sound".to_owned(), why));
    }
    products(config, &text, &mut network)?;
    attention(config, &text, &mut network)?;
    Ok(network)
}

type Tensors<'a> = BTreeMap<&'a str, (Name<'a>, &'a Shape)>;

fn is_of_another_kind(tensor: &str) -> bool {
    ["vision", "multi_modal", "mm_", "audio"]
        .iter()
        .any(|part| tensor.contains(part))
}

fn products(config: &Config, tensors: &Tensors<'_>, network: &mut Network) -> Result<(), Unknown> {
    let mut words = None;
    for (tensor, (name, shape)) in tensors {
        if name.is_words() && shape.dims.len() == 2 {
            words = words.or(Some((*tensor, *shape)));
        }
        if shape.dims.len() < 2 || name.is_lookup() || name.module.contains("norm") {
            continue;
        }
        let weights = weights(config, tensor, name, shape)?;
        let is_expert = name.is_of_experts();
        let mult_adds = if is_expert {
            of_experts(config, tensor, name, shape, weights)?
        } else {
            weights
        };
        let runs = name.runs(network.kind, &config.class);
        let columns = shape.dims.get(usize::from(shape.dims.len() > 2));
        network.multiply(tensor, columns, mult_adds, runs, is_expert);
    }
    // A model without the matrix for words that ends in a choice of words shares that of the words.
    let chooses = [
        "ForCausalLM",
        "LMHeadModel",
        "ForConditionalGeneration",
        "ForMaskedLM",
        "ForPreTraining",
    ]
    .iter()
    .any(|end| config.class.ends_with(end));
    if chooses && !network.chooses() && config.family != "electra" {
        let Some((tensor, shape)) = words else {
            return unknown(
                "the choice of the next token",
                "it has neither lm_head nor a matrix of the words",
            );
        };
        let all = elements(tensor, shape)?;
        network.multiply(tensor, shape.dims.first(), all, Runs::Logits, false);
    }
    Ok(())
}

fn elements(tensor: &str, shape: &Shape) -> Result<u64, Unknown> {
    let product = shape.dims.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
    product.map_or_else(
        || unknown("weights", format!("{} has no size", crate::printable(tensor))),
        Ok,
    )
}

/// Weights in a tensor, also where several are packed into one element.
fn weights(config: &Config, tensor: &str, name: &Name<'_>, shape: &Shape) -> Result<u64, Unknown> {
    let elements = elements(tensor, shape)?;
    let times = match (name.packing, shape.data_type.as_str()) {
        (Packing::Words, data_type) => {
            let bits = match data_type {
                "I32" | "U32" => 32,
                "I64" => 64,
                "U8" | "I8" => 8,
                other => return unknown("packed weights", format!("they are {}", crate::printable(other))),
            };
            let Some(packed) = config.packed_bits() else {
                return unknown("packed weights", "quantization_config does not tell their bits");
            };
            return elements.checked_mul(bits).map_or_else(
                || unknown("packed weights", "they have no size"),
                |bits| Ok(bits / packed),
            );
        }
        (Packing::Halves, _) => 2,
        // bitsandbytes keeps two weights of 4 bits in a byte, in one column.
        (Packing::Plain, "U8") if shape.dims.get(1) == Some(&1) => 2,
        (Packing::Plain, _) => 1,
    };
    elements
        .checked_mul(times)
        .map_or_else(|| unknown("packed weights", "they have no size"), Ok)
}

/// Operations for one token with the experts that it uses.
fn of_experts(config: &Config, tensor: &str, name: &Name<'_>, shape: &Shape, weights: u64) -> Result<u64, Unknown> {
    let count = config.number(&[
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_num_experts",
    ]);
    let used = config.number(&["num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k"]);
    let experts = Experts::new(count, used, "config.json does")?;
    experts.mult_adds(tensor, weights, name.expert, shape.dims.first())
}

fn attention(config: &Config, tensors: &Tensors<'_>, network: &mut Network) -> Result<(), Unknown> {
    let mut blocks: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (name, _) in tensors.values() {
        if let Some((before, number)) = name.block {
            blocks.entry(before).or_default().insert(number);
        }
    }
    if blocks.is_empty() {
        return unknown("blocks", "the weights hold none of them");
    }
    for (before, numbers) in blocks {
        let is_encoder =
            network.kind == Kind::Encoder || network.kind == Kind::EncoderDecoder && before.ends_with("encoder");
        let is_decoder = network.kind == Kind::EncoderDecoder && !is_encoder;
        let keys: &[&str] = match network.kind {
            Kind::EncoderDecoder if is_decoder => &["num_decoder_layers", "decoder_layers", "num_layers"],
            Kind::EncoderDecoder => &["num_layers", "encoder_layers"],
            _ => &["num_hidden_layers", "n_layer", "n_layers", "num_layers"],
        };
        let count = config.number(keys).filter(|count| *count <= MOST_BLOCKS);
        if !count.is_some_and(|count| numbers.iter().copied().eq(0..count)) {
            return unknown(
                "blocks",
                format!(
                    "the weights do not hold those that config.json tells of under {}",
                    keys.join(" or ")
                ),
            );
        }
        let side = if is_encoder { Side::Encoder } else { Side::Own };
        let heads = heads(config, side, network.kind)?;
        for number in numbers {
            let name = [before, &number.to_string(), "attention"].join(".");
            let window = families::window(config, number).filter(|_| side == Side::Own);
            let own = Attention {
                name: name.trim_start_matches('.').to_owned(),
                side,
                window,
                ..heads.clone()
            };
            check(&own, before, number, tensors)?;
            if is_decoder {
                network.attention.push(Attention {
                    name: format!("{}.cross", own.name),
                    side: Side::Cross,
                    window: None,
                    ..own.clone()
                });
            }
            network.attention.push(own);
        }
    }
    Ok(())
}

/// The heads of a block.
fn heads(config: &Config, side: Side, kind: Kind) -> Result<Attention, Unknown> {
    let keys: &[&str] = match (kind, side) {
        (Kind::EncoderDecoder, Side::Encoder) => &["encoder_attention_heads", "num_heads", "num_attention_heads"],
        (Kind::EncoderDecoder, _) => &["decoder_attention_heads", "num_heads", "num_attention_heads"],
        _ => &["num_attention_heads", "n_head", "n_heads", "num_heads"],
    };
    let Some(heads) = config.number(keys).filter(|heads| *heads > 0) else {
        return unknown("attention", format!("config.json does not tell {}", keys.join(" or ")));
    };
    let width = config.number(&["head_dim", "d_kv"]).or_else(|| {
        let hidden = config.number(&["hidden_size", "n_embd", "d_model", "dim", "hidden_dim"])?;
        hidden.checked_div(heads)
    });
    let Some(width) = width else {
        return unknown("attention", "config.json does not tell hidden_size");
    };
    Ok(Attention {
        name: String::new(),
        side,
        heads,
        kv_heads: kv_heads(config, heads),
        key_width: width,
        value_width: width,
        window: None,
    })
}

fn kv_heads(config: &Config, heads: u64) -> u64 {
    let told = config.number(&["num_key_value_heads"]);
    match config.family.as_str() {
        "falcon" if config.flag("new_decoder_architecture") == Some(true) => {
            config.number(&["num_kv_heads"]).unwrap_or(heads)
        }
        // These say with a flag that all heads share one key.
        "falcon" | "gpt_bigcode" => {
            let shares = config.flag("multi_query").unwrap_or(true);
            if shares {
                1
            } else {
                config.number(&["num_kv_heads"]).unwrap_or(heads)
            }
        }
        _ => told.unwrap_or(heads),
    }
}

/// The matrices must be those of the heads, or the configuration means something that dlpm does not know.
fn check(found: &Attention, before: &str, number: u64, tensors: &Tensors<'_>) -> Result<(), Unknown> {
    let of_block = tensors
        .values()
        .filter(|(name, _)| name.block == Some((before, number)));
    for (name, shape) in of_block {
        let wanted = match name.last() {
            "q_proj" | "query" | "q_lin" | "q" => found.query_rows(),
            "k_proj" | "key" | "k_lin" | "k" | "v_proj" | "value" | "v_lin" | "v" => found.key_rows(),
            "qkv_proj" | "query_key_value" | "c_attn" | "Wqkv" | "wqkv" => found.fused_rows(),
            _ => continue,
        };
        // A matrix has a row for each output; those of GPT-2 (`c_attn`) can be the other way round. Packed ones tell nothing.
        let [first, second] = shape.dims.as_slice() else {
            continue;
        };
        let is_plain = name.packing == Packing::Plain && shape.data_type != "U8";
        let fits = Some(*first) == wanted || name.last() == "c_attn" && Some(*second) == wanted;
        if is_plain && !fits {
            return unknown(
                "attention",
                format!(
                    "{} of block {number} is {first}×{second}, which does not fit its heads",
                    name.last()
                ),
            );
        }
    }
    Ok(())
}
