//! Folders of Hugging Face: parameters, operations, and what a hostile folder must not do.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::{fs, os::unix::fs::symlink, path::Path};

use build::hugging_face::{
    LLAMA_LOGITS, LLAMA_PAIR, LLAMA_PER_TOKEN, Tensor, half, llama, write, write_sharded, write_weights,
};
use dlpm_model::{
    self as model, Options, Summary,
    language::{Row, Settings},
};
use serde_json::{Value, json};

fn options(context: u64) -> Options {
    Options {
        language: Settings {
            contexts: vec![context],
            ..Settings::default()
        },
        per_layer: true,
        ..Options::default()
    }
}

fn read(config: &Value, tensors: &[Tensor], context: u64) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config, tensors);
    model::read(folder.path(), &options(context)).unwrap()
}

#[track_caller]
fn row(summary: &Summary) -> Row {
    assert!(!summary.is_lower_bound(), "{:?}", summary.counts.tally);
    summary.details.language.as_ref().unwrap().rows[0]
}

fn elements(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|(_, _, dims)| dims.iter().product::<u64>()).sum()
}

fn with(mut config: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    config
}

#[test]
fn decoders_of_llamas_kind() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "gemma", "olmo", "granite"] {
        let (config, tensors) = llama(family, "XForCausalLM");
        let summary = read(&config, &tensors, 100);
        assert_eq!(summary.counts.format, "huggingface");
        assert_eq!(summary.counts.total_params, elements(&tensors));
        let row = row(&summary);
        assert_eq!(
            row.prefill_mult_adds,
            100 * LLAMA_PER_TOKEN + LLAMA_LOGITS + 100 * 100 * LLAMA_PAIR,
            "{family}"
        );
        assert_eq!(
            row.decode_mult_adds,
            Some(LLAMA_PER_TOKEN + LLAMA_LOGITS + 100 * LLAMA_PAIR)
        );
        assert_eq!(row.cache_bytes, Some(100 * 2 * 2 * 32 * 2));
        let layers = &summary.counts.tally.as_ref().unwrap().layers;
        assert_eq!(
            Some(layers.iter().map(|layer| layer.mult_adds).sum()),
            summary.mult_adds()
        );
    }
}

#[test]
fn words_choose_the_next_token_where_nothing_else_does() {
    let (config, mut tensors) = llama("llama", "LlamaForCausalLM");
    tensors.pop();
    assert_eq!(
        row(&read(&config, &tensors, 1)).decode_mult_adds,
        Some(LLAMA_PER_TOKEN + LLAMA_LOGITS + LLAMA_PAIR)
    );
    // A model without a head chooses nothing.
    let base = with(config, &json!({ "architectures": ["LlamaModel"] }));
    assert_eq!(
        row(&read(&base, &tensors, 1)).decode_mult_adds,
        Some(LLAMA_PER_TOKEN + LLAMA_PAIR)
    );
}

#[test]
fn windows_as_the_library_slides_them() {
    // Of two blocks, how many slide.
    for (family, more, sliding) in [
        ("mistral", json!({ "sliding_window": 10 }), 2),
        ("mistral", json!({ "sliding_window": null }), 0),
        ("llama", json!({ "sliding_window": 10 }), 0),
        ("qwen2", json!({ "sliding_window": 10, "use_sliding_window": false }), 0),
        (
            "qwen2",
            json!({ "sliding_window": 10, "use_sliding_window": true, "max_window_layers": 1 }),
            1,
        ),
        ("gemma2", json!({ "sliding_window": 10 }), 1),
        ("gemma3_text", json!({ "sliding_window": 10 }), 2),
        (
            "gemma3_text",
            json!({ "sliding_window": 10, "sliding_window_pattern": 2 }),
            1,
        ),
        (
            "qwen3",
            json!({ "sliding_window": 10, "layer_types": ["full_attention", "sliding_attention"] }),
            1,
        ),
    ] {
        let (config, tensors) = llama(family, "XForCausalLM");
        let row = row(&read(&with(config, &more), &tensors, 100));
        let keys = sliding * 10 + (2 - sliding) * 100;
        let expected = LLAMA_PER_TOKEN + LLAMA_LOGITS + keys * LLAMA_PAIR / 2;
        assert_eq!(row.decode_mult_adds, Some(expected), "{family} {more}");
        assert_eq!(row.cache_bytes, Some(keys * 2 * 32 * 2), "{family} {more}");
    }
}

/// The decoder with its feed-forward parts replaced.
fn with_experts(family: &str, experts: impl Fn(u64) -> Vec<Tensor>) -> (Value, Vec<Tensor>) {
    let (config, mut tensors) = llama(family, "XForCausalLM");
    tensors.retain(|(name, ..)| !name.contains(".mlp."));
    tensors.extend((0..2).flat_map(experts));
    let more = json!({ "num_local_experts": 8, "num_experts_per_tok": 2 });
    (with(config, &more), tensors)
}

#[test]
fn experts_count_as_far_as_a_token_uses_them() {
    let mixtral = with_experts("mixtral", |block| {
        let name = |what: &str| format!("model.layers.{block}.block_sparse_moe.{what}.weight");
        let experts = (0..8).flat_map(|expert| {
            [("w1", [96, 64]), ("w2", [64, 96]), ("w3", [96, 64])]
                .map(|(what, dims)| half(name(&format!("experts.{expert}.{what}")), &dims))
        });
        experts.chain([half(name("gate"), &[8, 64])]).collect()
    });
    let joined = with_experts("gpt_oss", |block| {
        let name = |what: &str| format!("model.layers.{block}.mlp.{what}");
        vec![
            half(name("router.weight"), &[8, 64]),
            half(name("experts.gate_up_proj"), &[8, 64, 192]),
            half(name("experts.gate_up_proj_bias"), &[8, 192]),
            half(name("experts.down_proj"), &[8, 96, 64]),
        ]
    });
    let packed = with_experts("gpt_oss", |block| {
        let name = |what: &str| format!("model.layers.{block}.mlp.{what}");
        vec![
            half(name("router.weight"), &[8, 64]),
            (name("experts.gate_up_proj_blocks"), "U8", vec![8, 192, 2, 16]),
            (name("experts.gate_up_proj_scales"), "U8", vec![8, 192, 2]),
            (name("experts.down_proj_blocks"), "U8", vec![8, 64, 3, 16]),
        ]
    });
    let dense = 2 * (2 * 64 * 64 + 2 * 32 * 64);
    let expected = dense + 2 * (2 * 3 * 96 * 64 + 8 * 64) + LLAMA_LOGITS + LLAMA_PAIR;
    for (config, tensors) in [mixtral, joined, packed] {
        assert_eq!(
            row(&read(&config, &tensors, 1)).decode_mult_adds,
            Some(expected),
            "{config}"
        );
    }
}

#[test]
fn packed_weights_count_as_what_they_stand_for() {
    type Packed = fn(u64, u64) -> Vec<u64>;
    let packings: [(&str, Packed, Value); 2] = [
        (
            "qweight",
            |rows, columns| vec![columns / 8, rows],
            json!({ "bits": 4, "quant_method": "gptq" }),
        ),
        (
            "weight_packed",
            |rows, columns| vec![rows, columns / 8],
            json!({ "config_groups": { "group_0": { "weights": { "num_bits": 4 } } } }),
        ),
    ];
    for (suffix, dims, packing) in packings {
        let (config, tensors) = llama("llama", "LlamaForCausalLM");
        let tensors: Vec<Tensor> = tensors
            .into_iter()
            .flat_map(|(name, data_type, shape)| match name.strip_suffix("_proj.weight") {
                None => vec![(name, data_type, shape)],
                Some(stem) => vec![
                    (format!("{stem}_proj.{suffix}"), "I32", dims(shape[0], shape[1])),
                    half(format!("{stem}_proj.scales"), &[2, shape[0]]),
                ],
            })
            .collect();
        let config = with(config, &json!({ "quantization_config": packing }));
        let expected = LLAMA_PER_TOKEN + LLAMA_LOGITS + LLAMA_PAIR;
        assert_eq!(
            row(&read(&config, &tensors, 1)).decode_mult_adds,
            Some(expected),
            "{suffix}"
        );
    }
}

#[test]
fn gpt_2_and_neox() {
    let config = json!({ "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_head": 4,
        "n_layer": 1, "n_positions": 128 });
    let name = |what: &str| format!("h.0.{what}");
    let tensors = [
        half("wte.weight", &[160, 64]),
        half("wpe.weight", &[128, 64]),
        half(name("attn.c_attn.weight"), &[64, 192]),
        half(name("attn.c_attn.bias"), &[192]),
        half(name("attn.bias"), &[1, 1, 128, 128]),
        half(name("attn.c_proj.weight"), &[64, 64]),
        half(name("mlp.c_fc.weight"), &[64, 256]),
        half(name("mlp.c_proj.weight"), &[256, 64]),
    ];
    let per_token = 64 * (192 + 64 + 2 * 256);
    let summary = read(&config, &tensors, 128);
    let row_2 = row(&summary);
    assert_eq!(row_2.decode_mult_adds, Some(per_token + 160 * 64 + 128 * 4 * 32));
    assert_eq!(summary.details.language.unwrap().trained_context, Some(128));

    let config = json!({ "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 1 });
    let name = |what: &str| format!("gpt_neox.layers.0.{what}.weight");
    let tensors = [
        half("gpt_neox.embed_in.weight", &[160, 64]),
        half(name("attention.query_key_value"), &[192, 64]),
        half(name("attention.dense"), &[64, 64]),
        half(name("mlp.dense_h_to_4h"), &[256, 64]),
        half(name("mlp.dense_4h_to_h"), &[64, 256]),
        half("embed_out.weight", &[160, 64]),
    ];
    assert_eq!(
        row(&read(&config, &tensors, 128)).decode_mult_adds,
        row_2.decode_mult_adds
    );
}

#[test]
fn an_encoder_reads_all_tokens_at_once() {
    let config = json!({ "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 1, "max_position_embeddings": 512 });
    let name = |what: &str| format!("bert.encoder.layer.0.{what}.weight");
    let mut tensors = vec![
        half("bert.embeddings.word_embeddings.weight", &[160, 64]),
        half("bert.embeddings.position_embeddings.weight", &[512, 64]),
        half("bert.embeddings.token_type_embeddings.weight", &[2, 64]),
        half("bert.embeddings.LayerNorm.weight", &[64]),
        half(name("attention.self.query"), &[64, 64]),
        half(name("attention.self.key"), &[64, 64]),
        half(name("attention.self.value"), &[64, 64]),
        half(name("attention.output.dense"), &[64, 64]),
        half(name("intermediate.dense"), &[256, 64]),
        half(name("output.dense"), &[64, 256]),
        half("cls.predictions.transform.dense.weight", &[64, 64]),
    ];
    let block = 4 * 64 * 64 + 2 * 64 * 256;
    let summary = read(&config, &tensors, 10);
    let found = row(&summary);
    assert_eq!(
        found.prefill_mult_adds,
        10 * (block + 64 * 64 + 160 * 64) + 10 * 10 * 4 * 32
    );
    assert_eq!((found.decode_mult_adds, found.cache_bytes), (None, None));
    assert_eq!(summary.mult_adds(), Some(found.prefill_mult_adds));
    assert_eq!(summary.to_json()["input_size"], json!([1, 10]));

    // A class is told once for a sequence.
    tensors.pop();
    tensors.push(half("bert.pooler.dense.weight", &[64, 64]));
    tensors.push(half("classifier.weight", &[3, 64]));
    let config = with(config, &json!({ "architectures": ["BertForSequenceClassification"] }));
    let found = row(&read(&config, &tensors, 10));
    assert_eq!(
        found.prefill_mult_adds,
        10 * block + 64 * 64 + 3 * 64 + 10 * 10 * 4 * 32
    );
}

#[test]
fn an_encoder_with_a_decoder() {
    let config = json!({ "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_kv": 8,
        "num_heads": 4, "num_layers": 1 });
    let mut tensors = vec![half("shared.weight", &[160, 64])];
    for (part, feed_forward) in [("encoder", 1), ("decoder", 2)] {
        let name = |what: &str| format!("{part}.block.0.layer.{what}.weight");
        for matrix in ["q", "k", "v"] {
            tensors.push(half(name(&format!("0.SelfAttention.{matrix}")), &[32, 64]));
            if part == "decoder" {
                tensors.push(half(name(&format!("1.EncDecAttention.{matrix}")), &[32, 64]));
            }
        }
        tensors.push(half(name("0.SelfAttention.o"), &[64, 32]));
        if part == "decoder" {
            tensors.push(half(name("1.EncDecAttention.o"), &[64, 32]));
        }
        tensors.push(half(name("0.SelfAttention.relative_attention_bias"), &[32, 4]));
        tensors.push(half(name(&format!("{feed_forward}.DenseReluDense.wi")), &[128, 64]));
        tensors.push(half(name(&format!("{feed_forward}.DenseReluDense.wo")), &[64, 128]));
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config, &tensors);
    let mut options = options(7);
    options.language.prompt_tokens = Some(20);
    let found = row(&model::read(folder.path(), &options).unwrap());
    let (matrix, feed_forward, pair) = (32 * 64, 2 * 64 * 128, 4 * 16);
    // The prompt runs through the encoder, and gives the decoder keys and values.
    assert_eq!(
        found.prefill_mult_adds,
        20 * (4 * matrix + feed_forward + 2 * matrix) + 20 * 20 * pair
    );
    let decode = 4 * matrix + 2 * matrix + feed_forward + 160 * 64 + (7 + 20) * pair;
    assert_eq!(found.decode_mult_adds, Some(decode));
    assert_eq!(found.cache_bytes, Some((7 + 20) * pair * 2));
}

#[test]
fn weights_in_several_files_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let (config, tensors) = llama("llama", "LlamaForCausalLM");
    write_sharded(folder.path(), &config, &tensors);
    let summary = model::read(folder.path(), &options(1)).unwrap();
    assert_eq!(summary.counts.total_params, elements(&tensors));
    assert_eq!(
        row(&summary).decode_mult_adds,
        Some(LLAMA_PER_TOKEN + LLAMA_LOGITS + LLAMA_PAIR)
    );
    let expected = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(summary.details.files, expected);
    let bytes: u64 = expected
        .iter()
        .map(|name| fs::metadata(folder.path().join(name)).unwrap().len())
        .sum();
    assert_eq!((summary.file_bytes, &summary.sha256), (bytes, &None));

    let fails = |why: &str| {
        let error = model::read(folder.path(), &options(1)).unwrap_err().to_string();
        assert!(error.contains(why), "no `{why}` in {error}");
    };
    write_weights(&folder.path().join(expected[3]), &tensors[..3]);
    fails("is in two of its files");
    write_weights(&folder.path().join(expected[3]), &[]);
    fails("which it does not");
    fs::remove_file(folder.path().join(expected[3])).unwrap();
    fails("model-00002-of-00002.safetensors, which belongs to it, cannot be opened");
}

/// Nothing that a file says leads out of the folder: the files outside are whole models, and would be read.
#[test]
fn no_name_and_no_link_leads_out_of_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    let (config, tensors) = llama("llama", "LlamaForCausalLM");
    write(outside.path(), &config, &tensors);
    let target = outside.path().join("model.safetensors");
    let folder = tempfile::tempdir_in(outside.path()).unwrap();
    let fails = |why: &str| {
        let error = model::read(folder.path(), &options(1)).unwrap_err().to_string();
        assert!(error.contains(why), "no `{why}` in {error}");
    };
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::copy(&target, folder.path().join("sub/model.safetensors")).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    for name in [
        "../model.safetensors",
        target.to_str().unwrap(),
        "sub/model.safetensors",
        "..",
        ".",
        "",
        "./config.json",
    ] {
        fs::write(&index, json!({ "weight_map": { "lm_head.weight": name } }).to_string()).unwrap();
        fails("lies outside the model's folder");
    }
    fs::remove_file(&index).unwrap();
    for (name, target) in [
        ("model.safetensors", target.clone()),
        ("model.safetensors", Path::new("..").join("model.safetensors")),
        ("model.safetensors.index.json", outside.path().join("config.json")),
    ] {
        let link = folder.path().join(name);
        symlink(&target, &link).unwrap();
        fails("is a link out of it");
        fs::remove_file(&link).unwrap();
    }
    let config_path = folder.path().join("config.json");
    fs::remove_file(&config_path).unwrap();
    symlink(outside.path().join("config.json"), &config_path).unwrap();
    fails("is a link out of it");
}

/// Hugging Face's cache has links only: `snapshots/REVISION/config.json` to `blobs/HASH`.
#[test]
fn a_snapshot_in_the_cache_is_read_through_its_links() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/abc"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    let (config, tensors) = llama("llama", "LlamaForCausalLM");
    write(&blobs, &config, &tensors);
    for name in ["config.json", "model.safetensors"] {
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    let summary = model::read(&snapshot, &options(1)).unwrap();
    assert_eq!(summary.counts.total_params, elements(&tensors));
    // A link in `blobs` leads elsewhere again.
    let blob = blobs.join("model.safetensors");
    fs::rename(&blob, cache.path().join("moved")).unwrap();
    symlink("../moved", &blob).unwrap();
    model::read(&snapshot, &options(1)).unwrap_err();
}

#[test]
fn what_a_folder_computes_is_unknown_rather_than_guessed() {
    let (config, tensors) = llama("llama", "LlamaForCausalLM");
    let mut fewer = tensors.clone();
    fewer.retain(|(name, ..)| !name.contains("layers.1."));
    for (config, tensors, why) in [
        (
            with(config.clone(), &json!({ "model_type": "mamba" })),
            &tensors,
            "model_type mamba",
        ),
        (
            with(config.clone(), &json!({ "model_type": null })),
            &tensors,
            "no model_type",
        ),
        (
            with(config.clone(), &json!({ "num_hidden_layers": 3 })),
            &tensors,
            "num_hidden_layers",
        ),
        (
            with(config.clone(), &json!({ "num_hidden_layers": 1e300 })),
            &tensors,
            "num_hidden_layers",
        ),
        (
            with(config.clone(), &json!({ "num_attention_heads": null })),
            &tensors,
            "num_attention_heads",
        ),
        (
            with(config.clone(), &json!({ "num_key_value_heads": 4 })),
            &tensors,
            "does not fit its heads",
        ),
        (
            with(config.clone(), &json!({ "head_dim": u64::MAX })),
            &tensors,
            "does not fit its heads",
        ),
        (config, &fewer, "do not hold those"),
    ] {
        let summary = read(&config, tensors, 1);
        assert_eq!(summary.counts.total_params, elements(tensors));
        assert!(summary.is_lower_bound(), "{why}");
        let unsupported = summary.counts.tally.unwrap().unsupported;
        assert!(
            format!("{unsupported:?}").contains(why),
            "no `{why}` in {unsupported:?}"
        );
    }
}

#[test]
fn other_files_of_weights_are_named_with_a_next_step() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{\"model_type\": \"llama\"}").unwrap();
    let error = || model::read(folder.path(), &options(1)).unwrap_err().to_string();
    assert!(error().contains("fetch the weights"), "{}", error());
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(
        error().contains("pytorch_model.bin") && error().contains("safe_serialization"),
        "{}",
        error()
    );
    fs::write(folder.path().join("config.json"), "{\"model_type\":").unwrap();
    assert!(error().contains("config.json, which belongs to it, is"), "{}", error());
}
