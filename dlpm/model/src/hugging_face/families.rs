//! The families whose computation dlpm knows, by `model_type`, and how each slides a window.
//!
//! What is said of windows is what the classes of the library `transformers` do with their configurations
//! (`models/FAMILY/configuration_FAMILY.py`).

use super::config::Config;
use crate::language::Kind;

const DECODERS: &str = "bloom codegen cohere cohere2 exaone4 falcon gemma gemma2 gemma3 gemma3_text glm glm4 gpt2 \
    gpt_bigcode gpt_neox gpt_oss gptj granite granitemoe helium internlm2 llama ministral mistral mixtral mpt nemotron olmo \
    olmo2 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm starcoder2";

const ENCODERS: &str = "bert camembert data2vec-text distilbert electra mpnet roberta xlm-roberta";

const ENCODER_DECODERS: &str = "bart blenderbot m2m_100 marian mbart mt5 pegasus t5 umt5";

/// What a family does with text; `None` where dlpm does not know what it computes.
pub fn kind(family: &str) -> Option<Kind> {
    let is_in = |list: &str| list.split(' ').any(|known| known == family);
    match family {
        _ if is_in(DECODERS) => Some(Kind::Decoder),
        _ if is_in(ENCODERS) => Some(Kind::Encoder),
        _ if is_in(ENCODER_DECODERS) => Some(Kind::EncoderDecoder),
        _ => None,
    }
}

/// The window of a block: most keys that a token attends to, itself included.
pub fn window(config: &Config, block: u64) -> Option<u64> {
    let tokens = config.number(&["sliding_window"]).filter(|tokens| *tokens > 0)?;
    let at = usize::try_from(block).ok()?;
    let types = config.list("layer_types");
    if !types.is_empty() {
        return (types.get(at)?.as_str() == Some("sliding_attention")).then_some(tokens);
    }
    let uses = config.flag("use_sliding_window");
    let slides = match config.family.as_str() {
        "mistral" | "mixtral" | "ministral" | "phi3" | "phimoe" | "starcoder2" => uses != Some(false),
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => {
            uses == Some(true) && block >= config.number(&["max_window_layers"]).unwrap_or(0)
        }
        "gemma2" | "gpt_oss" => block.is_multiple_of(2),
        family @ ("gemma3" | "gemma3_text" | "cohere2") => {
            let usual = if family == "cohere2" { 4 } else { 6 };
            let period = config.number(&["sliding_window_pattern"]).filter(|period| *period > 0);
            !(block + 1).is_multiple_of(period.unwrap_or(usual))
        }
        _ => false,
    };
    slides.then_some(tokens)
}
