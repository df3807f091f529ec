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
    /// Dimensions of its first input, the last time it ran; `None` where the reader does not know them.
    pub input: Option<Vec<u64>>,
    /// Dimensions of its output, the last time it ran.
    pub output: Vec<u64>,
    /// How often it was run in one forward pass.
    pub runs: u64,
    /// Multiply-accumulate operations.
    pub mult_adds: u64,
}

/// An operator that could not be counted, and what that hides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// How often it was met.
    pub runs: u64,
    /// The name of the first one, if it has one.
    pub first: String,
    /// Operators after it that could not be counted because of it, and how often.
    pub after: BTreeMap<String, u64>,
}

/// The operator after which sizes are not known.
#[derive(Debug, PartialEq, Eq)]
pub struct Break {
    /// Its type.
    pub op: String,
    /// Its name.
    pub name: String,
    /// Why it has no result.
    pub why: String,
}

/// A run of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its type.
    pub op: &'a str,
    /// Distinguishes operators of the model.
    pub key: usize,
    /// Its name.
    pub name: &'a str,
    /// The module that it belongs to, as `encoder.layers.0`; `None` where that was not asked for.
    pub module: Option<&'a str>,
    /// Dimensions of its first input, if they are known.
    pub input: Option<&'a [u64]>,
    /// Dimensions of its output.
    pub output: &'a [u64],
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
    /// What could not be counted: type and reason.
    pub unsupported: BTreeMap<(String, String), Missed>,
    /// By operator, in the order of the model, where that was asked for.
    pub layers: Vec<Layer>,
    /// By module, where that was asked for; without the modules inside.
    pub modules: BTreeMap<String, OpCount>,
    with_layers: bool,
    positions: HashMap<usize, usize>,
    /// The operators that `layers` holds, in its order.
    keys: Vec<usize>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(with_layers: bool) -> Self {
        Self {
            with_layers,
            ..Self::default()
        }
    }

    /// An empty tally for a part of the model, for [`Self::merge`].
    pub fn part(&self) -> Self {
        Self::new(self.with_layers)
    }

    /// Adds a run of an operator. `layer` distinguishes operators, and names them.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn count(&mut self, op: &str, layer: (usize, &str), output: &[u64], mult_adds: u64) -> Result<(), ModelError> {
        self.run(&Run {
            op,
            key: layer.0,
            name: layer.1,
            module: None,
            input: None,
            output,
            mult_adds,
        })
    }

    /// Adds a run of an operator.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn run(&mut self, run: &Run<'_>) -> Result<(), ModelError> {
        self.add_to_sum(run.mult_adds)?;
        // No part is larger than the sum of all.
        let once = OpCount {
            runs: 1,
            mult_adds: run.mult_adds,
        };
        add(of_name(&mut self.per_op, run.op), once);
        if let Some(module) = run.module {
            add(of_name(&mut self.modules, module), once);
        }
        if !self.with_layers {
            return Ok(());
        }
        let layer = self.layer(run.key, || Layer {
            name: super::printable(run.name),
            op: run.op.to_owned(),
            input: None,
            output: Vec::new(),
            runs: 0,
            mult_adds: 0,
        })?;
        if let Some(layer) = layer {
            layer.input = run.input.map(<[u64]>::to_vec);
            layer.output = run.output.to_vec();
            layer.runs += 1;
            layer.mult_adds += run.mult_adds;
        }
        Ok(())
    }

    fn add_to_sum(&mut self, mult_adds: u64) -> Result<(), ModelError> {
        let sum = self.mult_adds.checked_add(mult_adds);
        self.mult_adds = sum.ok_or_else(|| ModelError::TooLarge("its operations have more than 64 bits".to_owned()))?;
        Ok(())
    }

    fn layer(&mut self, key: usize, new: impl FnOnce() -> Layer) -> Result<Option<&mut Layer>, ModelError> {
        let next = self.layers.len();
        let at = *self.positions.entry(key).or_insert(next);
        if at == next {
            if next >= MOST_LAYERS {
                return Err(ModelError::TooLarge(format!(
                    "it has more than {MOST_LAYERS} layers; leave --per-layer out"
                )));
            }
            self.layers.push(new());
            self.keys.push(key);
        }
        Ok(self.layers.get_mut(at))
    }

    /// Adds a part that was counted apart from the rest. The cost is that of the part.
    ///
    /// # Errors
    ///
    /// Where a sum has more than 64 bits.
    pub fn merge(&mut self, part: Self) -> Result<(), ModelError> {
        self.add_to_sum(part.mult_adds)?;
        for (op, count) in part.per_op {
            add(self.per_op.entry(op).or_default(), count);
        }
        for (module, count) in part.modules {
            add(self.modules.entry(module).or_default(), count);
        }
        for ((op, why), missed) in part.unsupported {
            let into = self.missed(&op, &why, &missed.first);
            into.runs += missed.runs;
            for (op, runs) in missed.after {
                *into.after.entry(op).or_default() += runs;
            }
        }
        for (key, other) in part.keys.into_iter().zip(part.layers) {
            let (runs, mult_adds) = (other.runs, other.mult_adds);
            let (input, output) = (other.input.clone(), other.output.clone());
            let empty = Layer {
                runs: 0,
                mult_adds: 0,
                ..other
            };
            if let Some(layer) = self.layer(key, || empty)? {
                (layer.input, layer.output) = (input, output);
                layer.runs += runs;
                layer.mult_adds += mult_adds;
            }
        }
        Ok(())
    }

    /// Lists an operator that cannot be counted.
    pub fn cannot(&mut self, op: &str, why: &str) {
        self.missed(op, why, "").runs += 1;
    }

    /// Lists an operator that cannot be counted, with its name.
    pub fn broken(&mut self, at: &Break) {
        self.missed(&at.op, &at.why, &at.name).runs += 1;
    }

    /// Lists an operator that cannot be counted since sizes are not known after another one.
    pub fn lost(&mut self, at: &Break, op: &str) {
        let missed = self.missed(&at.op, &at.why, &at.name);
        missed.runs = missed.runs.max(1);
        *of_name(&mut missed.after, op) += 1;
    }

    fn missed(&mut self, op: &str, why: &str, name: &str) -> &mut Missed {
        let mut key = (op.to_owned(), why.to_owned());
        if self.unsupported.len() >= MOST_REASONS && !self.unsupported.contains_key(&key) {
            key = ("(others)".to_owned(), format!("more than {MOST_REASONS} reasons"));
        }
        self.unsupported.entry(key).or_insert_with(|| Missed {
            first: name.to_owned(),
            ..Missed::default()
        })
    }
}

fn add(to: &mut OpCount, more: OpCount) {
    to.runs += more.runs;
    to.mult_adds += more.mult_adds;
}

/// An entry without a copy of its name where there is one.
fn of_name<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), V::default());
    }
    map.entry(name.to_owned()).or_default()
}
