//! One operator with what is known of its inputs, as the rules in [`super::ops`] see it.

use std::rc::Rc;

use super::{
    proto::{Attribute, Constant},
    value::{Data, Flow, Stop, Tensor, axis, unknown},
};
use crate::tally::Break;

/// An operator that is about to be evaluated.
#[derive(Debug)]
pub struct Call<'a> {
    /// Which operator.
    pub op: &'a str,
    /// Whose operator; empty for standard ones.
    pub domain: &'a str,
    /// Its inputs; `None` where one is left out.
    pub inputs: Vec<Option<Tensor>>,
    /// How many outputs it has.
    pub outputs: usize,
    /// Its attributes.
    pub attributes: Vec<(&'a str, &'a Attribute)>,
    /// Version of the standard operators.
    pub opset: i64,
}

/// What an operator gives.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its outputs; those that are missing are unknown.
    pub outputs: Vec<Tensor>,
    /// Multiply-accumulate operations; `None` where it has none by definition.
    pub mult_adds: Option<u64>,
}

impl Outcome {
    /// One output, no operations.
    pub fn one(output: Tensor) -> Self {
        Self {
            outputs: vec![output],
            mult_adds: None,
        }
    }

    /// One output of this shape, no operations.
    pub fn of(shape: impl Into<Rc<[u64]>>) -> Self {
        Self::one(Tensor::of(shape))
    }

    /// One output of this shape, and operations.
    pub fn counted(shape: impl Into<Rc<[u64]>>, mult_adds: u64) -> Self {
        Self {
            mult_adds: Some(mult_adds),
            ..Self::of(shape)
        }
    }
}

impl<'a> Call<'a> {
    /// The operator since which one of the inputs is not known: one without a shape first, or else one without values.
    pub fn lost(&self) -> Option<Rc<Break>> {
        let lost = |shapeless: bool| {
            let mut inputs = self.inputs.iter().flatten();
            inputs.find_map(|input| input.lost.clone().filter(|_| !shapeless || input.shape.is_none()))
        };
        lost(true).or_else(|| lost(false))
    }

    /// An input, if it is there.
    pub fn input(&self, at: usize) -> Option<&Tensor> {
        self.inputs.get(at).and_then(Option::as_ref)
    }

    /// An input that has to be there.
    ///
    /// # Errors
    ///
    /// Where it is left out.
    pub fn needed(&self, at: usize) -> Flow<&Tensor> {
        self.input(at)
            .ok_or_else(|| Stop::Bad(format!("its input {at} is missing")))
    }

    /// The shape of an input.
    ///
    /// # Errors
    ///
    /// Where it is left out or not known.
    pub fn shape(&self, at: usize) -> Flow<&[u64]> {
        match self.needed(at)?.shape.as_deref() {
            Some(shape) => Ok(shape),
            None => unknown(format!("the shape of its input {at} is not known")),
        }
    }

    /// The shape of an input that has at least `rank` dimensions.
    ///
    /// # Errors
    ///
    /// Where it has fewer, is left out or not known.
    pub fn shape_of_rank(&self, at: usize, rank: usize) -> Flow<&[u64]> {
        let shape = self.shape(at)?;
        if shape.len() < rank {
            return super::value::bad(format!(
                "its input {at} is {}, with fewer than {rank} dimensions",
                super::value::show(shape)
            ));
        }
        Ok(shape)
    }

    /// The values of an input.
    ///
    /// # Errors
    ///
    /// Where it is left out or its values are not known.
    pub fn data(&self, at: usize) -> Flow<&Data> {
        match &self.needed(at)?.data {
            Some(data) => Ok(data),
            None => unknown(format!("the values of its input {at} are not known")),
        }
    }

    /// The integers of an input.
    ///
    /// # Errors
    ///
    /// Where it is left out, or they are not known.
    pub fn ints_of(&self, at: usize) -> Flow<&[i64]> {
        match self.data(at)? {
            Data::Ints(values) => Ok(values),
            Data::Floats(_) => super::value::bad(format!("its input {at} holds no integers")),
        }
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.attributes
            .iter()
            .find(|(of, _)| *of == name)
            .map(|(_, attribute)| *attribute)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.int
    }

    /// An integer attribute that is a number of something.
    pub fn count(&self, name: &str) -> Option<u64> {
        u64::try_from(self.int(name)?).ok()
    }

    /// Whether an integer attribute is set.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name).unwrap_or(0) != 0
    }

    /// A text attribute, or "".
    pub fn text(&self, name: &str) -> &'a str {
        self.attribute(name).map_or("", |attribute| &attribute.text)
    }

    /// The integers of an attribute.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Integers that are none below 0, of an attribute.
    ///
    /// # Errors
    ///
    /// Where one is.
    pub fn counts(&self, name: &str) -> Flow<Option<Vec<u64>>> {
        self.ints(name)
            .map(|values| values.iter().map(|value| count(*value, name)).collect())
            .transpose()
    }

    /// A constant attribute.
    pub fn tensor(&self, name: &str) -> Option<&'a Constant> {
        self.attribute(name)?.tensor.as_ref()
    }

    /// Integers that newer versions of an operator take as an input and older ones as an attribute.
    ///
    /// # Errors
    ///
    /// Where they are an input that is not known.
    pub fn ints_either(&self, at: usize, name: &str) -> Flow<Option<Vec<i64>>> {
        if self.input(at).is_some() {
            return self.ints_of(at).map(|values| Some(values.to_vec()));
        }
        Ok(self.ints(name).map(<[i64]>::to_vec))
    }

    /// An axis: the attribute `axis`, counted in `rank` dimensions.
    ///
    /// # Errors
    ///
    /// Where there is no such axis.
    pub fn axis(&self, default: i64, rank: usize) -> Flow<usize> {
        axis(self.int("axis").unwrap_or(default), rank)
    }
}

/// A number that must not be below 0.
///
/// # Errors
///
/// Where it is.
pub fn count(value: i64, what: &str) -> Flow<u64> {
    u64::try_from(value).map_err(|_| Stop::Bad(format!("`{what}` is negative")))
}
