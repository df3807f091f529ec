//! Which constants of a model are its parameters.
//!
//! ONNX does not say it. Counted are constants of floats or small integers with at least one dimension that an
//! operator reads: initializers, `Constant`, and `ConstantOfShape` of a constant shape. Not counted are the statistics of a
//! batch normalisation, and scales of quantised values (see [`super::ops::role`]). A constant buffer, or the scales of
//! a `Resize`, cannot be told from a weight by this rule.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use super::{
    call::Call,
    data_type, ops,
    proto::{Attribute, Constant, Node},
    value::{Data, Tensor, elements},
};
use crate::{
    ModelError,
    weights::{Weights, Why},
};

/// The constants that were met.
#[derive(Debug, Default)]
pub struct Parameters {
    /// By the address of what holds them in the parsed file, so that each counts once however often it is run.
    found: HashMap<usize, usize>,
    constants: Vec<Held>,
}

/// A constant that was met.
#[derive(Debug)]
struct Held {
    elements: u64,
    data_type: i64,
    /// Weights that it holds, where they are packed.
    packed: Option<u64>,
    role: Role,
    /// The module that reads it first.
    module: Option<Rc<str>>,
}

/// As what operators read a constant; the last one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nobody has read it.
    Unused,
    /// Scale or zero point.
    Scale,
    /// Mean or variance of a batch normalisation.
    Statistic,
    /// A parameter, if it is of a type in which weights are stored.
    Parameter,
    /// A parameter of any type.
    Weight,
}

impl Parameters {
    /// A constant as a value.
    pub fn constant(&mut self, constant: &Constant) -> Tensor {
        let mut tensor = Tensor::of(constant.dims.as_slice()).with(constant.data.clone());
        tensor.constant = true;
        let key = std::ptr::from_ref(constant).addr();
        self.add(key, &mut tensor, constant.data_type);
        if let (Some(stored), Some(held)) = (constant.stored, tensor.origin.and_then(|id| self.constants.get_mut(id))) {
            held.elements = stored;
        }
        tensor
    }

    /// The value of an operator `Constant`.
    pub fn constant_node(&mut self, call: &Call<'_>) -> Tensor {
        if let Some(constant) = call.tensor("value") {
            return self.constant(constant);
        }
        let with = |find: fn(&Attribute) -> Tensor, name| call.attribute(name).map(find);
        let tensor = with(|value| Tensor::ints(value.ints.clone()), "value_ints")
            .or_else(|| with(|value| Tensor::int(value.int.unwrap_or_default()), "value_int"))
            .or_else(|| {
                let float = |value: &Attribute| f64::from(value.float.unwrap_or_default());
                let value = call.attribute("value_float").map(float)?;
                Some(Tensor::of([]).with(Some(Data::Floats([value].into()))))
            })
            .or_else(|| {
                let attribute = call.attribute("value_floats")?;
                let mut tensor = Tensor::of([attribute.floats.len() as u64]);
                self.add(std::ptr::from_ref(attribute).addr(), &mut tensor, data_type::FLOAT);
                Some(tensor.with(Some(Data::Floats(attribute.floats.as_slice().into()))))
            });
        Tensor {
            constant: true,
            ..tensor.unwrap_or_default()
        }
    }

    /// The output of a `ConstantOfShape` whose shape is a constant: weights of models that are published without them.
    pub fn filled(&mut self, node: &Node, call: &Call<'_>, output: &mut Tensor) {
        let value_type = call.tensor("value").map_or(data_type::FLOAT, |value| value.data_type);
        self.add(std::ptr::from_ref(node).addr(), output, value_type);
    }

    fn add(&mut self, key: usize, tensor: &mut Tensor, data_type: i64) {
        let Some(shape) = tensor.shape.as_deref().filter(|shape| !shape.is_empty()) else {
            return;
        };
        let Ok(count) = elements(shape) else { return };
        let next = self.constants.len();
        let id = *self.found.entry(key).or_insert(next);
        if id == next {
            self.constants.push(Held {
                elements: count,
                data_type,
                packed: None,
                role: Role::Unused,
                module: None,
            });
        }
        tensor.origin = Some(id);
    }

    /// Notes what an operator reads; `module` is the one that it belongs to, if that is of interest.
    pub fn used_by(&mut self, call: &Call<'_>, module: Option<&str>) {
        for (at, input) in call.inputs.iter().enumerate() {
            let origin = input.as_ref().and_then(|input| input.origin);
            let Some(held) = origin.and_then(|origin| self.constants.get_mut(origin)) else {
                continue;
            };
            if held.module.is_none() {
                held.module = module.map(Into::into);
            }
            let role = ops::role(call.op, at);
            if role > held.role {
                held.role = role;
            }
            if role >= Role::Parameter
                && let Some(packed) = ops::packed_weights(call, at, held.data_type)
            {
                held.role = Role::Weight;
                held.packed = Some(packed);
            }
        }
    }

    /// What they are: parameters by type, and what does not count.
    ///
    /// # Errors
    ///
    /// Where 64 bits do not suffice.
    pub fn weights(&self) -> Result<Weights, ModelError> {
        let mut weights = Weights::default();
        for held in &self.constants {
            let bits = data_type::bits(held.data_type).and_then(|bits| held.elements.checked_mul(bits));
            match held.why_not() {
                None => {
                    let count = held.packed.unwrap_or(held.elements);
                    weights.count(&held.type_name(bits, count), count, bits)?;
                }
                Some(why) => weights.leave_out(why, held.elements, bits)?,
            }
        }
        Ok(weights)
    }

    /// Parameters by the module that reads them.
    pub fn modules(&self) -> BTreeMap<String, u64> {
        let mut modules = BTreeMap::new();
        for held in self.constants.iter().filter(|held| held.why_not().is_none()) {
            if let Some(module) = &held.module {
                *modules.entry(module.to_string()).or_default() += held.packed.unwrap_or(held.elements);
            }
        }
        modules
    }
}

impl Held {
    /// Why it is not a parameter; `None` where it is one.
    fn why_not(&self) -> Option<Why> {
        match self.role {
            Role::Unused => Some(Why::Unused),
            Role::Scale => Some(Why::Scale),
            Role::Statistic => Some(Why::Statistic),
            Role::Parameter if !data_type::is_weight(self.data_type) => Some(Why::Integer),
            Role::Parameter | Role::Weight => None,
        }
    }

    /// Of packed weights, with the bits of each, scales not included.
    fn type_name(&self, bits: Option<u64>, count: u64) -> String {
        let name = data_type::name(self.data_type);
        match (self.packed, bits.and_then(|bits| bits.checked_div(count))) {
            (Some(_), Some(each)) => format!("{each}-bit in {name}"),
            _ => name.to_owned(),
        }
    }
}
