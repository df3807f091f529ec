//! Proves a validation from its own figures: every cell by the laws of a log's line, the verdict by making it again.

use serde_json::Value;

use super::{
    file::{Failure, Validation},
    verdict::Verdict,
};

/// What was found.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The verdict that the cells give.
    pub verdict: Verdict,
    /// What does not hold.
    pub failures: Vec<Failure>,
}

/// Makes the verdict of a file again, and compares it with what the file says.
pub fn prove(validation: &Validation) -> Proof {
    let verdict = Verdict::of(&validation.header, &validation.cells);
    let mut failures = validation.failures.clone();
    if let (Some(written), Ok(made)) = (&validation.verdict, serde_json::to_value(&verdict)) {
        let line = validation.cells.len() + 2;
        differences("verdict", written, &made, &mut |what| {
            failures.push(Failure { line, what })
        });
    }
    failures.sort_by_key(|failure| failure.line);
    Proof { verdict, failures }
}

/// Where two values differ, as paths into them; the first few.
fn differences(path: &str, written: &Value, made: &Value, tell: &mut impl FnMut(String)) {
    match (written, made) {
        (Value::Object(written), Value::Object(made)) if written.keys().eq(made.keys()) => {
            for (key, written) in written {
                if let Some(made) = made.get(key) {
                    differences(&format!("{path}.{key}"), written, made, tell);
                }
            }
        }
        (Value::Array(written), Value::Array(made)) if written.len() == made.len() => {
            for (position, (written, made)) in written.iter().zip(made).enumerate() {
                differences(&format!("{path}[{position}]"), written, made, tell);
            }
        }
        (written, made) if written == made => {}
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => {
            tell(format!("{path} does not have the fields that the cells give"));
        }
        (written, made) => tell(format!("{path}: the cells give {made}, the file says {written}")),
    }
}
