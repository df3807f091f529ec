//! `.pt` and `.pth`: TorchScript, and what `torch.save` writes. Parameters only.
//!
//! A tensor is a call of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, …)` in a pickle, and
//! its storage a persistent id `('storage', class, key, device, elements)`.

use std::collections::HashSet;

use super::{
    ModelError,
    archive::Archive,
    pickle::{self, Id, Object, Objects},
    summary::Counts,
};

/// Keys under which checkpoints hold the model, beside the state of an optimizer.
const MODEL_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Counts the parameters.
///
/// # Errors
///
/// Where the pickle is malformed or too large.
pub fn read(archive: &mut Archive<'_>, name: &str) -> Result<Counts, ModelError> {
    let objects = pickle::read(&archive.bytes(name)?)?;
    let is_script = archive.find(|name| name.contains("/code/")).is_some();
    count(&objects, if is_script { "torchscript" } else { "torch.save" })
}

/// Counts the parameters among the objects of a pickle.
///
/// # Errors
///
/// Where they are malformed or too large.
pub fn count(objects: &Objects, format: &'static str) -> Result<Counts, ModelError> {
    let is_script = format == "torchscript";
    let mut notes = vec![super::NAMES_NOTE.to_owned()];
    let mut root = objects.root;
    if let Some((key, model)) = model_of(objects) {
        notes.push(format!("it is a checkpoint; what it holds as `{key}` was counted"));
        root = model;
    }
    let mut tensors = Tensors::default();
    tensors.walk(objects, root)?;
    let (total_params, trained) = if tensors.parameters.count > 0 {
        notes.clear();
        (tensors.parameters.count, Some(tensors.parameters.trained))
    } else {
        // A state_dict has no gradients, whatever is trained.
        let trained = (is_script && tensors.all.trained > 0).then_some(tensors.all.trained);
        (tensors.all.count, trained)
    };
    Ok(Counts {
        format,
        inputs: Vec::new(),
        total_params,
        trainable_params: trained,
        tally: None,
        notes,
        ..Counts::default()
    })
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

/// The model in a checkpoint.
fn model_of(objects: &Objects) -> Option<(&'static str, Id)> {
    let entries = entries(objects, objects.root);
    MODEL_KEYS.into_iter().find_map(|wanted| {
        let found = entries.iter().find(|(key, _)| objects.text(*key) == Some(wanted));
        found.map(|(_, model)| (wanted, *model))
    })
}

#[derive(Default)]
struct Sums {
    count: u64,
    trained: u64,
}

#[derive(Default)]
struct Tensors {
    all: Sums,
    /// Those that are parameters by their class.
    parameters: Sums,
}

impl Tensors {
    /// Goes through everything that can be reached, each object once.
    fn walk(&mut self, objects: &Objects, root: Id) -> Result<(), ModelError> {
        let mut seen = vec![false; objects.len()];
        let mut stored = HashSet::new();
        let mut open: Vec<(Id, Option<Id>, bool)> = vec![(root, None, false)];
        while let Some((id, key, is_parameter)) = open.pop() {
            match seen.get_mut(id) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            match objects.get(id) {
                Object::Items(items) => open.extend(items.iter().map(|item| (*item, key, false))),
                Object::Dict(entries) => open.extend(entries.iter().map(|(key, value)| (*value, Some(*key), false))),
                Object::Made { by, arguments, state } => {
                    let by = objects.global(*by).unwrap_or_default();
                    if by.starts_with("torch._utils._rebuild_parameter") {
                        let data = objects.items(*arguments).first();
                        open.extend(data.map(|data| (*data, key, true)));
                        continue;
                    }
                    match tensor(objects, by, *arguments) {
                        Some(tensor) => {
                            let name = key.and_then(|key| objects.text(key)).unwrap_or_default();
                            if !super::is_statistic(name)
                                && stored.insert((tensor.storage, tensor.offset, tensor.size.clone()))
                            {
                                self.add(&tensor, is_parameter)?;
                            }
                        }
                        None => open.push((*arguments, key, false)),
                    }
                    open.extend(state.map(|state| (state, key, false)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, tensor: &Tensor<'_>, is_parameter: bool) -> Result<(), ModelError> {
        let dims = tensor.size.iter().map(|dim| u64::try_from(*dim).ok());
        let count = dims.reduce(|all, dim| all?.checked_mul(dim?)).unwrap_or(Some(1));
        let sum = count.and_then(|count| Some((count, self.all.count.checked_add(count)?)));
        let Some((count, sum)) = sum else {
            return Err(ModelError::Malformed("a tensor in it has no size".to_owned()));
        };
        let trained = if tensor.requires_grad { count } else { 0 };
        self.all.count = sum;
        self.all.trained += trained;
        if is_parameter {
            self.parameters.count += count;
            self.parameters.trained += trained;
        }
        Ok(())
    }
}

struct Tensor<'a> {
    storage: &'a str,
    offset: i64,
    size: Vec<i64>,
    requires_grad: bool,
}

/// A tensor of floats or small integers; `None` for everything else.
fn tensor<'a>(objects: &'a Objects, by: &str, arguments: Id) -> Option<Tensor<'a>> {
    if !by.starts_with("torch._utils._rebuild_tensor") {
        return None;
    }
    let [storage, offset, size, _, rest @ ..] = objects.items(arguments) else {
        return None;
    };
    let Object::Persistent(storage) = objects.get(*storage) else {
        return None;
    };
    let [_, class, key, ..] = objects.items(*storage) else {
        return None;
    };
    let class = objects.global(*class)?.rsplit('.').next()?;
    let counts = matches!(
        class,
        "FloatStorage" | "HalfStorage" | "DoubleStorage" | "BFloat16Storage" | "CharStorage" | "ByteStorage"
    );
    let int = |id: &Id| match objects.get(*id) {
        Object::Int(value) => Some(*value),
        _ => None,
    };
    counts.then_some(())?;
    Some(Tensor {
        storage: objects.text(*key)?,
        offset: int(offset)?,
        size: objects.items(*size).iter().map(int).collect::<Option<_>>()?,
        requires_grad: rest
            .first()
            .is_some_and(|flag| *objects.get(*flag) == Object::Bool(true)),
    })
}
