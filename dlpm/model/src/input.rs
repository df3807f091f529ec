//! The inputs of a model: what the user said of them, and what the file did.

use std::{collections::HashMap, str::FromStr};

use super::{ModelError, printable};

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
            format!(
                "`{part}` is no dimension; write whole numbers from 1 on with commas, as in 1,3,224,224 or x=1,3,224,224"
            )
        };
        // `NAME=` is a scalar.
        let parts = dims.split(',').filter(|_| !(dims.is_empty() && name.is_some()));
        let dims = parts.map(|part| match part.trim().parse() {
            Ok(dim @ 1..=LARGEST_DIM) => Ok(dim),
            _ => Err(wrong(part)),
        });
        Ok(Self {
            dims: dims.collect::<Result<_, _>>()?,
            name,
        })
    }
}

/// The value of a scalar input, as typed: `NAME=NUMBER`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub number: Number,
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
        let wrong = || format!("`{text}` is no value; write NAME=NUMBER, as in sr=16000");
        let (name, number) = text.rsplit_once('=').ok_or_else(wrong)?;
        let number = match number.trim() {
            "true" => Number::Int(1),
            "false" => Number::Int(0),
            number => match (number.parse(), number.parse::<f64>()) {
                (Ok(int), _) => Number::Int(int),
                (_, Ok(float)) if float.is_finite() => Number::Float(float),
                _ => return Err(wrong()),
            },
        };
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            number,
        })
    }
}

/// A dimension as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(u64),
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
    /// Its dimensions; `None` where even their number is open, or it is no tensor.
    pub dims: Option<Vec<Dim>>,
}

/// Dimensions of all inputs, in their order, and the numbers of those that have names.
pub type Resolved = (Vec<Option<Vec<u64>>>, HashMap<String, u64>);

/// Brings together what the file and the user say of the inputs.
///
/// # Errors
///
/// Where they contradict each other, or something is left open that has to be known; `values` are scalars
/// unless the file says otherwise.
pub fn resolve(declared: &[Declared], shapes: &[InputShape], values: &[InputValue]) -> Result<Resolved, ModelError> {
    let given = assign(declared, shapes)?;
    for value in values {
        if !declared.iter().any(|input| input.name == value.name) {
            return Err(no_such("--value", &value.name, declared));
        }
    }
    let mut named: HashMap<String, u64> = HashMap::new();
    for (input, given) in declared.iter().zip(&given) {
        if let (Some(dims), Some(given)) = (&input.dims, given) {
            agree(input, dims, given, &mut named)?;
        }
    }
    let has_value = |input: &Declared| values.iter().any(|value| value.name == input.name);
    let mut resolved = Vec::new();
    let mut open = Vec::new();
    for (input, given) in declared.iter().zip(given) {
        let dims = match (&given, &input.dims) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(dims)) => {
                let number = |dim: &Dim| match dim {
                    Dim::Fixed(dim) => Some(*dim),
                    Dim::Named(name) => named.get(name).copied().or_else(|| has_value(input).then_some(1)),
                    Dim::Open => has_value(input).then_some(1),
                };
                let numbers: Option<Vec<u64>> = dims.iter().map(number).collect();
                if numbers.is_none() {
                    open.push(left_open(input, dims, &named));
                }
                numbers
            }
            (None, None) if has_value(input) => Some(Vec::new()),
            (None, None) => None,
        };
        resolved.push(dims);
    }
    if open.is_empty() {
        Ok((resolved, named))
    } else {
        Err(ModelError::Input(open.join("; ")))
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
                        "dimension {at} (`{}`) is {given}, but another input has {known} there",
                        printable(name)
                    ));
                }
            }
            Dim::Fixed(_) | Dim::Open => {}
        }
    }
    Ok(())
}

fn left_open(input: &Declared, dims: &[Dim], named: &HashMap<String, u64>) -> String {
    let mut open = Vec::new();
    let mut example = Vec::new();
    for (at, dim) in dims.iter().enumerate() {
        match dim {
            Dim::Fixed(dim) => example.push(dim.to_string()),
            Dim::Named(name) => match named.get(name) {
                Some(dim) => example.push(dim.to_string()),
                None => {
                    open.push(format!("{at} (`{}`)", printable(name)));
                    example.push("N".to_owned());
                }
            },
            Dim::Open => {
                open.push(at.to_string());
                example.push("N".to_owned());
            }
        }
    }
    let (name, is_are) = (printable(&input.name), if open.len() == 1 { " is" } else { "s are" });
    format!(
        "dimension{is_are} open in the input `{name}`: {}; fix with --input {name}={}, a number for each N",
        open.join(", "),
        example.join(",")
    )
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
mod tests {
    use super::*;

    fn shape(text: &str) -> InputShape {
        text.parse().unwrap()
    }

    #[test]
    fn shapes_and_values_as_typed() {
        assert_eq!(shape("1,3, 224").dims, [1, 3, 224]);
        assert_eq!(shape("a=b=2,5").name.as_deref(), Some("a=b"));
        assert!(shape("sr=").dims.is_empty());
        for text in ["", "1,,2", "x", "0", "1,-1", "=1", "99999999999999"] {
            text.parse::<InputShape>().unwrap_err();
        }
        let value: InputValue = "sr=16000".parse().unwrap();
        assert_eq!(value.number, Number::Int(16_000));
        assert_eq!("x=0.5".parse::<InputValue>().unwrap().number, Number::Float(0.5));
        assert_eq!("x=true".parse::<InputValue>().unwrap().number, Number::Int(1));
        for text in ["sr", "=1", "x=", "x=NaN", "x=1,2"] {
            text.parse::<InputValue>().unwrap_err();
        }
    }

    fn declared() -> Vec<Declared> {
        let input = |name: &str, dims| Declared {
            name: name.to_owned(),
            dims,
        };
        let batch = || Dim::Named("batch".to_owned());
        vec![
            input("x", Some(vec![batch(), Dim::Fixed(3), Dim::Open])),
            input("state", Some(vec![Dim::Fixed(2), batch()])),
            input("sr", None),
        ]
    }

    #[test]
    fn a_named_dimension_is_fixed_once() {
        let (dims, named) = resolve(&declared(), &[shape("4,3,10")], &["sr=1".parse().unwrap()]).unwrap();
        assert_eq!(dims, [Some(vec![4, 3, 10]), Some(vec![2, 4]), Some(vec![])]);
        assert_eq!(named["batch"], 4);
    }

    #[test]
    fn what_is_open_is_named() {
        let error = resolve(&declared(), &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains("`x`: 0 (`batch`), 2; fix with --input x=N,3,N"),
            "{error}"
        );
        assert!(
            error.contains("dimension is open in the input `state`: 1 (`batch`)"),
            "{error}"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (shapes, part) in [
            (&["1,4,10"][..], "fixes it to 3"),
            (&["1,3"], "the file has 3"),
            (&["y=1"], "its inputs are `x`, `state`, `sr`"),
            (&["1,3,10", "x=1,3,10"], "two shapes"),
            (&["1,3,10", "2,2"], "another input has 1"),
            (&["1,3,10", "2,1", "", "1"], "more --input"),
        ] {
            let shapes: Vec<InputShape> = shapes
                .iter()
                .map(|text| {
                    if text.is_empty() {
                        InputShape {
                            name: None,
                            dims: vec![],
                        }
                    } else {
                        shape(text)
                    }
                })
                .collect();
            let error = resolve(&declared(), &shapes, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        resolve(&declared(), &[shape("1,3,10")], &["sx=1".parse().unwrap()]).unwrap_err();
    }
}
