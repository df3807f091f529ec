//! How much a network has to do: formulas over its products and its attention, exact in 128 bits.

use super::{Attention, CacheType, Kind, Network, Runs, Side};
use crate::ModelError;

type Sum = Result<u64, ModelError>;

fn fits(value: Option<u128>) -> Sum {
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| {
        ModelError::TooLarge("its operations have more than 64 bits; ask for fewer tokens or sequences".to_owned())
    })
}

/// The sum of products of three factors each.
fn sum(parts: impl Iterator<Item = [u64; 3]>) -> Option<u128> {
    parts
        .map(|[a, b, c]| u128::from(a).checked_mul(b.into())?.checked_mul(c.into()))
        .try_fold(0u128, |sum, part| sum.checked_add(part?))
}

/// Pairs of a token and one before it, or itself, within the window: `1 + 2 + … ` up to the window for each token.
fn causal_pairs(tokens: u64, window: Option<u64>) -> u64 {
    let reach = window.unwrap_or(tokens).min(tokens);
    let (tokens, reach) = (u128::from(tokens), u128::from(reach));
    let pairs = reach * (reach + 1) / 2 + (tokens - reach) * reach;
    u64::try_from(pairs).unwrap_or(u64::MAX)
}

impl Attention {
    /// Operations of one query with one key and its value.
    fn per_pair(&self) -> Option<u64> {
        self.heads.checked_mul(self.key_width.checked_add(self.value_width)?)
    }

    /// Elements that are kept in the cache for one token.
    fn cached(&self) -> Option<u64> {
        self.kv_heads.checked_mul(self.key_width.checked_add(self.value_width)?)
    }

    fn reached(&self, keys: u64) -> u64 {
        self.window.map_or(keys, |window| window.min(keys))
    }
}

impl Network {
    fn weights(&self, runs: &[Runs]) -> Sum {
        let of = self.products.iter().filter(|product| runs.contains(&product.runs));
        fits(sum(of.map(|product| [product.mult_adds, 1, 1])))
    }

    /// Operations with weights for one token, without those that choose the next one.
    pub fn per_token(&self) -> Sum {
        self.weights(match self.kind {
            Kind::Decoder => &[Runs::EveryToken],
            Kind::Encoder => &[Runs::EveryToken, Runs::PromptToken],
            Kind::EncoderDecoder => &[Runs::EveryToken, Runs::NewToken],
        })
    }

    /// Operations that choose the next token.
    pub fn logits(&self) -> Sum {
        self.weights(&[Runs::Logits])
    }

    /// Operations of attention for each token and each key that it attends to, where all blocks see all keys.
    pub fn per_token_and_key(&self) -> Sum {
        let attention = self.attention.iter().filter(|attention| attention.side != Side::Cross);
        let side = if self.kind == Kind::EncoderDecoder {
            Side::Own
        } else {
            Side::Encoder
        };
        let of = attention.filter(|attention| attention.side == Side::Own || attention.side == side);
        fits(
            of.map(Attention::per_pair)
                .try_fold(0u128, |sum, pair| sum.checked_add(pair?.into())),
        )
    }

    /// Operations of attention in a pass: `pairs` tells how many pairs of query and key a block has.
    fn attention(&self, sides: &[Side], batch: u64, pairs: impl Fn(&Attention) -> u64) -> Option<u128> {
        let mut all = 0u128;
        for attention in self
            .attention
            .iter()
            .filter(|attention| sides.contains(&attention.side))
        {
            let pairs = u128::from(attention.per_pair()?).checked_mul(pairs(attention).into())?;
            all = all.checked_add(pairs.checked_mul(batch.into())?)?;
        }
        Some(all)
    }

    /// Operations of the prompt of each sequence. `causal`: only the pairs that a causal mask and windows leave.
    ///
    /// # Errors
    ///
    /// Where they have more than 64 bits.
    pub fn prefill(&self, batch: u64, tokens: u64, causal: bool) -> Sum {
        let weights = sum(self.products.iter().map(|product| match product.runs {
            Runs::EveryToken | Runs::PromptToken => [product.mult_adds, batch, tokens],
            Runs::Sequence => [product.mult_adds, batch, 1],
            Runs::Logits if self.kind == Kind::Decoder => [product.mult_adds, batch, 1],
            // An encoder that fills in masked words does so for every token.
            Runs::Logits if self.kind == Kind::Encoder => [product.mult_adds, batch, tokens],
            _ => [0, 0, 0],
        }));
        let square = tokens.saturating_mul(tokens);
        let attention = self.attention(self.prompt_sides(), batch, |attention| match attention.side {
            Side::Own if causal => causal_pairs(tokens, attention.window),
            _ => square,
        });
        fits(
            weights
                .zip(attention)
                .and_then(|(weights, attention)| weights.checked_add(attention)),
        )
    }

    fn prompt_sides(&self) -> &'static [Side] {
        match self.kind {
            Kind::Decoder => &[Side::Own],
            Kind::Encoder | Kind::EncoderDecoder => &[Side::Encoder],
        }
    }

    /// Whether a product is made for each new token.
    pub fn is_of_new_token(&self, runs: Runs) -> bool {
        match self.kind {
            Kind::Decoder | Kind::EncoderDecoder => {
                matches!(runs, Runs::EveryToken | Runs::NewToken | Runs::Logits)
            }
            Kind::Encoder => false,
        }
    }

    /// Keys that a new token attends to in a block, if it does.
    pub fn keys_of_new_token(&self, attention: &Attention, context: u64, prompt: u64) -> Option<u64> {
        match attention.side {
            Side::Own => Some(attention.reached(context)),
            Side::Cross => Some(prompt),
            Side::Encoder => None,
        }
    }

    /// Operations of one new token of each sequence; `context` counts the token itself.
    ///
    /// # Errors
    ///
    /// Where they have more than 64 bits.
    pub fn decode(&self, batch: u64, context: u64, prompt: u64) -> Sum {
        let of = self
            .products
            .iter()
            .filter(|product| self.is_of_new_token(product.runs));
        let weights = sum(of.map(|product| [product.mult_adds, batch, 1]));
        let attention = self.attention(&[Side::Own, Side::Cross], batch, |attention| {
            self.keys_of_new_token(attention, context, prompt).unwrap_or(0)
        });
        fits(
            weights
                .zip(attention)
                .and_then(|(weights, attention)| weights.checked_add(attention)),
        )
    }

    /// Bytes of the cache of keys and values, of all sequences.
    ///
    /// # Errors
    ///
    /// Where they have more than 64 bits.
    pub fn cache_bytes(&self, batch: u64, context: u64, prompt: u64, cache: CacheType) -> Sum {
        let mut parts = self.attention.iter().map(|attention| {
            let keys = self.keys_of_new_token(attention, context, prompt).unwrap_or(0);
            let elements = u128::from(attention.cached()?).checked_mul(keys.into())?;
            elements
                .checked_mul(cache.bytes_of_32().into())?
                .checked_mul(batch.into())
        });
        let sum = parts.try_fold(0u128, |sum, part| sum.checked_add(part?));
        fits(sum.map(|sum| sum.div_ceil(32)))
    }

    /// Bytes of the cache that one more token of the text takes while no window is full.
    ///
    /// # Errors
    ///
    /// Where they have more than 64 bits.
    pub fn cache_bytes_per_token(&self, cache: CacheType) -> Sum {
        self.cache_bytes(1, 1, 0, cache)
    }

    /// Operations of one pair of query and key in a block.
    ///
    /// # Errors
    ///
    /// Where they have more than 64 bits.
    pub fn per_pair(attention: &Attention) -> Sum {
        fits(attention.per_pair().map(u128::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_a_causal_mask_leaves() {
        let slow = |tokens: u64, window: Option<u64>| -> u64 {
            (1..=tokens)
                .map(|token| window.map_or(token, |window| window.min(token)))
                .sum()
        };
        for tokens in [0, 1, 2, 7, 16] {
            for window in [None, Some(1), Some(3), Some(7), Some(99)] {
                assert_eq!(
                    causal_pairs(tokens, window),
                    slow(tokens, window),
                    "{tokens} {window:?}"
                );
            }
        }
        assert_eq!(causal_pairs(u64::MAX, None), u64::MAX);
    }
}
