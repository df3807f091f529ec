//! The types of GGUF's tensors: elements and bytes of a block.
//!
//! From the list of types in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and the sizes that the
//! package `gguf` has as `GGML_QUANT_SIZES`.

/// A type of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementType {
    number: u32,
    /// Its name.
    pub name: &'static str,
    /// Elements that are stored together.
    pub block: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

const fn element(number: u32, name: &'static str, block: u64, bytes: u64) -> ElementType {
    ElementType {
        number,
        name,
        block,
        bytes,
    }
}

/// In the order of their numbers; those that ggml removed are left out.
pub const TYPES: [ElementType; 34] = [
    element(0, "F32", 1, 4),
    element(1, "F16", 1, 2),
    element(2, "Q4_0", 32, 18),
    element(3, "Q4_1", 32, 20),
    element(6, "Q5_0", 32, 22),
    element(7, "Q5_1", 32, 24),
    element(8, "Q8_0", 32, 34),
    element(9, "Q8_1", 32, 40),
    element(10, "Q2_K", 256, 84),
    element(11, "Q3_K", 256, 110),
    element(12, "Q4_K", 256, 144),
    element(13, "Q5_K", 256, 176),
    element(14, "Q6_K", 256, 210),
    element(15, "Q8_K", 256, 292),
    element(16, "IQ2_XXS", 256, 66),
    element(17, "IQ2_XS", 256, 74),
    element(18, "IQ3_XXS", 256, 98),
    element(19, "IQ1_S", 256, 50),
    element(20, "IQ4_NL", 32, 18),
    element(21, "IQ3_S", 256, 110),
    element(22, "IQ2_S", 256, 82),
    element(23, "IQ4_XS", 256, 136),
    element(24, "I8", 1, 1),
    element(25, "I16", 1, 2),
    element(26, "I32", 1, 4),
    element(27, "I64", 1, 8),
    element(28, "F64", 1, 8),
    element(29, "IQ1_M", 256, 56),
    element(30, "BF16", 1, 2),
    element(34, "TQ1_0", 256, 54),
    element(35, "TQ2_0", 256, 66),
    element(39, "MXFP4", 32, 17),
    element(40, "NVFP4", 64, 36),
    element(41, "Q1_0", 128, 18),
];

impl ElementType {
    /// The type with this number.
    pub fn of(number: u32) -> Option<Self> {
        TYPES.into_iter().find(|element| element.number == number)
    }

    /// Whether its elements are weights, and not indices.
    pub fn is_weight(self) -> bool {
        !matches!(self.name, "I16" | "I32" | "I64")
    }
}
