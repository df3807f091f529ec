//! What is typed about inputs of a model, and what it means.

use super::*;

fn shape(text: &str) -> InputShape {
    text.parse().unwrap()
}

#[test]
fn shapes_and_values_as_typed() {
    assert_eq!(shape("1,3, 224").dims, [1, 3, 224]);
    assert_eq!(shape("a=b=2,5").name.as_deref(), Some("a=b"));
    assert!(shape("sr=").dims.is_empty());
    assert_eq!(shape("1,2,0,16").dims, [1, 2, 0, 16]);
    for text in ["", "1,,2", "x", "1,-1", "=1", "99999999999999"] {
        text.parse::<InputShape>().unwrap_err();
    }
    let value: InputValue = "sr=16000".parse().unwrap();
    assert_eq!(value.numbers, [Number::Int(16_000)]);
    let numbers = |text: &str| text.parse::<InputValue>().unwrap().numbers;
    assert_eq!(numbers("x=0.5"), [Number::Float(0.5)]);
    assert_eq!(numbers("x=true"), [Number::Int(1)]);
    assert_eq!(numbers("x=1, 2.5"), [Number::Int(1), Number::Float(2.5)]);
    for text in ["sr", "=1", "x=", "x=NaN", "x=1,,2"] {
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
    let (dims, named) = resolve(&declared(), &[shape("4,3,10")], &[], &["sr=1".parse().unwrap()]).unwrap();
    assert_eq!(dims, [Some(vec![4, 3, 10]), Some(vec![2, 4]), Some(vec![])]);
    assert_eq!(named["batch"], 4);
}

#[test]
fn what_is_open_is_named() {
    let error = resolve(&declared(), &[], &[], &[]).unwrap_err().to_string();
    assert!(
        error.contains("`x`: 0 (`batch`), 2; fix with --input x=N,3,N, or --dim batch=N"),
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
        let error = resolve(&declared(), &shapes, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    resolve(&declared(), &[shape("1,3,10")], &[], &["sx=1".parse().unwrap()]).unwrap_err();
}

fn dim(text: &str) -> NamedDim {
    text.parse().unwrap()
}

#[test]
fn a_size_for_each_name_is_enough() {
    let named = |names: &[&str]| Some(names.iter().map(|name| Dim::named((*name).to_owned())).collect());
    let declared = [
        Declared {
            name: "x".to_owned(),
            dims: named(&["batch", "past"]),
        },
        Declared {
            name: "y".to_owned(),
            dims: named(&["past", "batch", "past"]),
        },
    ];
    let (dims, _) = resolve(&declared, &[], &[dim("batch=3"), dim("past=0")], &[]).unwrap();
    assert_eq!(dims, [Some(vec![3, 0]), Some(vec![0, 3, 0])]);
    for (sizes, part) in [
        (
            &["batch=3", "pats=0"][..],
            "is called `pats`; the open ones have `batch`, `past`",
        ),
        (&["batch=3", "batch=4"], "two sizes"),
        (
            &["batch=3"],
            "in the inputs `x`: 1 (`past`); `y`: 0 (`past`), 2 (`past`); fix with --dim past=N, a number for each N",
        ),
    ] {
        let sizes: Vec<NamedDim> = sizes.iter().map(|text| dim(text)).collect();
        let error = resolve(&declared, &[], &sizes, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = resolve(&declared, &[shape("2,5")], &[dim("batch=3")], &[]).unwrap_err();
    assert!(error.to_string().contains("--dim or another input has 3"), "{error}");
    for text in ["batch", "=1", "batch=", "batch=-1", "batch=x"] {
        text.parse::<NamedDim>().unwrap_err();
    }
}

#[test]
fn placeholders_are_not_names() {
    for name in ["", " ", "?", "unk__6", "None"] {
        assert_eq!(Dim::named(name.to_owned()), Dim::Open, "{name}");
    }
    for name in ["unk__x", "batch", "N", "past + s"] {
        assert_eq!(Dim::named(name.to_owned()), Dim::Named(name.to_owned()), "{name}");
    }
}

#[test]
fn a_zero_in_the_file_is_0_unless_the_user_says_otherwise() {
    let declared = [Declared {
        name: "x".to_owned(),
        dims: Some(vec![Dim::Zero, Dim::Fixed(4)]),
    }];
    let (dims, _) = resolve(&declared, &[], &[], &[]).unwrap();
    assert_eq!(dims, [Some(vec![0, 4])]);
    let (dims, _) = resolve(&declared, &[shape("2,4")], &[], &[]).unwrap();
    assert_eq!(dims, [Some(vec![2, 4])]);
}
