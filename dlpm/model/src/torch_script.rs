//! `.pt` and `.pth`: TorchScript, and what `torch.save` writes. Parameters only.
//!
//! A tensor is a call of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, …)` in a pickle, and
//! its storage a persistent id `('storage', class, key, device, elements)`.

mod checkpoint;
mod classes;
mod tensor;

use std::collections::HashSet;

use super::{
    ModelError,
    archive::Archive,
    modules,
    pickle::{self, Id, Object, Objects},
    summary::Counts,
    weights::{Weights, Why},
};
use classes::{Classes, Kind};
use tensor::Tensor;

/// Reads an archive.
///
/// # Errors
///
/// Where a pickle is malformed or too large.
pub fn read(archive: &mut Archive<'_>, name: &str) -> Result<Counts, ModelError> {
    let objects = pickle::read(&archive.bytes(name)?)?;
    let classes = Classes::read(archive)?;
    if classes.is_none() {
        return count(&objects, "torch.save");
    }
    let mut found = Found::default();
    found.walk(&objects, objects.root, classes.as_ref())?;
    let mut notes = Vec::new();
    if found.any.is_empty_of_parameters() {
        notes.push(super::NAMES_NOTE.to_owned());
    }
    // Freezing makes constants of the parameters.
    if let Some(constants) = archive.find(|name| name.ends_with("/constants.pkl")) {
        let objects = pickle::read(&archive.bytes(&constants)?)?;
        let mut of_constants = Found::default();
        of_constants.walk(&objects, objects.root, None)?;
        let constants = of_constants.any;
        if found.any.is_empty_of_parameters() && !constants.by_type.is_empty() {
            notes = vec![
                "its parameters were made constants (frozen); constant tensors of floats or small integers count"
                    .to_owned(),
            ];
            found.any = constants;
        } else {
            for sum in constants.by_type.into_values() {
                let bits = sum.bytes.and_then(|bytes| bytes.checked_mul(8));
                found.any.leave_out(Why::Unused, sum.elements, bits)?;
            }
        }
    }
    found.finish("torchscript", notes)
}

/// Counts the parameters among the objects of a pickle.
///
/// # Errors
///
/// Where they are malformed or too large.
pub fn count(objects: &Objects, format: &'static str) -> Result<Counts, ModelError> {
    let parts = checkpoint::parts(objects);
    let mut notes = Vec::new();
    if !parts.names.is_empty() {
        notes.push(format!(
            "it is a checkpoint; what it holds as {} was counted",
            parts.names.join(", ")
        ));
    }
    let mut found = Found::default();
    for root in &parts.models {
        found.walk(objects, *root, None)?;
    }
    // The rest, without the tensors that the model shares with it.
    for (root, why) in &parts.rest {
        let mut rest = Found {
            stored: std::mem::take(&mut found.stored),
            ..Found::default()
        };
        rest.walk(objects, *root, None)?;
        for sum in rest.any.by_type.values().chain(rest.any.left_out.values()) {
            let bits = sum.bytes.and_then(|bytes| bytes.checked_mul(8));
            found.any.leave_out(*why, sum.elements, bits)?;
        }
        found.stored = rest.stored;
    }
    if !found.has_parameters {
        notes.insert(0, super::NAMES_NOTE.to_owned());
    }
    found.finish(format, notes)
}

/// What was found.
#[derive(Default)]
struct Found {
    any: Weights,
    trained: u64,
    /// Whether the file tells parameters from buffers.
    has_parameters: bool,
    /// Tensors that are not parameters, as long as it is not known whether the file tells.
    others: Vec<(u64, Option<u64>, String)>,
    modules: std::collections::BTreeMap<String, u64>,
    stored: HashSet<(String, i64, Vec<u64>)>,
}

impl Weights {
    fn is_empty_of_parameters(&self) -> bool {
        self.by_type.is_empty()
    }
}

/// Where a walk is.
struct Place<'a> {
    id: Id,
    /// The last key on the way.
    key: Option<&'a str>,
    kind: Option<Kind>,
    requires_grad: Option<bool>,
}

impl Found {
    /// Goes through everything that can be reached, each object once.
    fn walk(&mut self, objects: &Objects, root: Id, classes: Option<&Classes>) -> Result<(), ModelError> {
        let mut seen = vec![false; objects.len()];
        let at = |id, key, kind| Place {
            id,
            key,
            kind,
            requires_grad: None,
        };
        let mut open = vec![at(root, None, None)];
        while let Some(place) = open.pop() {
            let key = place.key;
            match seen.get_mut(place.id) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            match objects.get(place.id) {
                Object::Items(items) => open.extend(items.iter().map(|item| at(*item, key, None))),
                Object::Dict(entries) => {
                    open.extend(entries.iter().map(|(key, value)| at(*value, objects.text(*key), None)));
                }
                Object::Made { by, arguments, state } => {
                    let by = objects.global(*by).unwrap_or_default();
                    if by.starts_with("torch._utils._rebuild_parameter") {
                        if let [data, requires_grad, ..] = objects.items(*arguments) {
                            open.push(Place {
                                id: *data,
                                key,
                                kind: Some(Kind::Parameter),
                                requires_grad: Some(*objects.get(*requires_grad) == Object::Bool(true)),
                            });
                        }
                        continue;
                    }
                    match tensor::of(objects, by, *arguments) {
                        Some(tensor) => self.add(&tensor, &place)?,
                        None => open.push(at(*arguments, key, None)),
                    }
                    let Some(state) = state else { continue };
                    let class = classes.and_then(|classes| classes.of(by));
                    match (class, objects.get(*state)) {
                        (Some(class), Object::Dict(entries)) => {
                            for (name, value) in entries {
                                let name = objects.text(*name);
                                open.push(at(*value, name, name.and_then(|name| class.kind(name))));
                            }
                        }
                        _ => open.push(at(*state, key, None)),
                    }
                }
                _ => {}
            }
        }
        // Where the file tells parameters, all other tensors are buffers.
        for (count, bits, data_type) in std::mem::take(&mut self.others) {
            if self.has_parameters {
                self.any.leave_out(Why::Buffer, count, bits)?;
            } else {
                self.any.count(&data_type, count, bits)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, tensor: &Tensor<'_>, place: &Place<'_>) -> Result<(), ModelError> {
        let stored = (tensor.storage.to_owned(), tensor.offset, tensor.size.clone());
        if !tensor.storage.is_empty() && !self.stored.insert(stored) {
            return Ok(());
        }
        let count = tensor.size.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
        let count = count.ok_or_else(|| ModelError::Malformed("a tensor in it has no size".to_owned()))?;
        let bits = tensor.bits.and_then(|bits| bits.checked_mul(count));
        let name = place.key.unwrap_or_default();
        let trained = place.requires_grad.unwrap_or(tensor.requires_grad);
        let why = match place.kind {
            Some(Kind::Parameter) => None,
            _ if super::is_statistic(name) => Some(Why::Statistic),
            Some(Kind::Buffer) => Some(Why::Buffer),
            None if super::is_average(name) => Some(Why::Average),
            None if tensor.bits.is_none() => Some(Why::Unknown),
            None if !tensor.is_weight => Some(Why::Integer),
            None => None,
        };
        if let Some(why) = why {
            return self.any.leave_out(why, count, bits);
        }
        if place.kind == Some(Kind::Parameter) {
            self.has_parameters = true;
            self.trained = self.trained.saturating_add(if trained { count } else { 0 });
            self.any.count(&tensor.data_type, count, bits)?;
            *self.modules.entry(modules::of_tensor(name)).or_default() += count;
        } else {
            self.others.push((count, bits, tensor.data_type.clone()));
            *self.modules.entry(modules::of_tensor(name)).or_default() += count;
        }
        Ok(())
    }

    fn finish(self, format: &'static str, notes: Vec<String>) -> Result<Counts, ModelError> {
        Ok(Counts {
            format,
            total_params: self.any.parameters()?,
            // A state_dict has no gradients, whatever is trained.
            trainable_params: self.has_parameters.then_some(self.trained),
            weights: self.any,
            module_params: self.modules,
            notes,
            ..Counts::default()
        })
    }
}
