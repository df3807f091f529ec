//! Least squares whose unknowns are not negative, for a handful of unknowns.

/// Unknowns at most: each set of them is tried.
const MOST_UNKNOWNS: usize = 8;

/// A pivot below this part of a column of length 1 means that the column is a sum of the others.
const SINGULAR: f64 = 1e-12;

/// The `x` of at least 0 that makes the sum of squares of `rows · x - values` least.
///
/// At the best `x`, those unknowns that are not 0 are the best ones without any bound for these columns alone (the
/// conditions of Karush, Kuhn and Tucker). So the best of all sets of columns whose solution has nothing negative is it, and
/// for few unknowns all sets can be tried.
pub fn without_negatives(rows: &[Vec<f64>], values: &[f64]) -> Vec<f64> {
    let unknowns = rows.first().map_or(0, Vec::len).min(MOST_UNKNOWNS);
    // Columns of length 1, so that no unit makes the equations ill.
    let lengths: Vec<f64> = (0..unknowns)
        .map(|k| rows.iter().map(|row| row[k] * row[k]).sum::<f64>().sqrt())
        .collect();
    let at = |row: &[f64], k: usize| if lengths[k] > 0.0 { row[k] / lengths[k] } else { 0.0 };
    let squares = |x: &[f64]| -> f64 {
        let residual = |row: &[f64], value: f64| (0..unknowns).map(|k| at(row, k) * x[k]).sum::<f64>() - value;
        rows.iter()
            .zip(values)
            .map(|(row, value)| residual(row, *value).powi(2))
            .sum()
    };
    let mut best = vec![0.0; unknowns];
    let mut least = squares(&best);
    for set in 1_u32..1 << unknowns {
        let columns: Vec<usize> = (0..unknowns).filter(|k| set >> k & 1 == 1).collect();
        let product = |j: usize, k: usize| rows.iter().map(|row| at(row, j) * at(row, k)).sum::<f64>();
        let equations = columns.iter().map(|j| {
            let mut equation: Vec<f64> = columns.iter().map(|k| product(*j, *k)).collect();
            equation.push(rows.iter().zip(values).map(|(row, value)| at(row, *j) * value).sum());
            equation
        });
        let Some(solution) = solve(equations.collect()) else {
            continue;
        };
        if solution.iter().any(|unknown| *unknown < 0.0) {
            continue;
        }
        let mut x = vec![0.0; unknowns];
        for (column, unknown) in columns.iter().zip(solution) {
            x[*column] = unknown;
        }
        let sum = squares(&x);
        if sum < least {
            (best, least) = (x, sum);
        }
    }
    let unscaled = best.iter().zip(&lengths);
    unscaled
        .map(|(x, length)| if *length > 0.0 { x / length } else { 0.0 })
        .collect()
}

/// Gauss's elimination with the largest pivot; each equation ends with its right side. `None` if there is not one solution.
fn solve(mut equations: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let unknowns = equations.len();
    for column in 0..unknowns {
        let pivot =
            (column..unknowns).max_by(|a, b| equations[*a][column].abs().total_cmp(&equations[*b][column].abs()))?;
        equations.swap(column, pivot);
        let by = equations[column].clone();
        if by[column].abs() < SINGULAR || !by[column].is_finite() {
            return None;
        }
        for (number, equation) in equations.iter_mut().enumerate() {
            if number != column {
                let factor = equation[column] / by[column];
                for (term, of_pivot) in equation.iter_mut().zip(&by) {
                    *term -= factor * of_pivot;
                }
            }
        }
    }
    let solution = equations.iter().enumerate();
    Some(
        solution
            .map(|(number, equation)| equation[unknowns] / equation[number])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_solution_is_found_and_a_negative_one_is_not() {
        let rows = [vec![1.0, 2.0], vec![3.0, 1.0], vec![1.0, 1.0]];
        let values: Vec<f64> = rows.iter().map(|row| 5.0 * row[0] + 0.25 * row[1]).collect();
        let found = without_negatives(&rows, &values);
        assert!(
            (found[0] - 5.0).abs() < 1e-6 && (found[1] - 0.25).abs() < 1e-6,
            "{found:?}"
        );
        // With -1 of the second unknown, its best value is 0, and the first one's is that of a fit alone.
        let values: Vec<f64> = rows.iter().map(|row| 5.0 * row[0] - row[1]).collect();
        let found = without_negatives(&rows, &values);
        let alone = rows.iter().zip(&values).map(|(row, value)| row[0] * value).sum::<f64>()
            / rows.iter().map(|row| row[0] * row[0]).sum::<f64>();
        assert!((found[0] - alone).abs() < 1e-9 && found[1] == 0.0, "{found:?}");
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(without_negatives(&[], &[]), Vec::<f64>::new());
        assert_eq!(without_negatives(&[vec![0.0, 0.0]], &[1.0]), [0.0, 0.0]);
    }
}
