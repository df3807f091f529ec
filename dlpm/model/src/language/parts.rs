//! Parts of a network that the readers of formats make in the same way: products, experts, heads, and what is not known.

use super::{Attention, Kind, Network, Product, Runs};

/// Most blocks.
pub(crate) const MOST_BLOCKS: u64 = 10_000;

/// Why the operations are not known.
pub(crate) struct Unknown {
    /// Which part.
    pub what: String,
    /// Why.
    pub why: String,
}

pub(crate) fn unknown<T>(what: &str, why: impl Into<String>) -> Result<T, Unknown> {
    Err(Unknown {
        what: what.to_owned(),
        why: why.into(),
    })
}

impl Network {
    /// Without products and attention.
    pub(crate) fn new(architecture: &str, kind: Kind, trained_context: Option<u64>) -> Self {
        Self {
            architecture: architecture.to_owned(),
            kind,
            products: Vec::new(),
            attention: Vec::new(),
            trained_context,
            unsupported: Vec::new(),
        }
    }

    /// Adds the product with a matrix; `is_expert`: of experts, those that a token uses.
    pub(crate) fn multiply(&mut self, name: &str, columns: Option<&u64>, mult_adds: u64, runs: Runs, is_expert: bool) {
        self.products.push(Product {
            name: name.to_owned(),
            op: match runs {
                Runs::Logits => "logits",
                _ if is_expert => "experts",
                _ => "linear",
            },
            columns: columns.copied().unwrap_or(1),
            mult_adds,
            runs,
        });
    }

    /// Whether a matrix of its own chooses the next token. If none does, that of the words can.
    pub(crate) fn chooses(&self) -> bool {
        self.products.iter().any(|product| product.runs == Runs::Logits)
    }
}

/// The experts of a block.
pub(crate) struct Experts {
    count: u64,
    used: u64,
}

impl Experts {
    /// So many, of which a token uses some; `teller` is what tells both.
    ///
    /// # Errors
    ///
    /// Where it does not, or the numbers make no sense.
    pub(crate) fn new(count: Option<u64>, used: Option<u64>, teller: &str) -> Result<Self, Unknown> {
        let (Some(count), Some(used)) = (count, used) else {
            return unknown(
                "experts",
                format!("{teller} not tell how many of how many experts a token uses"),
            );
        };
        if used == 0 || used > count {
            return unknown("experts", format!("a token uses {used} of {count} experts"));
        }
        Ok(Self { count, used })
    }

    /// Operations for one token with a tensor of `weights`, which is that of one expert, or of as many as `within` says.
    ///
    /// # Errors
    ///
    /// Where a tensor of all experts is not for as many as there are.
    pub(crate) fn mult_adds(
        &self,
        tensor: &str,
        weights: u64,
        expert: Option<u64>,
        within: Option<&u64>,
    ) -> Result<u64, Unknown> {
        match expert {
            Some(expert) => Ok(if expert < self.used { weights } else { 0 }),
            None if within == Some(&self.count) => Ok(weights / self.count * self.used),
            None => unknown(
                "experts",
                format!("{} is not for {} experts", crate::printable(tensor), self.count),
            ),
        }
    }
}

impl Attention {
    /// Rows that the matrix of the queries has; `None` where they have more than 64 bits, as below.
    pub(crate) fn query_rows(&self) -> Option<u64> {
        self.heads.checked_mul(self.key_width)
    }

    /// Rows of the matrix of the keys.
    pub(crate) fn key_rows(&self) -> Option<u64> {
        self.kv_heads.checked_mul(self.key_width)
    }

    /// Rows of the matrix of the values.
    pub(crate) fn value_rows(&self) -> Option<u64> {
        self.kv_heads.checked_mul(self.value_width)
    }

    /// Rows of a matrix of all three.
    pub(crate) fn fused_rows(&self) -> Option<u64> {
        self.query_rows()?
            .checked_add(self.key_rows()?)?
            .checked_add(self.value_rows()?)
    }
}
