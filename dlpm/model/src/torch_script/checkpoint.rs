//! A checkpoint: a dictionary with the model, and beside it an optimizer's state, moving averages and others.

use std::collections::HashSet;

use crate::{
    pickle::{Id, Object, Objects},
    weights::Why,
};

/// Keys under which training scripts hold the model, the most specific first.
const MODEL_KEYS: [&str; 9] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
];

/// Objects that are looked at to find which parts of a checkpoint hold tensors.
const MOST_VISITS: usize = 2_000_000;

/// What of a pickle is the model, and what is not.
#[derive(Debug, Default)]
pub struct Parts {
    /// Keys of the model, as they are shown; none where everything is.
    pub names: Vec<String>,
    /// Where the model is.
    pub models: Vec<Id>,
    /// The rest, and why it does not count.
    pub rest: Vec<(Id, Why)>,
}

/// Takes a checkpoint apart.
pub fn parts(objects: &Objects) -> Parts {
    let whole = || Parts {
        models: vec![objects.root],
        ..Parts::default()
    };
    // A module that was saved whole is not a checkpoint, whatever its attributes are called.
    if matches!(objects.get(objects.root), Object::Made { by, .. }
        if objects.global(*by).is_some_and(|by| by != "collections.OrderedDict"))
    {
        return whole();
    }
    // A table of weights has tensors as its values; a checkpoint has tables, or modules.
    let (mut barren, mut left) = (HashSet::new(), MOST_VISITS);
    let holders: Vec<(&str, Id)> = entries(objects, objects.root)
        .iter()
        .filter_map(|(key, value)| Some((objects.text(*key)?, *value)))
        .filter(|(_, value)| holds_tensors(objects, *value, &mut barren, &mut left))
        .collect();
    if holders.is_empty() {
        return whole();
    }
    let is_optimizer = |key: &str, value: Id| {
        let keys: Vec<&str> = entries(objects, value)
            .iter()
            .filter_map(|(key, _)| objects.text(*key))
            .collect();
        (keys.contains(&"state") && keys.contains(&"param_groups")) || key.to_ascii_lowercase().contains("optim")
    };
    let is_average = |key: &str| {
        let key = key.to_ascii_lowercase();
        key.split(['_', '.', '-'])
            .any(|part| part == "ema" || part == "swa" || part == "averaged")
    };
    let mut parts = Parts::default();
    let (mut plain, mut averages) = (Vec::new(), Vec::new());
    for (key, value) in holders {
        if is_optimizer(key, value) {
            parts.rest.push((value, Why::Optimizer));
        } else if is_average(key) {
            averages.push((key, value));
        } else {
            plain.push((key, value));
        }
    }
    let chosen: Vec<(&str, Id)> = match MODEL_KEYS
        .iter()
        .find_map(|wanted| plain.iter().find(|(key, _)| key == wanted))
    {
        Some(model) => vec![*model],
        None if plain.is_empty() => averages.first().copied().into_iter().collect(),
        None => plain.clone(),
    };
    for (key, value) in plain.iter().chain(&averages) {
        if chosen.contains(&(*key, *value)) {
            continue;
        }
        let why = if is_average(key) { Why::Average } else { Why::Beside };
        parts.rest.push((*value, why));
    }
    parts.names = chosen
        .iter()
        .map(|(key, _)| format!("`{}`", crate::printable(key)))
        .collect();
    parts.models = chosen.into_iter().map(|(_, value)| value).collect();
    // Tensors that lie in the checkpoint itself, beside the tables.
    for (_, value) in entries(objects, objects.root) {
        if is_tensor(objects, *value) {
            parts.rest.push((*value, Why::Beside));
        }
    }
    parts
}

/// The items of a dictionary, also of one that a class made.
fn entries(objects: &Objects, id: Id) -> &[(Id, Id)] {
    match objects.get(id) {
        Object::Dict(entries) => entries,
        Object::Made { state: Some(state), .. } => match objects.get(*state) {
            Object::Dict(entries) => entries,
            _ => &[],
        },
        _ => &[],
    }
}

fn is_tensor(objects: &Objects, id: Id) -> bool {
    matches!(objects.get(id), Object::Made { by, .. }
        if objects.global(*by).is_some_and(|by| by.starts_with("torch._utils._rebuild") || by.starts_with("torch._tensor._rebuild")))
}

/// Whether something is not a tensor, and tensors can be reached from it.
/// `barren` are objects from which none can be reached; `left` is how many may be looked at.
fn holds_tensors(objects: &Objects, root: Id, barren: &mut HashSet<Id>, left: &mut usize) -> bool {
    if is_tensor(objects, root) {
        return false;
    }
    let mut seen = HashSet::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return false;
        }
        if barren.contains(&id) || !seen.insert(id) {
            continue;
        }
        if is_tensor(objects, id) {
            return true;
        }
        match objects.get(id) {
            Object::Items(items) => open.extend(items),
            Object::Dict(entries) => open.extend(entries.iter().map(|(_, value)| *value)),
            Object::Made { arguments, state, .. } => open.extend([Some(*arguments), *state].into_iter().flatten()),
            _ => {}
        }
    }
    barren.extend(seen);
    false
}
