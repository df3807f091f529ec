//! What is shown of a language model: the work of a prompt and of a new token, and the cache, in a sweep.

use serde_json::{Value, json};

use super::{CacheType, Kind, Network, Runs, Settings, Side};
use crate::{ModelError, Tally, summary::InputTensor};

/// The work for one number of sequences and one context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Sequences side by side.
    pub batch: u64,
    /// Tokens in the context of a new token, itself included.
    pub context: u64,
    /// Tokens of the prompt of each sequence.
    pub prompt_tokens: u64,
    /// Operations of all prompts, each token with all others.
    pub prefill_mult_adds: u64,
    /// The same without the pairs that a causal mask or a window hides; `None` for an encoder.
    pub prefill_mult_adds_causal: Option<u64>,
    /// Operations of one new token of each sequence; `None` for an encoder.
    pub decode_mult_adds: Option<u64>,
    /// Bytes of the cache of all sequences; `None` for an encoder.
    pub cache_bytes: Option<u64>,
}

/// A language model as its users see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The family.
    pub architecture: String,
    /// What it does with text.
    pub kind: Kind,
    /// Blocks with attention.
    pub blocks: u64,
    /// Tokens for which it was trained.
    pub trained_context: Option<u64>,
    /// Operations with weights for one token, without those that choose the next one.
    pub weights_mult_adds_per_token: u64,
    /// Operations that choose the next token.
    pub logits_mult_adds: u64,
    /// Operations of attention for each token and each key.
    pub attention_mult_adds_per_token_and_key: u64,
    /// Of what the cache is.
    pub cache: CacheType,
    /// Bytes of the cache for one token; `None` for an encoder.
    pub cache_bytes_per_token: Option<u64>,
    /// The sweep.
    pub rows: Vec<Row>,
}

impl View {
    /// Sees a network as `settings` ask.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits, or the sweep is too long.
    pub fn of(network: &Network, settings: &Settings) -> Result<Self, ModelError> {
        let decodes = network.kind != Kind::Encoder;
        let when = |value: Result<u64, ModelError>| decodes.then_some(value).transpose();
        let rows = settings
            .pairs(network.trained_context)?
            .into_iter()
            .map(|(batch, context)| {
                let prompt = settings.prompt_tokens.unwrap_or(context);
                Ok(Row {
                    batch,
                    context,
                    prompt_tokens: prompt,
                    prefill_mult_adds: network.prefill(batch, prompt, false)?,
                    prefill_mult_adds_causal: when(network.prefill(batch, prompt, true))?,
                    decode_mult_adds: when(network.decode(batch, context, prompt))?,
                    cache_bytes: when(network.cache_bytes(batch, context, prompt, settings.cache))?,
                })
            });
        Ok(Self {
            architecture: crate::printable(&network.architecture),
            kind: network.kind,
            blocks: network
                .attention
                .iter()
                .filter(|attention| attention.side != Side::Cross)
                .count() as u64,
            trained_context: network.trained_context,
            weights_mult_adds_per_token: network.per_token()?,
            logits_mult_adds: network.logits()?,
            attention_mult_adds_per_token_and_key: network.per_token_and_key()?,
            cache: settings.cache,
            cache_bytes_per_token: when(network.cache_bytes_per_token(settings.cache))?,
            rows: rows.collect::<Result<_, ModelError>>()?,
        })
    }

    /// What a reader of the numbers has to know, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![match self.kind {
            Kind::Encoder => "the pass that is counted is that of the tokens of one sequence, or of each".to_owned(),
            Kind::Decoder | Kind::EncoderDecoder => {
                "the pass that is counted is one new token of each sequence, with the first context of the sweep"
                    .to_owned()
            }
        }];
        let beyond = self.rows.iter().map(|row| row.context.max(row.prompt_tokens)).max();
        if let (Some(trained), Some(most)) = (self.trained_context, beyond)
            && most > trained
        {
            notes.push(format!(
                "the model was trained for {trained} tokens, fewer than the {most} asked for"
            ));
        }
        notes
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "batch": row.batch,
                "context": row.context,
                "prompt_tokens": row.prompt_tokens,
                "prefill_mult_adds": row.prefill_mult_adds,
                "prefill_mult_adds_causal": row.prefill_mult_adds_causal,
                "decode_mult_adds": row.decode_mult_adds,
                "kv_cache_bytes": row.cache_bytes,
            })
        });
        json!({
            "architecture": self.architecture,
            "kind": self.kind.as_str(),
            "blocks": self.blocks,
            "trained_context": self.trained_context,
            "weights_mult_adds_per_token": self.weights_mult_adds_per_token,
            "logits_mult_adds": self.logits_mult_adds,
            "attention_mult_adds_per_token_and_key": self.attention_mult_adds_per_token_and_key,
            "kv_cache_type": self.cache.as_str(),
            "kv_cache_bytes_per_token": self.cache_bytes_per_token,
            "sweep": rows.collect::<Vec<_>>(),
        })
    }
}

/// Inputs and operations of the pass that stands for the model: one new token of each sequence, or for an encoder the
/// tokens of each sequence, for the first numbers that were asked for.
///
/// # Errors
///
/// Where a sum has more than 64 bits.
pub fn pass(network: &Network, view: &View, per_layer: bool) -> Result<(Vec<InputTensor>, Tally), ModelError> {
    let mut tally = Tally::new(per_layer);
    let Some(row) = view.rows.first() else {
        return Ok((Vec::new(), tally));
    };
    let tokens = if network.kind == Kind::Encoder {
        row.prompt_tokens
    } else {
        1
    };
    let too_large = || ModelError::TooLarge("its operations have more than 64 bits; ask for fewer tokens".to_owned());
    let rows = row.batch.checked_mul(tokens).ok_or_else(too_large)?;
    for (at, product) in network.products.iter().enumerate() {
        let runs = match product.runs {
            Runs::Sequence if network.kind == Kind::Encoder => row.batch,
            _ if network.kind == Kind::Encoder || network.is_of_new_token(product.runs) => rows,
            _ => continue,
        };
        let mult_adds = product.mult_adds.checked_mul(runs).ok_or_else(too_large)?;
        tally.count(product.op, (at, &product.name), &[runs, product.columns], mult_adds)?;
    }
    for (at, attention) in network.attention.iter().enumerate() {
        let keys = if network.kind == Kind::Encoder {
            Some(tokens).filter(|_| attention.side == Side::Encoder)
        } else {
            network.keys_of_new_token(attention, row.context, row.prompt_tokens)
        };
        let Some(keys) = keys else { continue };
        let pairs = rows.checked_mul(keys).ok_or_else(too_large)?;
        let mult_adds = Network::per_pair(attention)?.checked_mul(pairs).ok_or_else(too_large)?;
        let output = [row.batch, tokens, attention.heads.saturating_mul(attention.value_width)];
        tally.count(
            "attention",
            (network.products.len() + at, &attention.name),
            &output,
            mult_adds,
        )?;
    }
    for (what, why) in &network.unsupported {
        tally.cannot(what, why);
    }
    let inputs = vec![InputTensor {
        name: "tokens".to_owned(),
        data_type: Some("token".to_owned()),
        element_bits: None,
        dims: Some(vec![row.batch, tokens]),
    }];
    Ok((inputs, tally))
}
