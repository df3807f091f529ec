//! Folders as Hugging Face's libraries write them.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// A tensor: name, type, dimensions.
pub type Tensor = (String, &'static str, Vec<u64>);

/// A tensor of 16-bit floats.
pub fn half(name: impl Into<String>, dims: &[u64]) -> Tensor {
    (name.into(), "BF16", dims.to_vec())
}

fn bytes_of(data_type: &str) -> u64 {
    match data_type {
        "F32" | "I32" => 4,
        "BF16" | "F16" => 2,
        _ => 1,
    }
}

/// A file of weights: its header and how many bytes follow.
pub fn header(tensors: &[Tensor]) -> (Vec<u8>, u64) {
    let mut offset = 0;
    let mut all = Map::new();
    all.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    for (name, data_type, dims) in tensors {
        let end = offset + dims.iter().product::<u64>() * bytes_of(data_type);
        all.insert(
            name.clone(),
            json!({ "dtype": data_type, "shape": dims, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let text = Value::Object(all).to_string();
    (
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat(),
        offset,
    )
}

/// Writes a file of weights, its data a hole.
pub fn write_weights(path: &Path, tensors: &[Tensor]) {
    let (bytes, data) = header(tensors);
    fs::write(path, &bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64 + data).unwrap();
}

/// Writes a folder with one file of weights.
pub fn write(folder: &Path, config: &Value, tensors: &[Tensor]) {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    write_weights(&folder.join("model.safetensors"), tensors);
}

/// Writes a folder with an index and two files of weights.
pub fn write_sharded(folder: &Path, config: &Value, tensors: &[Tensor]) {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut map = Map::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", number + 1);
        write_weights(&folder.join(&name), part);
        map.extend(part.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
    }
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A decoder of Llama's kind: width 64, 4 heads of 16 with 2 for keys, 96 within, 160 words, two blocks.
pub fn llama(family: &str, class: &str) -> (Value, Vec<Tensor>) {
    let config = json!({
        "model_type": family, "architectures": [class], "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 160,
        "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
    });
    let mut all = vec![
        half("model.embed_tokens.weight", &[160, 64]),
        half("model.norm.weight", &[64]),
    ];
    for block in 0..2 {
        let name = |what: &str| format!("model.layers.{block}.{what}.weight");
        all.push(half(name("input_layernorm"), &[64]));
        all.push(half(name("self_attn.q_proj"), &[64, 64]));
        all.push(half(name("self_attn.k_proj"), &[32, 64]));
        all.push(half(name("self_attn.v_proj"), &[32, 64]));
        all.push(half(name("self_attn.o_proj"), &[64, 64]));
        all.push(half(name("mlp.gate_proj"), &[96, 64]));
        all.push(half(name("mlp.up_proj"), &[96, 64]));
        all.push(half(name("mlp.down_proj"), &[64, 96]));
    }
    all.push(half("lm_head.weight", &[160, 64]));
    (config, all)
}

/// Operations with the weights of [`llama`] for one token.
pub const LLAMA_PER_TOKEN: u64 = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64);

/// Operations that choose a token in it.
pub const LLAMA_LOGITS: u64 = 160 * 64;

/// Operations of its attention for one pair of tokens, in both blocks.
pub const LLAMA_PAIR: u64 = 2 * 4 * (16 + 16);
