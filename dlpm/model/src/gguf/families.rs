//! The families of GGUF whose computation dlpm knows, by `general.architecture`.

use crate::language::Kind;

/// Decoders of products with every matrix and attention over all tokens or a window, and of nothing else that is
/// counted. Left out are those with recurrent blocks, with compressed keys and values, or with several models in one.
const DECODERS: &str = "apertus arcee baichuan bailingmoe bitnet bloom chatglm codeshell cohere2 command-r dbrx deepseek dots1 \
    ernie4_5 exaone exaone4 falcon gemma gemma2 gemma3 glm4 gpt-oss gpt2 gptj gptneox granite granitemoe grok \
    hunyuan-dense internlm2 jais llama minicpm mistral3 mpt nemotron olmo olmo2 olmoe orion phi2 phi3 phimoe plamo \
    qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact seed_oss smollm3 starcoder starcoder2 \
    xverse";

/// Encoders that read all tokens at once.
const ENCODERS: &str = "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe t5encoder";

/// Of families with a sliding window: of so many blocks in a row, the last one sees all tokens.
const WINDOWS: [(&str, u64); 5] = [
    ("cohere2", 4),
    ("exaone4", 4),
    ("gemma2", 2),
    ("gemma3", 6),
    ("gpt-oss", 2),
];

/// What a family does with text; `None` where dlpm does not know what it computes.
pub fn kind(architecture: &str) -> Option<Kind> {
    let is_in = |list: &str| list.split(' ').any(|known| known == architecture);
    match architecture {
        "t5" => Some(Kind::EncoderDecoder),
        _ if is_in(DECODERS) => Some(Kind::Decoder),
        _ if is_in(ENCODERS) => Some(Kind::Encoder),
        _ => None,
    }
}

/// After how many blocks one sees all tokens, in a family that slides a window.
pub fn window_period(architecture: &str) -> Option<u64> {
    let found = WINDOWS.iter().find(|(family, _)| *family == architecture);
    found.map(|(_, period)| *period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_their_whole_name() {
        assert_eq!(kind("llama"), Some(Kind::Decoder));
        assert_eq!(kind("xverse"), Some(Kind::Decoder));
        assert_eq!(kind("t5"), Some(Kind::EncoderDecoder));
        assert_eq!(kind("bert"), Some(Kind::Encoder));
        for unknown in ["", " ", "lla", "mamba", "deepseek2", "llama mistral3"] {
            assert_eq!(kind(unknown), None, "{unknown}");
        }
        assert!(WINDOWS.iter().all(|(family, _)| kind(family) == Some(Kind::Decoder)));
    }
}
