//! Shapes and operations of matrix products and Einstein sums.

use super::onnx::value::{Flow, Stop, bad, broadcast, elements, product, show};

/// Shape and operations of `left · right`, as `numpy.matmul` has them: batch × rows × columns × length.
///
/// # Errors
///
/// Where they do not fit.
pub fn matmul(left: &[u64], right: &[u64]) -> Flow<(Vec<u64>, u64)> {
    let unfit = || bad(format!("{} and {} cannot be multiplied", show(left), show(right)));
    let (left_batch, rows, length) = match left {
        [] => return unfit(),
        [length] => (&[][..], None, *length),
        [batch @ .., rows, length] => (batch, Some(*rows), *length),
    };
    let (right_batch, right_length, columns) = match right {
        [] => return unfit(),
        [length] => (&[][..], *length, None),
        [batch @ .., length, columns] => (batch, *length, Some(*columns)),
    };
    if length != right_length {
        return unfit();
    }
    let mut shape = broadcast(left_batch, right_batch)?;
    shape.extend(rows.into_iter().chain(columns));
    let mult_adds = product([elements(&shape)?, length])?;
    Ok((shape, mult_adds))
}

/// Operands of an Einstein sum at most.
const MOST_OPERANDS: usize = 16;

/// An index of an equation, or a dimension that `...` stands for, counted from the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    Letter(char),
    Ellipsis(usize),
}

/// Shape of the result, and multiply-accumulate operations, of an equation such as `bij,bjk->bik`.
///
/// With two operands these are all pairs of elements that meet, after what stands in one operand only and not in the result is
/// summed up. Without an index that is summed over both, nothing is accumulated and none counts. That is what
/// PyTorch does. With more operands it depends on their order.
///
/// # Errors
///
/// Where the operands do not fit the equation, or there are more than two.
pub fn einsum(equation: &str, shapes: &[&[u64]]) -> Flow<(Vec<u64>, u64)> {
    let equation: String = equation
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() > MOST_OPERANDS {
        return Err(Stop::Unsupported(format!("with more than {MOST_OPERANDS} operands")));
    }
    if terms.len() != shapes.len() {
        return bad(format!("`{equation}` is not for {} operands", shapes.len()));
    }
    let mut sizes: Vec<(Index, u64)> = Vec::new();
    let mut operands = Vec::new();
    for (term, shape) in terms.iter().zip(shapes) {
        let indices = indices(term, shape.len())?;
        for (index, size) in indices.iter().zip(*shape) {
            match sizes.iter_mut().find(|(of, _)| of == index) {
                None => sizes.push((*index, *size)),
                Some((_, known)) => match broadcast(&[*known], &[*size])?.first() {
                    Some(size) => *known = *size,
                    None => return bad("an index has no size"),
                },
            }
        }
        operands.push(indices);
    }
    let ellipsis = sizes
        .iter()
        .filter(|(index, _)| matches!(index, Index::Ellipsis(_)))
        .count();
    let output = match output {
        Some(output) => {
            let letters = output.replace("...", "").chars().count();
            indices(output, letters + if output.contains("...") { ellipsis } else { 0 })?
        }
        None => implicit(&operands, ellipsis),
    };
    let size = |index: &Index| sizes.iter().find(|(of, _)| of == index).map(|(_, size)| *size);
    let shape: Option<Vec<u64>> = output.iter().map(size).collect();
    let Some(shape) = shape else {
        return bad(format!("`{equation}` has an index in its result only"));
    };
    let mult_adds = match operands.as_slice() {
        [_] => 0,
        [left, right] => {
            let both = |index: &Index| left.contains(index) && right.contains(index);
            let summed = sizes.iter().any(|(index, _)| both(index) && !output.contains(index));
            let met = sizes.iter().filter(|(index, _)| both(index) || output.contains(index));
            if summed {
                product(met.map(|(_, size)| *size))?
            } else {
                0
            }
        }
        _ => {
            return Err(Stop::Unsupported(
                "with more than two operands the order decides".to_owned(),
            ));
        }
    };
    Ok((shape, mult_adds))
}

fn indices(term: &str, rank: usize) -> Flow<Vec<Index>> {
    let (before, after) = match term.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (term, None),
    };
    let letters = before.chars().chain(after.unwrap_or_default().chars());
    let hidden = rank.checked_sub(letters.clone().count());
    let fits = hidden.is_some_and(|hidden| hidden == 0 || after.is_some());
    if !fits || !letters.clone().all(|letter| letter.is_alphabetic()) {
        return bad(format!("`{term}` is not for {rank} dimensions"));
    }
    let ellipsis = (0..hidden.unwrap_or_default()).rev().map(Index::Ellipsis);
    let before = before.chars().map(Index::Letter);
    Ok(before
        .chain(ellipsis)
        .chain(after.unwrap_or_default().chars().map(Index::Letter))
        .collect())
}

/// Without `->`: what stands once, in the order of the alphabet.
fn implicit(operands: &[Vec<Index>], ellipsis: usize) -> Vec<Index> {
    let all: Vec<Index> = operands.iter().flatten().copied().collect();
    let mut letters: Vec<char> = all
        .iter()
        .filter(|index| all.iter().filter(|other| other == index).count() == 1)
        .filter_map(|index| match index {
            Index::Letter(letter) => Some(*letter),
            Index::Ellipsis(_) => None,
        })
        .collect();
    letters.sort_unstable();
    let hidden = (0..ellipsis).rev().map(Index::Ellipsis);
    hidden.chain(letters.into_iter().map(Index::Letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_sums() {
        for (equation, left, right, shape, mult_adds) in [
            (
                "bij,bjk->bik",
                &[2, 3, 4][..],
                &[2, 4, 5][..],
                &[2, 3, 5][..],
                2 * 3 * 4 * 5,
            ),
            ("ij,jk", &[3, 4], &[4, 5], &[3, 5], 60),
            ("...ij,...jk->...ik", &[2, 3, 4], &[1, 4, 5], &[2, 3, 5], 120),
            // An outer product accumulates nothing.
            ("i,j->ij", &[3], &[4], &[3, 4], 0),
            // `k` is summed before the product.
            ("ijk,j->i", &[3, 4, 5], &[4], &[3], 12),
            ("i,i->", &[3], &[3], &[], 3),
        ] {
            assert_eq!(
                einsum(equation, &[left, right]),
                Ok((shape.to_vec(), mult_adds)),
                "{equation}"
            );
        }
    }

    #[test]
    fn one_and_three_operands() {
        assert_eq!(einsum("ij->j", &[&[3, 4]]), Ok((vec![4], 0)));
        assert!(matches!(
            einsum("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
            Err(Stop::Unsupported(_))
        ));
    }

    #[test]
    fn what_does_not_fit() {
        for (equation, shapes) in [
            ("ij,jk->ik", &[&[2, 3][..], &[4, 5]][..]),
            ("ij->i", &[&[2][..]]),
            ("i->j", &[&[2][..]]),
            ("i,j->i", &[&[2][..]]),
            ("i1->i", &[&[2, 2][..]]),
        ] {
            assert!(matches!(einsum(equation, shapes), Err(Stop::Bad(_))), "{equation}");
        }
    }

    #[test]
    fn vectors_matrices_and_batches() {
        for (left, right, shape, mult_adds) in [
            (&[2, 3][..], &[3, 4][..], &[2, 4][..], 24),
            (&[3], &[3, 4], &[4], 12),
            (&[2, 3], &[3], &[2], 6),
            (&[3], &[3], &[], 3),
            (&[5, 1, 2, 3], &[7, 3, 4], &[5, 7, 2, 4], 5 * 7 * 24),
        ] {
            assert_eq!(matmul(left, right), Ok((shape.to_vec(), mult_adds)));
        }
        matmul(&[2, 3], &[2, 3]).unwrap_err();
        matmul(&[], &[2]).unwrap_err();
    }
}
