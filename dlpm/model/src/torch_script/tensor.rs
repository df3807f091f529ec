//! A tensor in a pickle: a call that would make it.

use crate::pickle::{Id, Object, Objects};

/// What a call says of the tensor that it makes.
pub struct Tensor<'a> {
    /// The key of its storage; empty where it has none.
    pub storage: &'a str,
    /// Where it begins in the storage.
    pub offset: i64,
    /// Its dimensions.
    pub size: Vec<u64>,
    /// Its type.
    pub data_type: String,
    /// Bits of an element, where the type is known.
    pub bits: Option<u64>,
    /// Whether weights are stored in that type: floats, complex numbers and small integers.
    pub is_weight: bool,
    /// Whether it is trained.
    pub requires_grad: bool,
}

/// Types of PyTorch: the class of the storage, the name, bits, and whether weights are stored in it.
const TYPES: [(&str, &str, u64, bool); 24] = [
    ("FloatStorage", "float32", 32, true),
    ("HalfStorage", "float16", 16, true),
    ("DoubleStorage", "float64", 64, true),
    ("BFloat16Storage", "bfloat16", 16, true),
    ("CharStorage", "int8", 8, true),
    ("ByteStorage", "uint8", 8, true),
    ("QInt8Storage", "qint8", 8, true),
    ("QUInt8Storage", "quint8", 8, true),
    ("QInt32Storage", "qint32", 32, true),
    ("QUInt4x2Storage", "quint4x2", 4, true),
    ("QUInt2x4Storage", "quint2x4", 2, true),
    ("ComplexFloatStorage", "complex64", 64, true),
    ("ComplexDoubleStorage", "complex128", 128, true),
    ("ComplexHalfStorage", "complex32", 32, true),
    ("ShortStorage", "int16", 16, false),
    ("IntStorage", "int32", 32, false),
    ("LongStorage", "int64", 64, false),
    ("BoolStorage", "bool", 8, false),
    ("", "float8_e4m3fn", 8, true),
    ("", "float8_e5m2", 8, true),
    ("", "float8_e4m3fnuz", 8, true),
    ("", "float8_e5m2fnuz", 8, true),
    ("", "float8_e8m0fnu", 8, true),
    ("", "float4_e2m1fn_x2", 8, true),
];

/// The tensor that a call makes; `None` where it makes something else.
pub fn of<'a>(objects: &'a Objects, by: &str, arguments: Id) -> Option<Tensor<'a>> {
    if by == "torch._tensor._rebuild_from_type_v2" || by == "torch._tensor._rebuild_from_type" {
        // A tensor of a class of its own: the function, the class, its arguments.
        let [function, _, inner, ..] = objects.items(arguments) else {
            return None;
        };
        let function = objects.global(*function)?;
        return if function.starts_with("torch._utils.") {
            of(objects, function, *inner)
        } else {
            None
        };
    }
    let function = by.strip_prefix("torch._utils.")?;
    let items = objects.items(arguments);
    let flag = |at: usize| {
        items
            .get(at)
            .is_some_and(|flag| *objects.get(*flag) == Object::Bool(true))
    };
    let size = |at: usize| size(objects, *items.get(at)?);
    match function {
        "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_qtensor" => {
            let Object::Persistent(storage) = objects.get(*items.first()?) else {
                return None;
            };
            let [_, class, key, ..] = objects.items(*storage) else {
                return None;
            };
            let class = objects.global(*class)?.rsplit('.').next()?;
            let dtype = items.get(6).and_then(|dtype| objects.global(*dtype));
            let known = match dtype {
                Some(dtype) => by_name(dtype),
                None => TYPES.iter().find(|(of, ..)| *of == class),
            };
            let Object::Int(offset) = objects.get(*items.get(1)?) else {
                return None;
            };
            let name = dtype.map_or(class, |dtype| dtype.rsplit('.').next().unwrap_or_default());
            Some(Tensor {
                storage: objects.text(*key)?,
                offset: *offset,
                size: size(2)?,
                requires_grad: flag(if function == "_rebuild_qtensor" { 5 } else { 4 }),
                ..described(known, name)
            })
        }
        "_rebuild_meta_tensor_no_storage" => {
            let dtype = objects.global(*items.first()?)?;
            Some(Tensor {
                size: size(1)?,
                requires_grad: flag(3),
                ..described(by_name(dtype), dtype)
            })
        }
        "_rebuild_wrapper_subclass" => {
            let dtype = objects.global(*items.get(1)?)?;
            Some(Tensor {
                size: size(2)?,
                requires_grad: flag(7),
                ..described(by_name(dtype), dtype)
            })
        }
        _ => None,
    }
}

fn by_name(dtype: &str) -> Option<&'static (&'static str, &'static str, u64, bool)> {
    let name = dtype.rsplit('.').next().unwrap_or_default();
    TYPES.iter().find(|(_, of, ..)| *of == name)
}

fn described(known: Option<&(&str, &str, u64, bool)>, name: &str) -> Tensor<'static> {
    Tensor {
        storage: "",
        offset: 0,
        size: Vec::new(),
        data_type: known.map_or(name, |(_, name, ..)| name).to_owned(),
        bits: known.map(|(_, _, bits, _)| *bits),
        is_weight: known.is_some_and(|(.., is_weight)| *is_weight),
        requires_grad: false,
    }
}

fn size(objects: &Objects, id: Id) -> Option<Vec<u64>> {
    let id = match objects.get(id) {
        // `torch.Size((2, 3))`
        Object::Made { arguments, .. } => *objects.items(*arguments).first()?,
        _ => id,
    };
    let dims = objects.items(id).iter();
    dims.map(|dim| match objects.get(*dim) {
        Object::Int(value) => u64::try_from(*value).ok(),
        _ => None,
    })
    .collect()
}
