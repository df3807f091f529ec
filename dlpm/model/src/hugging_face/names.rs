//! What the name of a tensor tells in the libraries' conventions: its block, its side, and what is done with it.

use crate::language::{Kind, Runs};

/// A name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// What stands before the block, and its number.
    pub block: Option<(&'a str, u64)>,
    /// The module within the block, or the whole module, without `weight`.
    pub module: &'a str,
    /// Which expert it belongs to, where each has tensors of its own.
    pub expert: Option<u64>,
    /// How the weights are packed.
    pub packing: Packing,
}

/// How many weights an element of a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One, or as many as the type of a tensor named `weight` tells.
    Plain,
    /// As many as the bits of the configuration fit into one, in GPTQ, AWQ and compressed-tensors.
    Words,
    /// Two, in MXFP4.
    Halves,
}

/// Names of lists of blocks.
const LISTS: [&str; 5] = ["layers", "layer", "h", "block", "blocks"];

/// The name of a tensor that may be multiplied with; `None` for biases, scales and the rest.
pub fn parse(tensor: &str) -> Option<Name<'_>> {
    let (module, packing) = strip(tensor)?;
    let mut at = 0;
    let mut block = None;
    let mut rest = module;
    let parts = module.split('.').zip(module.split('.').skip(1));
    for (list, number) in parts {
        let start = at;
        at += list.len() + 1;
        if let (true, Ok(number)) = (LISTS.contains(&list), number.parse::<u64>()) {
            let before = module.get(..start)?.trim_end_matches('.');
            block = Some((before, number));
            rest = module.get(at..)?.split_once('.').map_or("", |(_, rest)| rest);
            break;
        }
    }
    let expert = rest
        .split_once("experts.")
        .and_then(|(_, after)| after.split('.').next()?.parse().ok());
    Some(Name {
        block,
        module: rest,
        expert,
        packing,
    })
}

fn strip(tensor: &str) -> Option<(&str, Packing)> {
    for (suffix, packing) in [
        (".qweight", Packing::Words),
        (".weight_packed", Packing::Words),
        (".weight", Packing::Plain),
        ("_blocks", Packing::Halves),
    ] {
        if let Some(module) = tensor.strip_suffix(suffix) {
            return Some((module, packing));
        }
    }
    // Experts in one tensor are parameters without a module of their own.
    let is_expert = tensor.ends_with("experts.gate_up_proj") || tensor.ends_with("experts.down_proj");
    is_expert.then_some((tensor, Packing::Plain))
}

impl Name<'_> {
    /// The last part of the module.
    pub fn last(&self) -> &str {
        self.module.rsplit('.').next().unwrap_or_default()
    }

    /// Whether the tensor belongs to experts.
    pub fn is_of_experts(&self) -> bool {
        let is_list = |part: &str| part == "experts" || part == "block_sparse_moe";
        self.expert.is_some()
            || self.module.split('.').any(is_list) && !matches!(self.last(), "gate" | "router" | "layer")
    }

    /// Whether the tensor is looked up, and not multiplied with.
    pub fn is_lookup(&self) -> bool {
        matches!(
            self.last(),
            "embed_tokens"
                | "wte"
                | "wpe"
                | "word_embeddings"
                | "position_embeddings"
                | "token_type_embeddings"
                | "embed_positions"
                | "shared"
                | "relative_attention_bias"
                | "embed_in"
                | "tok_embeddings"
        )
    }

    /// Whether it is the matrix of the words, that also chooses the next one where nothing else does.
    pub fn is_words(&self) -> bool {
        matches!(
            self.last(),
            "embed_tokens" | "wte" | "word_embeddings" | "shared" | "embed_in" | "tok_embeddings"
        )
    }

    /// How often it is multiplied with.
    pub fn runs(&self, kind: Kind, class: &str) -> Runs {
        if self.block.is_none() {
            let is_logits = matches!(self.module, "lm_head" | "embed_out" | "output" | "generator_lm_head")
                || self.module.ends_with("predictions.decoder")
                || matches!(self.module, "lm_head.decoder" | "vocab_projector");
            if is_logits {
                return Runs::Logits;
            }
            let last = self.last();
            let is_of_sequence = self.module.contains("pooler")
                || last == "seq_relationship"
                || class.ends_with("ForSequenceClassification")
                    && (self.module.starts_with("classifier") || matches!(last, "score" | "pre_classifier"));
            if is_of_sequence {
                return Runs::Sequence;
            }
        }
        if kind != Kind::EncoderDecoder {
            return Runs::EveryToken;
        }
        let is_cross = self.module.contains("EncDecAttention") || self.module.contains("encoder_attn");
        let is_of_prompt = matches!(self.last(), "k" | "v" | "k_proj" | "v_proj");
        match self.block {
            Some((before, _)) if before.ends_with("encoder") => Runs::PromptToken,
            Some(_) if is_cross && is_of_prompt => Runs::PromptToken,
            _ => Runs::NewToken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_libraries() {
        for (tensor, block, module, expert, packing) in [
            (
                "model.layers.3.self_attn.q_proj.weight",
                Some(("model", 3)),
                "self_attn.q_proj",
                None,
                Packing::Plain,
            ),
            (
                "h.0.attn.c_attn.weight",
                Some(("", 0)),
                "attn.c_attn",
                None,
                Packing::Plain,
            ),
            (
                "encoder.block.1.layer.0.SelfAttention.q.weight",
                Some(("encoder", 1)),
                "layer.0.SelfAttention.q",
                None,
                Packing::Plain,
            ),
            (
                "model.layers.0.block_sparse_moe.experts.7.w1.weight",
                Some(("model", 0)),
                "block_sparse_moe.experts.7.w1",
                Some(7),
                Packing::Plain,
            ),
            (
                "model.layers.0.mlp.down_proj.qweight",
                Some(("model", 0)),
                "mlp.down_proj",
                None,
                Packing::Words,
            ),
            (
                "model.layers.0.mlp.experts.down_proj_blocks",
                Some(("model", 0)),
                "mlp.experts.down_proj",
                None,
                Packing::Halves,
            ),
            ("lm_head.weight", None, "lm_head", None, Packing::Plain),
        ] {
            let expected = Name {
                block,
                module,
                expert,
                packing,
            };
            assert_eq!(parse(tensor), Some(expected), "{tensor}");
        }
        for other in ["a.bias", "a.scales", "model.layers.0.mlp.gate.weight_scale_inv", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_router_is_not_an_expert() {
        let is_of_experts = |tensor: &str| parse(tensor).unwrap().is_of_experts();
        assert!(is_of_experts("model.layers.0.mlp.experts.7.up_proj.weight"));
        assert!(is_of_experts("model.layers.0.mlp.experts.gate_up_proj"));
        assert!(is_of_experts("model.layers.0.block_sparse_moe.input_linear.weight"));
        assert!(!is_of_experts("model.layers.0.block_sparse_moe.gate.weight"));
        assert!(!is_of_experts("model.layers.0.block_sparse_moe.router.layer.weight"));
        assert!(!is_of_experts("model.layers.0.mlp.shared_expert.up_proj.weight"));
        assert!(!is_of_experts("model.layers.0.mlp.shared_expert_gate.weight"));
    }
}
