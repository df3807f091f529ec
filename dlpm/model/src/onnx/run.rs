//! Goes through a graph in its order, with shapes instead of tensors.

use std::collections::HashMap;

use super::{
    call::{Call, Outcome},
    ops,
    parameters::Parameters,
    proto::{self, Attribute, Function, Graph, Model, Node, ValueInfo},
    value::{Data, Stop, Tensor},
};
use crate::{ModelError, file::Budget, input::Dim, tally::Tally};

pub(super) type Result<T> = std::result::Result<T, ModelError>;

/// Operators that are evaluated at most: those of loops and functions count each time.
const MOST_STEPS: u64 = 300_000;

/// Graphs and functions in each other at most.
const MOST_DEPTH: usize = 48;

/// Branches whose condition is not known at most: both sides of each are run.
const MOST_OPEN_BRANCHES: usize = 1_000;

/// The state of a run.
pub struct Runner<'m> {
    functions: HashMap<(&'m str, &'m str), &'m Function>,
    opset: i64,
    steps: u64,
    depth: usize,
    open_branches: usize,
    budget: Budget,
    /// Numbers of the dimensions that have names.
    pub(super) dims: HashMap<String, u64>,
    /// Inputs whose values are not known, to name them where a condition depends on one.
    pub(super) open_values: Vec<&'m str>,
    pub(super) parameters: Parameters,
    /// What was counted.
    pub(super) tally: Tally,
}

/// Values by name; a graph inside another one sees those outside.
pub(super) struct Scope<'m, 'p> {
    parent: Option<&'p Scope<'m, 'p>>,
    values: HashMap<&'m str, Tensor>,
    /// Attributes of the function that is called.
    attributes: Vec<(&'m str, &'m Attribute)>,
    infos: HashMap<&'m str, &'m ValueInfo>,
}

impl<'m, 'p> Scope<'m, 'p> {
    fn new(parent: Option<&'p Scope<'m, 'p>>) -> Self {
        Self {
            parent,
            values: HashMap::new(),
            attributes: parent.map(|parent| parent.attributes.clone()).unwrap_or_default(),
            infos: HashMap::new(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.values
            .get(name)
            .or_else(|| self.parent.and_then(|parent| parent.get(name)))
    }
}

impl<'m> Runner<'m> {
    /// Before the first operator.
    pub fn new(model: &'m Model, budget: Budget, tally: Tally) -> Self {
        let functions = model.functions.iter();
        Self {
            functions: functions
                .map(|function| ((function.domain.as_str(), function.name.as_str()), function))
                .collect(),
            opset: model.opset,
            steps: 0,
            depth: 0,
            open_branches: 0,
            budget,
            dims: HashMap::new(),
            open_values: Vec::new(),
            parameters: Parameters::default(),
            tally,
        }
    }

    /// Runs a graph on these inputs. Its outputs, in order.
    ///
    /// # Errors
    ///
    /// Where shapes do not fit, or the graph is malformed or too large.
    pub(super) fn graph(
        &mut self,
        graph: &'m Graph,
        inputs: Vec<(&'m str, Tensor)>,
        parent: Option<&Scope<'m, '_>>,
    ) -> Result<Vec<Tensor>> {
        let mut scope = Scope::new(parent);
        for constant in &graph.initializers {
            self.budget.charge(size_of::<Tensor>() as u64)?;
            let tensor = self.parameters.constant(constant);
            scope.values.insert(constant.name.as_str(), tensor);
        }
        scope.values.extend(inputs);
        let infos = graph.value_info.iter().chain(&graph.outputs);
        scope.infos = infos.map(|info| (info.name.as_str(), info)).collect();
        self.nodes(&graph.nodes, &mut scope)?;
        graph
            .outputs
            .iter()
            .map(|output| {
                scope.get(&output.name).cloned().ok_or_else(|| {
                    ModelError::Malformed(format!("nothing makes its output `{}`", printable(&output.name)))
                })
            })
            .collect()
    }

    /// Version of the standard operators.
    pub(super) fn opset(&self) -> i64 {
        self.opset
    }

    /// Counts a branch of which both sides are run.
    pub(super) fn another_open_branch(&mut self) -> Result<()> {
        self.open_branches += 1;
        if self.open_branches > MOST_OPEN_BRANCHES {
            return Err(ModelError::TooLarge(format!(
                "it has more than {MOST_OPEN_BRANCHES} branches whose condition is not known"
            )));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &'m [Node], scope: &mut Scope<'m, '_>) -> Result<()> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(ModelError::TooLarge(
                "its graphs or functions are nested too deep".to_owned(),
            ));
        }
        // What a graph keeps is gone when it has been run.
        let budget = self.budget;
        for node in nodes {
            self.node(node, scope)?;
        }
        if scope.parent.is_some() {
            self.budget = budget;
        }
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, node: &'m Node, scope: &mut Scope<'m, '_>) -> Result<()> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(ModelError::TooLarge(format!(
                "with its loops and functions it has more than {MOST_STEPS} operators"
            )));
        }
        let call = self.call(node, scope)?;
        let outcome = match self.functions.get(&(node.domain.as_str(), node.op_type.as_str())) {
            Some(function) => Ok(self.function(function, call)?),
            None if ops::is_standard(&node.domain) => match call.op {
                "If" => self.branch(&call, scope)?,
                "Loop" => self.repeat(&call, scope)?,
                "Scan" => self.scan(&call, scope)?,
                "Constant" => Ok(Outcome::one(self.parameters.constant_node(&call))),
                _ => self.operator(node, &call),
            },
            None => self.operator(node, &call),
        };
        self.store(node, outcome, scope)
    }

    fn call(&mut self, node: &'m Node, scope: &Scope<'m, '_>) -> Result<Call<'m>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(match (name.as_str(), scope.get(name)) {
                ("", _) => None,
                (_, Some(tensor)) => Some(tensor.clone()),
                _ => {
                    return Err(ModelError::Malformed(format!(
                        "{} reads `{}`, which nothing before it makes",
                        title(node),
                        printable(name)
                    )));
                }
            });
        }
        let attributes = node.attributes.iter().filter_map(|attribute| {
            let of_caller = |reference: &str| scope.attributes.iter().find(|(name, _)| *name == reference);
            if attribute.reference.is_empty() {
                Some((attribute.name.as_str(), attribute))
            } else {
                of_caller(&attribute.reference).map(|(_, found)| (attribute.name.as_str(), *found))
            }
        });
        Ok(Call {
            op: &node.op_type,
            inputs,
            outputs: node.outputs.len(),
            attributes: attributes.collect(),
            opset: self.opset,
        })
    }

    fn operator(&mut self, node: &'m Node, call: &Call<'m>) -> std::result::Result<Outcome, Stop> {
        if !(ops::is_standard(&node.domain) && call.op == "Identity") {
            self.parameters.used_by(call);
        }
        let mut outcome = ops::evaluate(&node.domain, call)?;
        if call.op == "ConstantOfShape"
            && call.input(0).is_some_and(|shape| shape.constant)
            && let Some(output) = outcome.outputs.first_mut()
        {
            self.parameters.filled(node, call, output);
        }
        Ok(outcome)
    }

    /// Takes up what an operator gave.
    fn store(
        &mut self,
        node: &'m Node,
        outcome: std::result::Result<Outcome, Stop>,
        scope: &mut Scope<'m, '_>,
    ) -> Result<()> {
        let op = full_name(node);
        let mut outputs = match outcome {
            Ok(outcome) => {
                if let Some(mult_adds) = outcome.mult_adds {
                    let shape = outcome.outputs.first().and_then(|output| output.shape.as_deref());
                    let name = if node.name.is_empty() {
                        node.outputs.first().map_or("", String::as_str)
                    } else {
                        &node.name
                    };
                    let key = std::ptr::from_ref(node).addr();
                    self.tally
                        .count(&op, (key, name), shape.unwrap_or_default(), mult_adds)?;
                }
                outcome.outputs
            }
            Err(Stop::Bad(why)) => {
                return Err(ModelError::Shapes {
                    node: title(node),
                    why: printable(&why),
                });
            }
            Err(Stop::Unknown(why)) => {
                if ops::is_counted(&node.domain, &node.op_type) {
                    self.tally.cannot(&op, &why);
                }
                Vec::new()
            }
            Err(Stop::Unsupported(why)) => {
                self.tally.cannot(&op, &why);
                Vec::new()
            }
        };
        outputs.truncate(node.outputs.len());
        outputs.resize(node.outputs.len(), Tensor::default());
        for (name, mut tensor) in node.outputs.iter().zip(outputs) {
            if name.is_empty() {
                continue;
            }
            if tensor.shape.is_none() {
                let info = scope.infos.get(name.as_str());
                tensor.shape = info.and_then(|info| self.shape_of(info)).map(Into::into);
            }
            let values = tensor.data.as_ref().map_or(0, Data::len);
            let dims = tensor.shape.as_deref().map_or(0, <[u64]>::len);
            proto::check_rank(dims)?;
            self.budget
                .charge((size_of::<(&str, Tensor)>() + 8 * (values + dims)) as u64)?;
            scope.values.insert(name, tensor);
        }
        Ok(())
    }

    /// The shape that the file gives a value, with the dimensions that have names.
    pub(super) fn shape_of(&self, info: &'m ValueInfo) -> Option<Vec<u64>> {
        let dims = info.dims.as_ref()?.iter();
        dims.map(|dim| match dim {
            Dim::Fixed(dim) => Some(*dim),
            Dim::Named(name) => self.dims.get(name.as_str()).copied(),
            Dim::Open => None,
        })
        .collect()
    }

    fn function(&mut self, function: &'m Function, call: Call<'m>) -> Result<Outcome> {
        let mut scope = Scope::new(None);
        let inputs = function
            .inputs
            .iter()
            .zip(call.inputs.into_iter().chain(std::iter::repeat(None)));
        // An input that is left out is empty for those inside, too.
        scope.values = inputs
            .map(|(name, tensor)| (name.as_str(), tensor.unwrap_or_default()))
            .collect();
        scope.attributes = call.attributes;
        for default in &function.defaults {
            if !scope.attributes.iter().any(|(name, _)| *name == default.name) {
                scope.attributes.push((default.name.as_str(), default));
            }
        }
        let budget = self.budget;
        self.nodes(&function.nodes, &mut scope)?;
        self.budget = budget;
        let outputs = function.outputs.iter();
        Ok(Outcome {
            outputs: outputs
                .map(|name| scope.get(name).cloned().unwrap_or_default())
                .collect(),
            mult_adds: None,
        })
    }
}

/// The operator's name, with its domain where it is not ONNX's.
fn full_name(node: &Node) -> String {
    if ops::is_standard(&node.domain) {
        printable(&node.op_type)
    } else {
        printable(&format!("{}.{}", node.domain, node.op_type))
    }
}

/// An operator for a message.
fn title(node: &Node) -> String {
    let name = if node.name.is_empty() {
        node.outputs.first().map_or("", String::as_str)
    } else {
        &node.name
    };
    format!("{} `{}`", full_name(node), printable(name))
}

/// A name from a file: it must not control the terminal, nor fill it.
fn printable(text: &str) -> String {
    crate::printable(text)
}
