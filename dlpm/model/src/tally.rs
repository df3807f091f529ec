//! What has been counted, and what could not be.

use std::collections::{BTreeMap, HashMap};

use super::ModelError;

/// Layers that are listed at most.
const MOST_LAYERS: usize = 100_000;

/// Reasons that are listed one by one at most.
const MOST_REASONS: usize = 200;

/// Operations of one type of operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCount {
    /// How often it was run in one forward pass.
    pub runs: u64,
    /// Multiply-accumulate operations.
    pub mult_adds: u64,
}

/// One operator of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Its type.
    pub op: String,
    /// Dimensions of its output, the last time it ran.
    pub output: Vec<u64>,
    /// How often it was run in one forward pass.
    pub runs: u64,
    /// Multiply-accumulate operations.
    pub mult_adds: u64,
}

/// Sums of a forward pass.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All multiply-accumulate operations.
    pub mult_adds: u64,
    /// By type of operator.
    pub per_op: BTreeMap<String, OpCount>,
    /// What could not be counted: type and reason, and how often.
    pub unsupported: BTreeMap<(String, String), u64>,
    /// By operator, in the order of the model, where that was asked for.
    pub layers: Vec<Layer>,
    with_layers: bool,
    positions: HashMap<usize, usize>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(with_layers: bool) -> Self {
        Self {
            with_layers,
            ..Self::default()
        }
    }

    /// Adds a run of an operator. `layer` tells operators apart, and names them.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn count(&mut self, op: &str, layer: (usize, &str), output: &[u64], mult_adds: u64) -> Result<(), ModelError> {
        let sum = self.mult_adds.checked_add(mult_adds);
        self.mult_adds = sum.ok_or_else(|| ModelError::TooLarge("its operations have more than 64 bits".to_owned()))?;
        // No part is larger than the sum of all.
        let of_op = match self.per_op.get_mut(op) {
            Some(of_op) => of_op,
            None => self.per_op.entry(op.to_owned()).or_default(),
        };
        of_op.runs += 1;
        of_op.mult_adds += mult_adds;
        if !self.with_layers {
            return Ok(());
        }
        let next = self.layers.len();
        let at = *self.positions.entry(layer.0).or_insert(next);
        if at == next {
            if next >= MOST_LAYERS {
                return Err(ModelError::TooLarge(format!(
                    "it has more than {MOST_LAYERS} layers; leave --per-layer out"
                )));
            }
            self.layers.push(Layer {
                name: super::printable(layer.1),
                op: op.to_owned(),
                output: Vec::new(),
                runs: 0,
                mult_adds: 0,
            });
        }
        if let Some(layer) = self.layers.get_mut(at) {
            layer.output = output.to_vec();
            layer.runs += 1;
            layer.mult_adds += mult_adds;
        }
        Ok(())
    }

    /// Lists an operator that cannot be counted.
    pub fn cannot(&mut self, op: &str, why: &str) {
        let mut key = (op.to_owned(), why.to_owned());
        if self.unsupported.len() >= MOST_REASONS && !self.unsupported.contains_key(&key) {
            key = ("(others)".to_owned(), format!("more than {MOST_REASONS} reasons"));
        }
        *self.unsupported.entry(key).or_default() += 1;
    }
}
