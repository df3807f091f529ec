//! A transformer for text as what its work depends on: the products with its weights, and its attention.
//!
//! Readers of formats make a [`Network`] of a file; this module knows no format. The formulas are those of
//! `docs/model.md`, "Language models".

mod parts;
mod settings;
mod view;
mod work;

pub use settings::{CacheType, Settings, size};

pub(crate) use parts::{Experts, MOST_BLOCKS, Unknown, unknown};
pub(crate) use view::pass;
pub use view::{Row, View};

/// What a network does with text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Makes one token after the other, as GPT and Llama do.
    Decoder,
    /// Reads all tokens at once, as BERT does.
    Encoder,
    /// An encoder of the prompt, and a decoder that attends to it, as T5.
    EncoderDecoder,
}

impl Kind {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decoder => "decoder",
            Self::Encoder => "encoder",
            Self::EncoderDecoder => "encoder-decoder",
        }
    }
}

/// How often a product with weights is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// For each token of the prompt, and for each new one.
    EveryToken,
    /// For each token of the prompt: an encoder, and the keys and values that a decoder takes from it.
    PromptToken,
    /// For each new token: the decoder behind an encoder.
    NewToken,
    /// Once for each sequence: what a classifier makes of the first token.
    Sequence,
    /// Where the next token is chosen: once for the prompt, and for each new token.
    Logits,
}

/// A product with a matrix of weights.
#[derive(Clone, Debug)]
pub struct Product {
    /// Name of the weights.
    pub name: String,
    /// What it is: `linear`, `experts`, `logits`.
    pub op: &'static str,
    /// Length of the result for one token.
    pub columns: u64,
    /// Multiply-accumulate operations for one token: elements of the matrix, of experts those that are used.
    pub mult_adds: u64,
    /// How often.
    pub runs: Runs,
}

/// What attends to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Tokens to those before them.
    Own,
    /// Tokens of the prompt to each other, in an encoder.
    Encoder,
    /// New tokens to the prompt.
    Cross,
}

/// The attention of one block.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Name of the block.
    pub name: String,
    /// Which.
    pub side: Side,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values, which are kept in the cache.
    pub kv_heads: u64,
    /// Length of a key.
    pub key_width: u64,
    /// Length of a value.
    pub value_width: u64,
    /// Most keys that a token attends to, itself included, where the block has a sliding window.
    pub window: Option<u64>,
}

/// A transformer for text.
#[derive(Clone, Debug)]
pub struct Network {
    /// The family, as the file names it.
    pub architecture: String,
    /// What it does with text.
    pub kind: Kind,
    /// Products with weights, in the order of the file.
    pub products: Vec<Product>,
    /// Attention, block by block.
    pub attention: Vec<Attention>,
    /// Tokens for which it was trained.
    pub trained_context: Option<u64>,
    /// Parts that are not counted, and why.
    pub unsupported: Vec<(String, String)>,
}
