//! TFLite's operators by number, and the multiply-accumulate operations of those that make products.
//!
//! Numbers are those of `BuiltinOperator` in TFLite's schema; the orders of dimensions are those of its reference kernels
//! (`tensorflow/lite/kernels/internal/reference`).

use crate::onnx::value::{Flow, Stop, elements, product};

/// `BATCH_MATMUL`
pub const BATCH_MATMUL: u32 = 126;
/// `CALL`
pub const CALL: u32 = 31;
/// `CALL_ONCE`: what is run before the first pass.
pub const CALL_ONCE: u32 = 129;
/// `CUSTOM`
pub const CUSTOM: u32 = 32;
/// `STABLEHLO_COMPOSITE`
pub const COMPOSITE: u32 = 206;
/// `IF`
pub const IF: u32 = 118;
/// `WHILE`
pub const WHILE: u32 = 119;
/// `ASSIGN_VARIABLE`
pub const ASSIGN_VARIABLE: u32 = 144;

/// The last number that dlpm knows.
const LAST: u32 = 208;

/// The operators that count, or that cannot be counted; all others only move or map elements.
const NAMES: [(u32, &str); 26] = [
    (3, "CONV_2D"),
    (4, "DEPTHWISE_CONV_2D"),
    (9, "FULLY_CONNECTED"),
    (16, "LSTM"),
    (24, "RNN"),
    (27, "SVDF"),
    (CALL, "CALL"),
    (35, "UNIDIRECTIONAL_SEQUENCE_RNN"),
    (44, "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    (46, "BIDIRECTIONAL_SEQUENCE_RNN"),
    (51, "DELEGATE"),
    (52, "BIDIRECTIONAL_SEQUENCE_LSTM"),
    (67, "TRANSPOSE_CONV"),
    (IF, "IF"),
    (WHILE, "WHILE"),
    (BATCH_MATMUL, "BATCH_MATMUL"),
    (131, "RFFT2D"),
    (132, "CONV_3D"),
    (141, "CONV_3D_TRANSPOSE"),
    (171, "STABLEHLO_CONVOLUTION"),
    (173, "STABLEHLO_CUSTOM_CALL"),
    (174, "STABLEHLO_REDUCE"),
    (197, "STABLEHLO_DOT_GENERAL"),
    (200, "STABLEHLO_WHILE"),
    (COMPOSITE, "STABLEHLO_COMPOSITE"),
    (15, "LSH_PROJECTION"),
];

/// Operators of other makers that make no products, by name.
const FREE: [&str; 7] = [
    "TFLite_Detection_PostProcess",
    "MaxPoolingWithArgmax2D",
    "MaxUnpooling2D",
    "Resampler",
    "TransformTensorBilinear",
    "Landmarks2TransformMatrix",
    "AlignmentPointsToTransformMatrix",
];

/// The name of an operator that counts, or that cannot be counted.
pub fn name(code: u32) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == code).map(|(_, name)| *name)
}

/// An operator with its tensors.
pub struct Call<'a> {
    /// Its number.
    pub code: u32,
    /// Its name, where it is not TFLite's.
    pub custom: &'a str,
    /// Dimensions of what it reads, where they are known; the flag tells a value that is kept between runs.
    pub inputs: Vec<Option<(&'a [u64], bool)>>,
    /// Dimensions of its first output.
    pub output: Option<&'a [u64]>,
    /// Whether the first of two matrices is transposed.
    pub transposes_first: bool,
}

impl<'a> Call<'a> {
    fn input(&self, at: usize) -> Flow<&'a [u64]> {
        let input = self.inputs.get(at).copied().flatten();
        input
            .map(|(dims, _)| dims)
            .ok_or_else(|| Stop::Unsupported("the file does not tell its dimensions".to_owned()))
    }

    fn output(&self) -> Flow<&'a [u64]> {
        self.output
            .ok_or_else(|| Stop::Unsupported("the file does not tell its dimensions".to_owned()))
    }

    fn last(&self, at: usize) -> Flow<u64> {
        let dims = self.input(at)?;
        dims.last()
            .copied()
            .ok_or_else(|| Stop::Unsupported("one of its matrices has no dimensions".to_owned()))
    }

    /// Positions of an input: all dimensions but the last one, which is that of its channels.
    fn positions(&self, at: usize) -> Flow<u64> {
        match self.input(at)? {
            [positions @ .., _] => product(positions.iter().copied()),
            [] => Err(Stop::Unsupported("one of its inputs has no dimensions".to_owned())),
        }
    }

    /// Elements of all matrices among the inputs from the second one on.
    fn matrices(&self) -> Flow<u64> {
        let mut sum = 0u64;
        for (dims, is_variable) in self.inputs.iter().skip(1).flatten() {
            if dims.len() >= 2 && !is_variable {
                let next = sum.checked_add(elements(dims)?);
                sum = next.ok_or_else(|| Stop::Bad("its weights have more than 64 bits of elements".to_owned()))?;
            }
        }
        Ok(sum)
    }
}

/// Multiply-accumulate operations of an operator that has no subgraph.
///
/// # Errors
///
/// Where they cannot be counted.
pub fn mult_adds(call: &Call<'_>) -> Flow<u64> {
    match call.code {
        // Weights are output channels × height × width × input channels of a group.
        3 => match call.input(1)? {
            [_, window @ ..] if window.len() == 3 => product([elements(call.output()?)?, elements(window)?]),
            _ => Err(Stop::Unsupported("its weights do not have four dimensions".to_owned())),
        },
        // 1 × height × width × output channels.
        4 => match call.input(1)? {
            [_, height, width, _] => product([elements(call.output()?)?, *height, *width]),
            _ => Err(Stop::Unsupported("its weights do not have four dimensions".to_owned())),
        },
        // Outputs × inputs.
        9 => product([elements(call.output()?)?, call.last(1)?]),
        // The shape of the output is the first input, the image the third one.
        67 => product([call.positions(2)?, elements(call.input(1)?)?]),
        141 => product([call.positions(2)?, elements(call.input(1)?)?]),
        // Depth × height × width × input channels × output channels.
        132 => match call.input(1)? {
            [window @ .., _] if window.len() == 4 => product([elements(call.output()?)?, elements(window)?]),
            _ => Err(Stop::Unsupported("its weights do not have five dimensions".to_owned())),
        },
        BATCH_MATMUL => {
            let length = match (call.input(0)?, call.transposes_first) {
                ([.., rows, _], true) => *rows,
                ([.., columns], false) => *columns,
                _ => return Err(Stop::Unsupported("its first matrix has too few dimensions".to_owned())),
            };
            product([elements(call.output()?)?, length])
        }
        // With five inputs it is the LSTM of one matrix for all gates.
        16 if call.inputs.len() == 5 => product([call.positions(0)?, elements(call.input(2)?)?]),
        // Each step of each sequence multiplies with every matrix.
        16 | 24 | 27 | 35 | 44 | 46 | 52 => product([call.positions(0)?, call.matrices()?]),
        CUSTOM => match call.custom {
            "Convolution2DTransposeBias" => product([call.positions(0)?, elements(call.input(1)?)?]),
            free if FREE.contains(&free) => Ok(0),
            _ => Err(Stop::Unsupported("it is not one of TFLite's operators".to_owned())),
        },
        15 | 51 | 131 | 171 | 173 | 174 | 197 | 200 => Err(Stop::Unsupported("dlpm has no rule for it".to_owned())),
        known if known <= LAST => Ok(0),
        other => Err(Stop::Unsupported(format!("it is newer than dlpm (number {other})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn counts(code: u32, inputs: &[&[u64]], output: &[u64], expected: u64) {
        let call = Call {
            code,
            custom: "Convolution2DTransposeBias",
            inputs: inputs.iter().map(|dims| Some((*dims, false))).collect(),
            output: Some(output),
            transposes_first: false,
        };
        assert_eq!(mult_adds(&call), Ok(expected), "{code}");
    }

    #[test]
    fn convolutions() {
        counts(3, &[&[1, 8, 8, 3], &[16, 3, 3, 3]], &[1, 4, 4, 16], 4 * 4 * 16 * 27);
        // In four groups, each channel sees a quarter of the input.
        counts(3, &[&[1, 8, 8, 12], &[16, 3, 3, 3]], &[1, 4, 4, 16], 4 * 4 * 16 * 27);
        counts(4, &[&[1, 8, 8, 6], &[1, 3, 3, 12]], &[1, 8, 8, 12], 8 * 8 * 12 * 9);
        counts(
            67,
            &[&[4], &[5, 2, 2, 7], &[1, 6, 6, 7]],
            &[1, 12, 12, 5],
            6 * 6 * 5 * 4 * 7,
        );
        counts(
            CUSTOM,
            &[&[1, 6, 6, 7], &[5, 2, 2, 7]],
            &[1, 12, 12, 5],
            6 * 6 * 5 * 4 * 7,
        );
        counts(
            132,
            &[&[1, 4, 8, 8, 3], &[2, 3, 3, 3, 5]],
            &[1, 3, 6, 6, 5],
            3 * 6 * 6 * 5 * 2 * 27,
        );
        counts(
            141,
            &[&[5], &[2, 3, 3, 5, 4], &[1, 3, 6, 6, 4]],
            &[1, 4, 8, 8, 5],
            3 * 6 * 6 * 2 * 9 * 20,
        );
    }

    #[test]
    fn products_of_matrices() {
        counts(9, &[&[2, 3, 10], &[7, 10]], &[2, 3, 7], 2 * 3 * 7 * 10);
        counts(BATCH_MATMUL, &[&[4, 2, 3], &[4, 3, 5]], &[4, 2, 5], 4 * 2 * 5 * 3);
        let transposed = Call {
            code: BATCH_MATMUL,
            custom: "",
            inputs: vec![Some((&[4, 3, 2], false)), Some((&[4, 3, 5], false))],
            output: Some(&[4, 2, 5]),
            transposes_first: true,
        };
        assert_eq!(mult_adds(&transposed), Ok(4 * 2 * 5 * 3));
    }

    #[test]
    fn recurrent_layers_multiply_at_each_step() {
        let gates: Vec<Option<(&[u64], bool)>> = std::iter::repeat_n(Some((&[8, 5][..], false)), 4)
            .chain(std::iter::repeat_n(Some((&[8, 8][..], false)), 4))
            .chain(std::iter::repeat_n(None, 3))
            .chain(std::iter::repeat_n(Some((&[8][..], false)), 4))
            .chain([None, None, Some((&[2, 8][..], true)), Some((&[2, 8][..], true))])
            .collect();
        let call = Call {
            code: 44,
            custom: "",
            inputs: [vec![Some((&[2, 9, 5][..], false))], gates].concat(),
            output: Some(&[2, 9, 8]),
            transposes_first: false,
        };
        assert_eq!(mult_adds(&call), Ok(2 * 9 * 4 * (8 * 5 + 8 * 8)));
        counts(16, &[&[2, 5], &[2, 8], &[32, 13], &[32], &[2, 8]], &[2, 8], 2 * 32 * 13);
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        for (code, custom) in [(CUSTOM, "FlexMatMul"), (51, ""), (171, ""), (LAST + 1, ""), (3, "")] {
            let call = Call {
                code,
                custom,
                inputs: Vec::new(),
                output: Some(&[1]),
                transposes_first: false,
            };
            assert!(matches!(mult_adds(&call), Err(Stop::Unsupported(_))), "{code}");
        }
    }
}
