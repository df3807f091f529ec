//! Fields with their values, as they stand in a line.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::fields::Field;

/// A number per process, by its pid, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByPid<T>(pub Vec<(u32, T)>);

impl<T: Copy> ByPid<T> {
    /// The same with another number for each.
    pub fn map<U>(&self, figure: impl Fn(T) -> U) -> ByPid<U> {
        ByPid(self.0.iter().map(|(pid, value)| (*pid, figure(*value))).collect())
    }
}

impl ByPid<u64> {
    /// Adds to the number of a process, which is the newest one or not there yet.
    pub fn add(&mut self, pid: u32, value: u64) {
        match self.0.last_mut() {
            Some((newest, sum)) if *newest == pid => *sum = sum.saturating_add(value),
            _ => self.0.push((pid, value)),
        }
    }
}

impl<T: Serialize> Serialize for ByPid<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pid, value)| (pid, value)))
    }
}

/// By the index of the GPU, in the order of the text.
pub type ByGpu<T> = BTreeMap<String, T>;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A number of bytes.
    Integer(u64),
    /// A number per process.
    ByPid(ByPid<f64>),
    /// Bytes per process.
    IntegerByPid(ByPid<u64>),
    /// A number per GPU.
    ByGpu(ByGpu<f64>),
    /// Bytes per GPU.
    IntegerByGpu(ByGpu<u64>),
    /// A number per GPU and process.
    ByGpuAndPid(ByGpu<ByPid<f64>>),
    /// Bytes per GPU and process.
    IntegerByGpuAndPid(ByGpu<ByPid<u64>>),
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<ByPid<f64>> for Value {
    fn from(value: ByPid<f64>) -> Self {
        Self::ByPid(value)
    }
}

impl From<ByPid<u64>> for Value {
    fn from(value: ByPid<u64>) -> Self {
        Self::IntegerByPid(value)
    }
}

impl From<ByGpu<f64>> for Value {
    fn from(value: ByGpu<f64>) -> Self {
        Self::ByGpu(value)
    }
}

impl From<ByGpu<u64>> for Value {
    fn from(value: ByGpu<u64>) -> Self {
        Self::IntegerByGpu(value)
    }
}

impl From<ByGpu<ByPid<f64>>> for Value {
    fn from(value: ByGpu<ByPid<f64>>) -> Self {
        Self::ByGpuAndPid(value)
    }
}

impl From<ByGpu<ByPid<u64>>> for Value {
    fn from(value: ByGpu<ByPid<u64>>) -> Self {
        Self::IntegerByGpuAndPid(value)
    }
}

/// Fields in the order in which they were put, each at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Vec<(&'static Field, Value)>);

impl Values {
    /// Adds a field that is known.
    pub fn put(&mut self, field: &'static Field, value: Option<Value>) {
        self.0.extend(value.map(|value| (field, value)));
    }

    /// The value of a field.
    pub fn get(&self, field: &Field) -> Option<&Value> {
        self.0
            .iter()
            .find(|(found, _)| found.name == field.name)
            .map(|(_, value)| value)
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(field, value)| (field.name, value)))
    }
}
