//! The inputs of a model: what the user said of them, and what the file did.

use std::{collections::HashMap, str::FromStr};

use super::{ModelError, printable};

/// Names of dimensions that are listed at most.
const MOST_NAMES: usize = 100;

/// Most elements along a dimension.
const LARGEST_DIM: u64 = 1 << 40;

/// The shape of an input, as typed: `1,3,224,224` or `NAME=1,3,224,224`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Its name; without one, shapes go to the inputs in their order.
    pub name: Option<String>,
    /// Its dimensions.
    pub dims: Vec<u64>,
}

impl FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, dims) = match text.rsplit_once('=') {
            Some(("", _)) => return Err(format!("`{text}` names no input; write NAME=1,3,224,224")),
            Some((name, dims)) => (Some(name.to_owned()), dims),
            None => (None, text),
        };
        let wrong = |part: &str| {
            format!("`{part}` is not a dimension; write whole numbers with commas, as in 1,3,224,224 or x=1,3,224,224")
        };
        // `NAME=` is a scalar.
        let parts = dims.split(',').filter(|_| !(dims.is_empty() && name.is_some()));
        let dims = parts.map(|part| match part.trim().parse() {
            Ok(dim @ 0..=LARGEST_DIM) => Ok(dim),
            _ => Err(wrong(part)),
        });
        Ok(Self {
            dims: dims.collect::<Result<_, _>>()?,
            name,
        })
    }
}

/// The number of a dimension that has a name, as typed: `NAME=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDim {
    /// The name, as the file has it.
    pub name: String,
    /// How many elements there are.
    pub size: u64,
}

impl FromStr for NamedDim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` does not size a dimension; write NAME=N, as in batch=1 or past=0");
        let (name, size) = text.rsplit_once('=').ok_or_else(wrong)?;
        match size.trim().parse() {
            Ok(size @ 0..=LARGEST_DIM) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                size,
            }),
            _ => Err(wrong()),
        }
    }
}

/// The values of a small input, as typed: `NAME=NUMBER`, or `NAME=1,3,224,224` for a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct InputValue {
    /// Its name.
    pub name: String,
    /// Its values, at least one.
    pub numbers: Vec<Number>,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Whole; `true` is 1.
    Int(i64),
    /// With a decimal point.
    Float(f64),
}

impl FromStr for InputValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a value; write NAME=NUMBER, as in sr=16000, or NAME=1,3,224,224 for a vector");
        let (name, numbers) = text.rsplit_once('=').ok_or_else(wrong)?;
        let numbers = numbers.split(',').map(|number| match number.trim() {
            "true" => Ok(Number::Int(1)),
            "false" => Ok(Number::Int(0)),
            number => match (number.parse(), number.parse::<f64>()) {
                (Ok(int), _) => Ok(Number::Int(int)),
                (_, Ok(float)) if float.is_finite() => Ok(Number::Float(float)),
                _ => Err(wrong()),
            },
        });
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            numbers: numbers.collect::<Result<_, _>>()?,
        })
    }
}

/// A dimension as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(u64),
    /// 0, which some exporters write for a dimension that is open.
    Zero,
    /// A name; the number is the same wherever the name stands.
    Named(String),
    /// Nothing.
    Open,
}

/// An input as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its dimensions; `None` where even their number is open, or it is not a tensor.
    pub dims: Option<Vec<Dim>>,
}

impl Dim {
    /// A dimension of this name. Converters write a placeholder where they know nothing, and it does not mean that two
    /// dimensions are equal: PaddlePaddle's `?`, tf2onnx's `unk__12`, and an empty name.
    pub fn named(name: String) -> Self {
        let text = name.trim();
        let numbered = text.strip_prefix("unk__");
        let placeholder = matches!(text, "" | "?" | "*" | "-1" | "None" | "unk" | "unknown")
            || numbered.is_some_and(|rest| rest.chars().all(|digit| digit.is_ascii_digit()));
        if placeholder { Self::Open } else { Self::Named(name) }
    }
}

/// Dimensions of all inputs, in their order, and the numbers of those that have names.
pub type Resolved = (Vec<Option<Vec<u64>>>, HashMap<String, u64>);

/// Brings together what the file and the user say of the inputs.
///
/// # Errors
///
/// Where they contradict each other, or something is left open that has to be known. An open dimension of an input with
/// values is as long as there are values; one value is a scalar unless the file says otherwise.
pub fn resolve(
    declared: &[Declared],
    shapes: &[InputShape],
    sizes: &[NamedDim],
    values: &[InputValue],
) -> Result<Resolved, ModelError> {
    let given = assign(declared, shapes)?;
    for value in values {
        if !declared.iter().any(|input| input.name == value.name) {
            return Err(no_such("--value", &value.name, declared));
        }
    }
    let mut named = of_names(declared, sizes)?;
    for (input, given) in declared.iter().zip(&given) {
        if let (Some(dims), Some(given)) = (&input.dims, given) {
            agree(input, dims, given, &mut named)?;
        }
    }
    let value_of = |input: &Declared| values.iter().find(|value| value.name == input.name);
    let mut resolved = Vec::new();
    let mut open = Vec::new();
    for (input, given) in declared.iter().zip(given) {
        let dims = match (&given, &input.dims) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(dims)) => {
                let is_vector = dims.len() == 1;
                let length = value_of(input).map(|value| if is_vector { value.numbers.len() as u64 } else { 1 });
                let number = |dim: &Dim| match dim {
                    Dim::Fixed(dim) => Some(*dim),
                    Dim::Zero => Some(0),
                    Dim::Named(name) => named.get(name).copied().or(length),
                    Dim::Open => length,
                };
                let numbers: Option<Vec<u64>> = dims.iter().map(number).collect();
                if numbers.is_none() {
                    open.push(left_open(input, dims, &named));
                }
                numbers
            }
            (None, None) => value_of(input).map(|value| match value.numbers.len() {
                1 => Vec::new(),
                length => vec![length as u64],
            }),
        };
        resolved.push(dims);
    }
    if open.is_empty() {
        Ok((resolved, named))
    } else {
        Err(ModelError::Input(all_open(open)))
    }
}

/// Which shape belongs to which input.
fn assign(declared: &[Declared], shapes: &[InputShape]) -> Result<Vec<Option<Vec<u64>>>, ModelError> {
    let mut given: Vec<Option<Vec<u64>>> = vec![None; declared.len()];
    let mut put = |at: usize, shape: &InputShape| match given.get_mut(at) {
        Some(Some(_)) => Err(ModelError::Input(format!(
            "--input gives `{}` two shapes",
            declared
                .get(at)
                .map_or_else(String::new, |input| printable(&input.name))
        ))),
        Some(slot) => {
            *slot = Some(shape.dims.clone());
            Ok(())
        }
        None => Err(ModelError::Input(format!(
            "there are more --input than the model has inputs ({})",
            names(declared)
        ))),
    };
    let mut next = 0;
    for shape in shapes {
        match &shape.name {
            None => {
                put(next, shape)?;
                next += 1;
            }
            Some(name) => match declared.iter().position(|input| input.name == *name) {
                Some(at) => put(at, shape)?,
                None => return Err(no_such("--input", name, declared)),
            },
        }
    }
    Ok(given)
}

fn agree(input: &Declared, dims: &[Dim], given: &[u64], named: &mut HashMap<String, u64>) -> Result<(), ModelError> {
    let refuse = |why: String| {
        Err(ModelError::Input(format!(
            "--input of `{}`: {why}",
            printable(&input.name)
        )))
    };
    if dims.len() != given.len() {
        return refuse(format!(
            "{} dimensions are given, the file has {}",
            given.len(),
            dims.len()
        ));
    }
    for (at, (dim, given)) in dims.iter().zip(given).enumerate() {
        match dim {
            Dim::Fixed(fixed) if fixed != given => {
                return refuse(format!("dimension {at} is {given}, but the file fixes it to {fixed}"));
            }
            Dim::Named(name) => {
                let known = *named.entry(name.clone()).or_insert(*given);
                if known != *given {
                    return refuse(format!(
                        "dimension {at} (`{}`) is {given}, but --dim or another input has {known} there",
                        printable(name)
                    ));
                }
            }
            Dim::Fixed(_) | Dim::Zero | Dim::Open => {}
        }
    }
    Ok(())
}

/// The open dimensions of an input.
struct Open {
    /// `x`: 0 (`batch`), 2
    places: String,
    /// Their names, as options.
    options: Vec<String>,
    /// Whether each has a name.
    is_named: bool,
    /// What to say where no other input has some.
    alone: String,
}

/// What is open, and how it is fixed: once for each name, where that is enough.
fn all_open(open: Vec<Open>) -> String {
    let is_named = open.iter().all(|input| input.is_named);
    if open.len() < 2 || !is_named {
        let each: Vec<String> = open.into_iter().map(|input| input.alone).collect();
        return each.join("; ");
    }
    let places: Vec<&str> = open.iter().map(|input| input.places.as_str()).collect();
    let mut options: Vec<&str> = open
        .iter()
        .flat_map(|input| &input.options)
        .map(String::as_str)
        .collect();
    options.sort_unstable();
    options.dedup();
    format!(
        "dimensions are open in the inputs {}; fix with {}, a number for each N",
        places.join("; "),
        options.join(" ")
    )
}

fn left_open(input: &Declared, dims: &[Dim], named: &HashMap<String, u64>) -> Open {
    let mut open = Vec::new();
    let mut is_named = true;
    let mut example = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (at, dim) in dims.iter().enumerate() {
        match dim {
            Dim::Fixed(dim) => example.push(dim.to_string()),
            Dim::Zero => example.push("0".to_owned()),
            Dim::Named(name) => match named.get(name) {
                Some(dim) => example.push(dim.to_string()),
                None => {
                    let name = printable(name);
                    open.push(format!("{at} (`{name}`)"));
                    names.push(name);
                    example.push("N".to_owned());
                }
            },
            Dim::Open => {
                is_named = false;
                open.push(at.to_string());
                example.push("N".to_owned());
            }
        }
    }
    let (name, is_are) = (printable(&input.name), if open.len() == 1 { " is" } else { "s are" });
    names.sort_unstable();
    names.dedup();
    let options: Vec<String> = names.iter().map(|dim| format!("--dim {dim}=N")).collect();
    let or = if options.is_empty() {
        String::new()
    } else {
        format!(", or {}", options.join(" "))
    };
    let places = format!("`{name}`: {}", open.join(", "));
    Open {
        alone: format!(
            "dimension{is_are} open in the input {places}; fix with --input {name}={}{or}, a number for each N",
            example.join(",")
        ),
        places,
        options,
        is_named,
    }
}

/// The numbers that the user gave for names.
fn of_names(declared: &[Declared], sizes: &[NamedDim]) -> Result<HashMap<String, u64>, ModelError> {
    let mut known: Vec<&str> = Vec::new();
    for dim in declared.iter().filter_map(|input| input.dims.as_ref()).flatten() {
        if let Dim::Named(name) = dim
            && !known.contains(&name.as_str())
            && known.len() < MOST_NAMES
        {
            known.push(name);
        }
    }
    let mut named = HashMap::new();
    for NamedDim { name, size } in sizes {
        if !known.contains(&name.as_str()) {
            let names: Vec<String> = known.iter().map(|name| format!("`{}`", printable(name))).collect();
            let names = if names.is_empty() {
                "no names".to_owned()
            } else {
                names.join(", ")
            };
            return Err(ModelError::Input(format!(
                "--dim: no dimension of an input is called `{}`; the open ones have {names}. Give a dimension without a name \
                 with --input",
                printable(name)
            )));
        }
        if named.insert(name.clone(), *size).is_some_and(|before| before != *size) {
            return Err(ModelError::Input(format!(
                "--dim gives `{}` two sizes",
                printable(name)
            )));
        }
    }
    Ok(named)
}

fn no_such(option: &str, name: &str, declared: &[Declared]) -> ModelError {
    ModelError::Input(format!(
        "{option}: the model has no input `{}`; its inputs are {}",
        printable(name),
        names(declared)
    ))
}

fn names(declared: &[Declared]) -> String {
    let names: Vec<String> = declared
        .iter()
        .map(|input| format!("`{}`", printable(&input.name)))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
