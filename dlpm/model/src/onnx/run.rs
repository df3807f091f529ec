//! Goes through a graph in its order, with shapes instead of tensors.

use std::{collections::HashMap, rc::Rc};

use super::{
    call::{Call, Outcome},
    ops,
    parameters::Parameters,
    proto::{self, Attribute, Function, Graph, Model, Node, ValueInfo},
    value::{Data, Stop, Tensor},
};
use crate::{
    ModelError,
    file::Budget,
    input::Dim,
    modules,
    tally::{Break, Run, Tally},
};

pub(super) type Result<T> = std::result::Result<T, ModelError>;

/// Operators that are evaluated at most: those of loops and functions count each time.
const MOST_STEPS: u64 = 300_000;

/// Work of all of them at most, in units of about a tenth of a microsecond: each operator, input, output, attribute,
/// constant and description of a value costs, each time that it is met.
const MOST_WORK: u64 = 4_000_000;

/// Values of small tensors that are computed for one unit of work.
const VALUES_OF_A_UNIT: usize = 8;

/// Memory of an item of a sequence, in values.
const ITEM_VALUES: usize = size_of::<Tensor>() / 8;

/// Graphs and functions in each other at most.
const MOST_DEPTH: usize = 48;

/// Branches whose condition is not known at most: both sides of each are run.
const MOST_OPEN_BRANCHES: usize = 1_000;

/// The state of a run.
pub struct Runner<'m> {
    functions: HashMap<(&'m str, &'m str), &'m Function>,
    opset: i64,
    steps: u64,
    work: u64,
    depth: usize,
    open_branches: usize,
    budget: Budget,
    /// Whether parameters and operations are summed by module.
    pub(super) with_modules: bool,
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
            work: 0,
            with_modules: false,
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
        let infos = graph.value_info.len() + graph.outputs.len() + inputs.len();
        let inherited = parent.map_or(0, |parent| parent.attributes.len());
        self.spend(1 + 6 * graph.initializers.len() + infos + inherited)?;
        let mut scope = Scope::new(parent);
        let budget = self.budget;
        for constant in &graph.initializers {
            self.budget.charge(size_of::<Tensor>() as u64)?;
            let tensor = self.parameters.constant(constant);
            scope.values.insert(constant.name.as_str(), tensor);
        }
        scope.values.extend(inputs);
        let infos = graph.value_info.iter().chain(&graph.outputs);
        scope.infos = infos.map(|info| (info.name.as_str(), info)).collect();
        self.nodes(&graph.nodes, &mut scope)?;
        // What a graph keeps is gone when it has been run.
        if parent.is_some() {
            self.budget = budget;
        }
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

    /// Takes from the work that a model may cost.
    pub(super) fn spend(&mut self, units: usize) -> Result<()> {
        self.work = self.work.saturating_add(units as u64);
        if self.work > MOST_WORK {
            return Err(ModelError::TooLarge(format!(
                "with its loops and functions, its operators have more than {MOST_WORK} inputs, outputs, constants and \
                 attributes"
            )));
        }
        Ok(())
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
        for node in nodes {
            self.node(node, scope)?;
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
        let (lost, input) = (call.lost(), call.input(0).and_then(|input| input.shape.clone()));
        let outcome = match self.functions.get(&(node.domain.as_str(), node.op_type.as_str())) {
            Some(function) => Ok(self.function(function, call)?),
            None if ops::is_standard(&node.domain) => match call.op {
                "If" => self.branch(&call, scope)?,
                "Loop" => self.repeat(&call, scope)?,
                "Scan" => self.scan(&call, scope)?,
                "SequenceMap" => self.map_sequence(&call, scope)?,
                "Constant" => Ok(Outcome::one(self.parameters.constant_node(&call))),
                _ => self.operator(node, &call),
            },
            None => self.operator(node, &call),
        };
        self.store(node, outcome, (lost, input), scope)
    }

    fn call(&mut self, node: &'m Node, scope: &Scope<'m, '_>) -> Result<Call<'m>> {
        self.spend(1 + node.inputs.len() + node.outputs.len() + 2 * node.attributes.len())?;
        let references = node
            .attributes
            .iter()
            .filter(|attribute| !attribute.reference.is_empty());
        self.spend(references.count().saturating_mul(scope.attributes.len()) / 8)?;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        let mut values = 0usize;
        for name in &node.inputs {
            inputs.push(match (name.as_str(), scope.get(name)) {
                ("", _) => None,
                (_, Some(tensor)) => {
                    values += tensor.data.as_ref().map_or(0, Data::len);
                    values += tensor.items.as_ref().map_or(0, |items| VALUES_OF_A_UNIT * items.len());
                    Some(tensor.clone())
                }
                _ => {
                    return Err(ModelError::Malformed(format!(
                        "{} reads `{}`, which nothing before it makes",
                        title(node),
                        printable(name)
                    )));
                }
            });
        }
        self.spend(values / VALUES_OF_A_UNIT)?;
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
            domain: &node.domain,
            inputs,
            outputs: node.outputs.len(),
            attributes: attributes.collect(),
            opset: self.opset,
        })
    }

    fn operator(&mut self, node: &'m Node, call: &Call<'m>) -> std::result::Result<Outcome, Stop> {
        if !(ops::is_standard(&node.domain) && call.op == "Identity") {
            let module = self.with_modules.then(|| modules::of_onnx(node));
            self.parameters.used_by(call, module.as_deref());
        }
        let mut outcome = ops::evaluate(call)?;
        if call.op == "ConstantOfShape"
            && call.input(0).is_some_and(|shape| shape.constant)
            && let Some(output) = outcome.outputs.first_mut()
        {
            self.parameters.filled(node, call, output);
        }
        Ok(outcome)
    }

    /// Takes up what an operator gave; `lost` is the operator since which one of its inputs is not known.
    fn store(
        &mut self,
        node: &'m Node,
        outcome: std::result::Result<Outcome, Stop>,
        (lost, input): (Option<Rc<Break>>, Option<Rc<[u64]>>),
        scope: &mut Scope<'m, '_>,
    ) -> Result<()> {
        let op = full_name(node);
        let broken = |why: String| {
            Rc::new(Break {
                op: op.clone(),
                name: crate::printable(name_of(node)),
                why: printable(&why),
            })
        };
        let mut reason = lost.clone();
        let is_unsupported = matches!(outcome, Err(Stop::Unsupported(_)));
        let mut outputs = match outcome {
            Ok(outcome) => {
                if let Some(mult_adds) = outcome.mult_adds {
                    let shape = outcome.outputs.first().and_then(|output| output.shape.as_deref());
                    let module = self.with_modules.then(|| modules::of_onnx(node));
                    self.tally.run(&Run {
                        op: &op,
                        key: std::ptr::from_ref(node).addr(),
                        name: name_of(node),
                        module: module.as_deref(),
                        input: input.as_deref(),
                        output: shape.unwrap_or_default(),
                        mult_adds,
                    })?;
                }
                outcome.outputs
            }
            Err(Stop::Bad(why)) => {
                return Err(ModelError::Shapes {
                    node: title(node),
                    why: printable(&why),
                });
            }
            Err(stop) => {
                let counts = ops::is_counted(&node.domain, &node.op_type);
                match (&lost, stop) {
                    (Some(first), _) if counts => self.tally.lost(first, &op),
                    (Some(_), _) => {}
                    (None, Stop::Unknown(why) | Stop::Unsupported(why) | Stop::Bad(why)) => {
                        let first = broken(why);
                        if counts || is_unsupported {
                            self.tally.broken(&first);
                        }
                        reason = Some(first);
                    }
                }
                Vec::new()
            }
        };
        outputs.truncate(node.outputs.len());
        outputs.resize(node.outputs.len(), Tensor::default());
        for (at, (name, mut tensor)) in node.outputs.iter().zip(outputs).enumerate() {
            if name.is_empty() {
                continue;
            }
            if tensor.shape.is_none() && tensor.items.is_none() {
                let info = scope.infos.get(name.as_str());
                tensor.shape = info.and_then(|info| self.shape_of(info)).map(Into::into);
                if tensor.lost.is_none() {
                    tensor.lost = Some(match &reason {
                        Some(reason) => Rc::clone(reason),
                        None => broken(format!(
                            "the shape of its output {at} is only known when the model runs"
                        )),
                    });
                }
            }
            let values = tensor.data.as_ref().map_or(0, Data::len)
                + tensor.items.as_ref().map_or(0, |items| ITEM_VALUES * items.len());
            let dims = tensor.shape.as_deref().map_or(0, <[u64]>::len);
            proto::check_rank(dims)?;
            self.spend(values / VALUES_OF_A_UNIT)?;
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
            // What value infos have as 0 may be open.
            Dim::Zero => None,
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
        self.spend(function.inputs.len() + function.defaults.len().saturating_mul(call.attributes.len()) / 8)?;
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

/// The name of an operator, or else that of its first output.
fn name_of(node: &Node) -> &str {
    if node.name.is_empty() {
        node.outputs.first().map_or("", String::as_str)
    } else {
        &node.name
    }
}

/// An operator for a message.
fn title(node: &Node) -> String {
    format!("{} `{}`", full_name(node), printable(name_of(node)))
}

/// A name from a file: it must not control the terminal, nor fill it.
fn printable(text: &str) -> String {
    crate::printable(text)
}
