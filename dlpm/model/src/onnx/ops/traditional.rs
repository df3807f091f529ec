//! Operators of `ai.onnx.ml`: trees, linear models, tables. Only linear models and support vectors multiply and accumulate.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Stop, Tensor, bad, product, show, unknown},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Binarizer" | "Imputer" | "Normalizer" | "Scaler" | "LabelEncoder" | "CategoryMapper" => {
            call.shape(0).map(Outcome::of)
        }
        "LinearRegressor" => linear(call),
        "LinearClassifier" => classifier(call),
        "ArrayFeatureExtractor" => extract(call),
        "FeatureVectorizer" => vectorise(call),
        "OneHotEncoder" => one_hot(call),
        "TreeEnsembleClassifier" | "TreeEnsembleRegressor" | "TreeEnsemble" => trees(call),
        "ZipMap" | "CastMap" | "DictVectorizer" => unknown("its values are a dictionary"),
        "SVMClassifier" | "SVMRegressor" => Err(Stop::Unsupported(
            "how many support vectors it has is not read".to_owned(),
        )),
        _ => return None,
    })
}

/// Rows and columns; a vector is one row.
fn matrix(call: &Call<'_>) -> Flow<(u64, u64)> {
    match call.shape(0)? {
        [columns] => Ok((1, *columns)),
        [rows, columns] => Ok((*rows, *columns)),
        other => bad(format!("its input is {}", show(other))),
    }
}

/// Every row with the coefficients of each target.
fn linear(call: &Call<'_>) -> Flow<Outcome> {
    let (rows, columns) = matrix(call)?;
    let targets = call.count("targets").unwrap_or(1);
    Ok(Outcome::counted([rows, targets], product([rows, targets, columns])?))
}

/// With several classes there are coefficients for each; with two, some writers store those of one.
fn classifier(call: &Call<'_>) -> Flow<Outcome> {
    let (rows, columns) = matrix(call)?;
    let coefficients = call
        .attribute("coefficients")
        .map_or(0, |list| list.floats.len() as u64);
    let Some(stored) = coefficients.checked_div(columns) else {
        return bad("its input has no columns");
    };
    let labels = |name: &str| {
        call.attribute(name)
            .map_or(0, |list| list.ints.len().max(list.texts) as u64)
    };
    let classes = labels("classlabels_ints")
        .max(labels("classlabels_strings"))
        .max(stored);
    Ok(Outcome {
        outputs: vec![Tensor::of([rows]), Tensor::of([rows, classes])],
        mult_adds: Some(product([rows, stored, columns])?),
    })
}

/// Trees compare and add.
fn trees(call: &Call<'_>) -> Flow<Outcome> {
    let (rows, _) = matrix(call)?;
    let labels = |name: &str| {
        call.attribute(name)
            .map_or(0, |list| list.ints.len().max(list.texts) as u64)
    };
    if call.op == "TreeEnsembleClassifier" {
        let classes = labels("classlabels_int64s").max(labels("classlabels_strings"));
        return Ok(Outcome {
            outputs: vec![Tensor::of([rows]), Tensor::of([rows, classes])],
            mult_adds: None,
        });
    }
    Ok(Outcome::of([rows, call.count("n_targets").unwrap_or(1)]))
}

fn extract(call: &Call<'_>) -> Flow<Outcome> {
    let (input, indices) = (call.shape(0)?, call.shape(1)?);
    let count = product(indices.iter().copied())?;
    match input {
        [_] => Ok(Outcome::of([1, count])),
        [outer @ .., _] => Ok(Outcome::of([outer, &[count]].concat())),
        [] => bad("its input is a scalar"),
    }
}

fn vectorise(call: &Call<'_>) -> Flow<Outcome> {
    let (rows, _) = matrix(call)?;
    let mut columns = 0u64;
    for at in 0..call.inputs.len() {
        let more = call.shape(at)?.last().copied().unwrap_or(1);
        columns = columns.saturating_add(more);
    }
    Ok(Outcome::of([rows, columns]))
}

fn one_hot(call: &Call<'_>) -> Flow<Outcome> {
    let length = |name: &str| {
        call.attribute(name)
            .map_or(0, |list| list.ints.len().max(list.texts) as u64)
    };
    let mut shape = call.shape(0)?.to_vec();
    shape.push(length("cats_int64s").max(length("cats_strings")));
    Ok(Outcome::of(shape))
}
