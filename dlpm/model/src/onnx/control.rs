//! Operators that run graphs: `If`, `Loop`, `Scan`, `SequenceMap`.

use std::rc::Rc;

use super::{
    call::{Call, Outcome},
    ops::sequences,
    proto::Graph,
    run::{Result, Runner, Scope},
    value::{Data, Flow, Stop, Tensor, axis},
};
use crate::ModelError;

/// Turns of a loop at most.
const MOST_TURNS: u64 = 10_000;

/// An operator's result, inside what can end the whole run.
type Inner = Result<std::result::Result<Outcome, Stop>>;

fn stop(why: impl Into<String>) -> Inner {
    Ok(Err(Stop::Unsupported(why.into())))
}

fn graph<'m>(call: &Call<'m>, name: &str) -> Result<&'m Graph> {
    call.attribute(name)
        .and_then(|attribute| attribute.graph.as_deref())
        .ok_or_else(|| ModelError::Malformed(format!("{} has no graph `{name}`", crate::printable(call.op))))
}

/// A truth value, if it is known.
fn truth(tensor: &Tensor) -> Option<bool> {
    match &tensor.data {
        Some(Data::Ints(values)) => values.first().map(|value| *value != 0),
        _ => None,
    }
}

/// What is known of both.
fn common(left: Tensor, right: &Tensor) -> Tensor {
    if left == *right {
        left
    } else if left.shape == right.shape {
        Tensor {
            shape: left.shape,
            ..Tensor::default()
        }
    } else {
        Tensor::default()
    }
}

/// A tensor of many of these, at an axis.
fn stacked(element: Option<&[u64]>, count: u64, at: usize) -> Tensor {
    let shape: Option<Rc<[u64]>> = element.map(|element| {
        let mut shape = element.to_vec();
        shape.insert(at.min(shape.len()), count);
        shape.into()
    });
    Tensor {
        shape,
        ..Tensor::default()
    }
}

impl<'m> Runner<'m> {
    pub(super) fn branch(&mut self, call: &Call<'m>, scope: &Scope<'m, '_>) -> Inner {
        let (yes, no) = (graph(call, "then_branch")?, graph(call, "else_branch")?);
        if let Some(condition) = call.input(0).and_then(truth) {
            let taken = if condition { yes } else { no };
            let outputs = self.graph(taken, Vec::new(), Some(scope))?;
            return Ok(Ok(Outcome {
                outputs,
                mult_adds: None,
            }));
        }
        self.another_open_branch()?;
        // Both are tried; what both have is certain.
        let part = self.tally.part();
        let before = std::mem::replace(&mut self.tally, part.clone());
        let if_yes = self
            .graph(yes, Vec::new(), Some(scope))
            .map_err(|error| self.of_open_branch(error))?;
        let of_yes = std::mem::replace(&mut self.tally, part);
        let if_no = self
            .graph(no, Vec::new(), Some(scope))
            .map_err(|error| self.of_open_branch(error))?;
        let of_no = std::mem::replace(&mut self.tally, before);
        let same = of_yes.mult_adds == of_no.mult_adds;
        self.tally.merge(if of_yes.mult_adds <= of_no.mult_adds {
            of_yes
        } else {
            of_no
        })?;
        if !same {
            let why = format!(
                "its condition is not known, the cheaper branch is counted{}",
                self.hint()
            );
            self.tally.cannot("If", &why);
        }
        let outputs = if_yes.into_iter().zip(if_no.iter()).map(|(yes, no)| common(yes, no));
        Ok(Ok(Outcome {
            outputs: outputs.collect(),
            mult_adds: None,
        }))
    }

    /// Shapes may fit one branch only, and nobody said which one is taken.
    fn of_open_branch(&self, error: ModelError) -> ModelError {
        match (self.open_values(), error) {
            (Some(names), ModelError::Shapes { node, why }) => ModelError::Input(format!(
                "a branch of the model depends on a value that is not known, and does not fit ({node}: {why}); give the \
                 value with --value NAME=NUMBER, if it is one of the inputs {names}"
            )),
            (_, error) => error,
        }
    }

    /// How an input gets a value, where there are some to which one may be given.
    fn hint(&self) -> String {
        match self.open_values() {
            Some(names) => format!("; --value NAME=NUMBER gives one to an input ({names})"),
            None => String::new(),
        }
    }

    /// The inputs that may have a value.
    fn open_values(&self) -> Option<String> {
        let names: Vec<String> = self.open_values.iter().map(|name| crate::printable(name)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    pub(super) fn repeat(&mut self, call: &Call<'m>, scope: &Scope<'m, '_>) -> Inner {
        let body = graph(call, "body")?;
        let turns = match call.input(0) {
            None => None,
            Some(turns) => match &turns.data {
                Some(Data::Ints(turns)) => turns.first().map(|turns| u64::try_from(*turns).unwrap_or(0)),
                _ => {
                    return stop(format!(
                        "its number of turns is only known when the model runs{}",
                        self.hint()
                    ));
                }
            },
        };
        let mut condition = match call.input(1) {
            None => true,
            Some(condition) => match truth(condition) {
                Some(condition) => condition,
                None => {
                    return stop(format!(
                        "its condition is only known when the model runs{}",
                        self.hint()
                    ));
                }
            },
        };
        if turns.is_some_and(|turns| turns > MOST_TURNS) {
            return stop(format!("it has more than {MOST_TURNS} turns"));
        }
        let mut carried: Vec<Tensor> = call
            .inputs
            .iter()
            .skip(2)
            .map(|input| input.clone().unwrap_or_default())
            .collect();
        let mut elements: Vec<Option<Rc<[u64]>>> = Vec::new();
        let mut turn = 0u64;
        while condition && turns.is_none_or(|turns| turn < turns) {
            if turn >= MOST_TURNS {
                return stop(format!("it has more than {MOST_TURNS} turns"));
            }
            let first = [Tensor::int(i64::try_from(turn).unwrap_or(i64::MAX)), Tensor::int(1)];
            let values = first.into_iter().chain(carried.iter().cloned());
            let mut outputs = self.graph(body, named(body, values), Some(scope))?.into_iter();
            let goes_on = outputs.next().unwrap_or_default();
            carried = outputs.by_ref().take(carried.len()).collect();
            let scanned: Vec<_> = outputs.map(|output| output.shape).collect();
            if turn == 0 {
                elements = scanned;
            } else {
                for (element, now) in elements.iter_mut().zip(scanned) {
                    if *element != now {
                        *element = None;
                    }
                }
            }
            turn += 1;
            match truth(&goes_on) {
                Some(goes_on) => condition = goes_on,
                // What was counted so far has happened in any case.
                None => return stop("whether it goes on is only known when the model runs"),
            }
        }
        let scanned = elements.iter().map(|element| stacked(element.as_deref(), turn, 0));
        Ok(Ok(Outcome {
            outputs: carried.into_iter().chain(scanned).collect(),
            mult_adds: None,
        }))
    }

    pub(super) fn scan(&mut self, call: &Call<'m>, scope: &Scope<'m, '_>) -> Inner {
        let body = graph(call, "body")?;
        let sequences = call
            .count("num_scan_inputs")
            .and_then(|count| usize::try_from(count).ok());
        // In version 8 the lengths of the sequences come first, and everything is a batch.
        let in_batches = self.opset() < 9;
        let begin = usize::from(in_batches);
        let states = sequences.and_then(|sequences| call.inputs.len().checked_sub(sequences)?.checked_sub(begin));
        let Some(states) = states else {
            return Err(ModelError::Malformed(
                "Scan has no fitting `num_scan_inputs`".to_owned(),
            ));
        };
        if in_batches && call.input(0).is_some() {
            return stop("its sequences have a length each");
        }
        let axes = call.ints("scan_input_axes").unwrap_or_default();
        let mut batch = 1;
        let mut initial: Vec<Tensor> = Vec::new();
        for input in call.inputs.iter().skip(begin).take(states) {
            initial.push(match input {
                Some(state) if in_batches => state.shape.as_deref().and_then(without_batch).unwrap_or_default(),
                state => state.clone().unwrap_or_default(),
            });
        }
        let (mut turns, mut slices) = (None, Vec::new());
        for (number, input) in call.inputs.iter().skip(begin + states).enumerate() {
            let shape = input.as_ref().and_then(|input| input.shape.as_deref());
            let Some(mut shape) = shape.map(<[u64]>::to_vec) else {
                return stop("the length of its sequences is only known when the model runs");
            };
            if in_batches && !shape.is_empty() {
                batch = shape.remove(0);
            }
            match axis(axes.get(number).copied().unwrap_or(0), shape.len()) {
                Ok(at) => turns = Some(shape.remove(at)),
                Err(stop) => return Ok(Err(stop)),
            }
            slices.push(Tensor::of(shape));
        }
        let fits = |turns: &u64| turns.checked_mul(batch.max(1)).is_some_and(|all| all <= MOST_TURNS);
        let Some(turns) = turns.filter(fits) else {
            return stop(format!("it has no sequence, or more than {MOST_TURNS} turns"));
        };
        let mut carried = initial.clone();
        let mut elements: Vec<Option<Rc<[u64]>>> = vec![None; call.outputs.saturating_sub(states)];
        for _ in 0..batch {
            carried.clone_from(&initial);
            for _ in 0..turns {
                let values = carried.iter().chain(&slices).cloned();
                let mut outputs = self.graph(body, named(body, values), Some(scope))?.into_iter();
                carried = outputs.by_ref().take(carried.len()).collect();
                elements = outputs.map(|output| output.shape).collect();
            }
        }
        let axes = call.ints("scan_output_axes").unwrap_or_default();
        let scanned = elements.iter().enumerate().map(|(number, element)| {
            let rank = element.as_deref().map_or(0, <[u64]>::len) + 1;
            let at = axis(axes.get(number).copied().unwrap_or(0), rank).unwrap_or(0);
            stacked(element.as_deref(), turns, at)
        });
        let outputs = carried.into_iter().chain(scanned);
        let outputs = outputs.map(|output| {
            if in_batches {
                stacked(output.shape.as_deref(), batch, 0)
            } else {
                output
            }
        });
        Ok(Ok(Outcome {
            outputs: outputs.collect(),
            mult_adds: None,
        }))
    }

    /// Runs the body for each item of a sequence; further inputs are sequences of the same length, or tensors that each turn sees.
    pub(super) fn map_sequence(&mut self, call: &Call<'m>, scope: &Scope<'m, '_>) -> Inner {
        let body = graph(call, "body")?;
        let Some(items) = call.input(0).and_then(|sequence| sequence.items.as_ref()) else {
            return stop("the items of its sequence are only known when the model runs");
        };
        let mut made: Vec<Vec<Tensor>> = vec![Vec::new(); call.outputs];
        for turn in 0..items.len() {
            let values = call.inputs.iter().map(|input| match input {
                Some(Tensor { items: Some(items), .. }) => items.get(turn).cloned().unwrap_or_default(),
                input => input.clone().unwrap_or_default(),
            });
            let outputs = self.graph(body, named(body, values), Some(scope))?;
            for (made, output) in made.iter_mut().zip(outputs) {
                made.push(output);
            }
        }
        let sequences = made.into_iter().map(sequences::checked);
        Ok(sequences.collect::<Flow<Vec<Tensor>>>().map(|outputs| Outcome {
            outputs,
            mult_adds: None,
        }))
    }
}

/// The inputs of a body, by their names there.
fn named(body: &Graph, values: impl Iterator<Item = Tensor>) -> Vec<(&str, Tensor)> {
    let names = body.inputs.iter().map(|input| input.name.as_str());
    names.zip(values).collect()
}

/// One of a batch.
fn without_batch(shape: &[u64]) -> Option<Tensor> {
    shape.split_first().map(|(_, rest)| Tensor::of(rest))
}
