//! Types of elements: `TensorProto.DataType`.

/// 32-bit float.
pub const FLOAT: i64 = 1;
/// 8-bit integer without sign.
pub const UINT8: i64 = 2;
/// 8-bit integer.
pub const INT8: i64 = 3;
/// Truth value.
pub const BOOL: i64 = 9;
/// 16-bit float.
pub const FLOAT16: i64 = 10;
/// 64-bit float.
pub const DOUBLE: i64 = 11;
/// 16-bit float with the exponent of 32.
pub const BFLOAT16: i64 = 16;

/// Whether it is a float of any width.
pub fn is_float(data_type: i64) -> bool {
    matches!(data_type, FLOAT | FLOAT16 | DOUBLE | BFLOAT16 | 17..=20 | 23 | 24)
}

/// Whether weights are stored in it: floats, and the small integers of quantised models.
pub fn is_weight(data_type: i64) -> bool {
    is_float(data_type) || matches!(data_type, UINT8 | INT8 | 21 | 22 | 25 | 26)
}

/// Bits of an element; `None` for text and what is not known.
pub fn bits(data_type: i64) -> Option<u64> {
    Some(match data_type {
        25 | 26 => 2,
        21..=23 => 4,
        UINT8 | INT8 | BOOL | 17..=20 | 24 => 8,
        4 | 5 | FLOAT16 | BFLOAT16 => 16,
        FLOAT | 6 | 12 => 32,
        7 | DOUBLE | 13 | 14 => 64,
        15 => 128,
        _ => return None,
    })
}

/// Its name as numpy has it.
pub fn name(data_type: i64) -> &'static str {
    const NAMES: [&str; 27] = [
        "undefined",
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "float64",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
    ];
    let named = usize::try_from(data_type).ok().and_then(|at| NAMES.get(at));
    named.copied().unwrap_or("other")
}
