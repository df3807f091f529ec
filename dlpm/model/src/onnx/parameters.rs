//! Which constants of a model are its parameters.
//!
//! ONNX does not say it. Counted are constants of floats or small integers with at least one dimension that an
//! operator reads: initializers, `Constant`, and `ConstantOfShape` of a constant shape. Not counted are the statistics of a
//! batch normalisation, and scales of quantised values (see [`super::ops::is_parameter_input`]). A constant buffer, or the scales of
//! a `Resize`, cannot be told from a weight by this rule.

use std::collections::HashMap;

use super::{
    call::Call,
    data_type, ops,
    proto::{Attribute, Constant, Node},
    value::{Data, Tensor, elements},
};

/// The constants that were met.
#[derive(Debug, Default)]
pub struct Parameters {
    /// By the address of what holds them in the parsed file, so that each counts once however often it is run.
    found: HashMap<usize, usize>,
    /// Elements, and whether an operator read them.
    constants: Vec<(u64, bool)>,
}

impl Parameters {
    /// A constant as a value.
    pub fn constant(&mut self, constant: &Constant) -> Tensor {
        let mut tensor = Tensor::of(constant.dims.as_slice()).with(constant.data.clone());
        tensor.constant = true;
        if data_type::is_weight(constant.data_type) {
            self.add(std::ptr::from_ref(constant).addr(), &mut tensor);
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
                self.add(std::ptr::from_ref(attribute).addr(), &mut tensor);
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
        if data_type::is_weight(value_type) {
            self.add(std::ptr::from_ref(node).addr(), output);
        }
    }

    fn add(&mut self, key: usize, tensor: &mut Tensor) {
        let Some(shape) = tensor.shape.as_deref().filter(|shape| !shape.is_empty()) else {
            return;
        };
        let Ok(count) = elements(shape) else { return };
        let next = self.constants.len();
        let id = *self.found.entry(key).or_insert(next);
        if id == next {
            self.constants.push((count, false));
        }
        tensor.origin = Some(id);
    }

    /// Notes what an operator reads.
    pub fn used_by(&mut self, call: &Call<'_>) {
        for (at, input) in call.inputs.iter().enumerate() {
            let origin = input.as_ref().and_then(|input| input.origin);
            let constant = origin.and_then(|origin| self.constants.get_mut(origin));
            if let (Some((_, used)), true) = (constant, ops::is_parameter_input(call.op, at)) {
                *used = true;
            }
        }
    }

    /// Elements of those that were read; `None` if 64 bits do not suffice.
    pub fn total(&self) -> Option<u64> {
        let used = self.constants.iter().filter(|(_, used)| *used);
        used.map(|(count, _)| *count).try_fold(0u64, u64::checked_add)
    }
}
