//! Files that are not models of a format that dlpm reads, by their first bytes: what they are, and what to do.

use super::ModelError;

/// What a file is, and what the user can do.
struct Kind {
    what: &'static str,
    next: &'static str,
}

const fn kind(what: &'static str, next: &'static str) -> Kind {
    Kind { what, next }
}

const EXPORT: &str = "export the model as ONNX, or with torch.export.save as .pt2";
const UNPACK: &str = "unpack it, and give the model that is in it";
const SAVED_MODEL: Kind = kind(
    "a TensorFlow SavedModel",
    "convert it: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx",
);

/// Files with a fixed text at a fixed place.
const MAGIC: [(usize, &[u8], Kind); 30] = [
    (
        0,
        b"version https://git-lfs",
        kind(
            "a Git LFS pointer, and not the file itself",
            "fetch the file: git lfs pull",
        ),
    ),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        kind(
            "HDF5, as Keras wrote before version 3",
            "convert it: python -m tf2onnx.convert --keras model.h5 --output model.onnx",
        ),
    ),
    (
        4,
        b"ORTM",
        kind(
            "a model in ONNX Runtime's own format (.ort)",
            "give the .onnx file that it was made of",
        ),
    ),
    (
        4,
        b"ET1",
        kind(
            "an ExecuTorch program (.pte)",
            "give the program before it was lowered: torch.export.save(program, \"model.pt2\")",
        ),
    ),
    (
        0,
        b"ftrt",
        kind("a TensorRT engine", "give the .onnx file that it was built from"),
    ),
    (
        0,
        b"\x7fELF",
        kind(
            "a compiled program or library, as AOTInductor makes of a model",
            "give the model before it was compiled: torch.export.save(program, \"model.pt2\")",
        ),
    ),
    (
        0,
        b"ML\xefR",
        kind(
            "MLIR bytecode, as JAX exports StableHLO",
            "convert the function: jax2tf.convert, then python -m tf2onnx.convert --saved-model FOLDER --output model.onnx",
        ),
    ),
    (0, b"\x93NUMPY", kind("an array of NumPy, without a model", EXPORT)),
    (
        0,
        b"ggml",
        kind(
            "a file of GGML before GGUF",
            "convert the original model: llama.cpp's convert_hf_to_gguf.py",
        ),
    ),
    (
        0,
        b"lmgg",
        kind(
            "a file of GGML before GGUF",
            "convert the original model: llama.cpp's convert_hf_to_gguf.py",
        ),
    ),
    (
        0,
        b"tjgg",
        kind(
            "a file of GGML before GGUF",
            "convert the original model: llama.cpp's convert_hf_to_gguf.py",
        ),
    ),
    (
        0,
        b"fmgg",
        kind(
            "a file of GGML before GGUF",
            "convert the original model: llama.cpp's convert_hf_to_gguf.py",
        ),
    ),
    (
        0,
        b"7767517",
        kind(
            "the graph of an ncnn model",
            "give the model that it was converted from, as ONNX or .pt2",
        ),
    ),
    (
        0,
        b"RKNN",
        kind(
            "a model for Rockchip's NPU",
            "give the .onnx file that it was built from",
        ),
    ),
    (0, b"\x1f\x8b", kind("compressed with gzip", UNPACK)),
    (0, b"\xfd7zXZ", kind("compressed with xz", UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", kind("compressed with zstd", UNPACK)),
    (0, b"BZh", kind("compressed with bzip2", UNPACK)),
    (0, b"7z\xbc\xaf", kind("a 7z archive", UNPACK)),
    (0, b"Rar!", kind("a RAR archive", UNPACK)),
    (
        257,
        b"ustar",
        kind("a tar archive, as .nemo files and old .pth.tar are", UNPACK),
    ),
    (
        0,
        b"PK\x05\x06",
        kind("an empty zip archive", "give the file of a model"),
    ),
    (
        0,
        b"<?xml",
        kind(
            "XML, as OpenVINO and PMML write",
            "give the model that it was converted from, as ONNX or .pt2",
        ),
    ),
    (
        0,
        b"<!DOCTYPE",
        kind("a web page, and not a model", "download the file itself"),
    ),
    (
        0,
        b"<!doctype",
        kind("a web page, and not a model", "download the file itself"),
    ),
    (
        0,
        b"<html",
        kind("a web page, and not a model", "download the file itself"),
    ),
    (0, b"%PDF", kind("a PDF document", "give the file of a model")),
    (0, b"\x89PNG", kind("an image", "give the file of a model")),
    (0, b"\xff\xd8\xff", kind("an image", "give the file of a model")),
    (0, b"T7\0\0", kind("a file of Torch 7", EXPORT)),
];

/// What a file is that no reader takes, from its first bytes.
pub fn of_begin(begin: &[u8]) -> Option<ModelError> {
    let known = MAGIC
        .iter()
        .find(|(at, magic, _)| begin.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, kind)) = known {
        return Some(foreign(kind));
    }
    if let Some(kind) = protobuf(begin) {
        return Some(foreign(&kind));
    }
    text(begin).map(|kind| foreign(&kind))
}

/// What a folder is that holds such files.
pub fn of_folder(has: impl Fn(&str) -> bool) -> ModelError {
    if has("saved_model.pb") {
        return foreign(&SAVED_MODEL);
    }
    if has("Data/com.apple.CoreML") || has("Manifest.json") {
        return foreign(&kind("a CoreML package", EXPORT));
    }
    ModelError::NoFile
}

/// What an archive is that holds such files, and no model that dlpm reads.
pub fn of_archive(has: impl Fn(&dyn Fn(&str) -> bool) -> bool) -> ModelError {
    let ends = |end: &'static str| move |name: &str| name.ends_with(end);
    let kind = if has(&|name: &str| name.contains("data/aotinductor/") || name.ends_with(".wrapper.so")) {
        kind(
            "a package of AOTInductor, which holds machine code and no program",
            "give the program before it was compiled: torch.export.save(program, \"model.pt2\")",
        )
    } else if has(&ends("saved_model.pb")) {
        SAVED_MODEL
    } else if has(&ends("com.apple.CoreML/model.mlmodel")) || has(&ends("model.mil")) {
        kind("a CoreML package", EXPORT)
    } else if has(&|name: &str| name.starts_with("MAR-INF/")) {
        kind("an archive of TorchServe (.mar)", UNPACK)
    } else if has(&ends(".npy")) {
        kind("arrays of NumPy (.npz), without a model", EXPORT)
    } else if has(&ends(".data/extern_modules")) {
        kind("a package of torch.package", EXPORT)
    } else if has(&|name: &str| {
        [".onnx", ".pt", ".pth", ".pt2", ".safetensors", ".gguf", ".tflite"]
            .iter()
            .any(|end| name.ends_with(end))
    }) {
        kind("a zip archive with models in it", UNPACK)
    } else {
        kind("a zip archive without a program or weights of PyTorch", EXPORT)
    };
    foreign(&kind)
}

fn foreign(kind: &Kind) -> ModelError {
    ModelError::Foreign {
        what: kind.what,
        next: kind.next,
    }
}

/// Messages of Protocol Buffers other than ONNX's, by the numbers of the fields at their begin.
fn protobuf(begin: &[u8]) -> Option<Kind> {
    let fields = top_fields(begin)?;
    let has = |number: u64, wire: u8| fields.contains(&(number, wire));
    // The graph of ONNX.
    if has(7, 2) {
        return None;
    }
    let first = *fields.first()?;
    if first == (1, 0) && fields.iter().any(|(number, _)| *number >= 200) {
        return Some(kind("a CoreML model", EXPORT));
    }
    if first == (1, 0) && fields.len() >= 2 && fields.iter().skip(1).all(|field| *field == (2, 2)) {
        // A producer's name is short; the graphs of a SavedModel and the description of a CoreML model are messages.
        return match second_payload(begin) {
            Some([0x0a | 0x12, ..]) if fields.len() == 2 && looks_like_core_ml(begin) => {
                Some(kind("a CoreML model", EXPORT))
            }
            Some([0x0a | 0x12 | 0x1a, ..]) => Some(SAVED_MODEL),
            _ => None,
        };
    }
    if first != (1, 2) {
        return None;
    }
    Some(if has(100, 2) {
        kind("a Caffe model", "convert it to ONNX, or give the model as ONNX or .pt2")
    } else {
        kind(
            "a graph of TensorFlow, PaddlePaddle or Caffe2",
            "convert it: python -m tf2onnx.convert --graphdef graph.pb --inputs … --outputs … --output model.onnx; \
             for PaddlePaddle: paddle2onnx",
        )
    })
}

/// The description of a CoreML model begins with its inputs, each of which begins with its name and then its type; the first
/// message of a SavedModel begins with versions and tags of TensorFlow.
fn looks_like_core_ml(begin: &[u8]) -> bool {
    let contains = |text: &[u8]| begin.windows(text.len()).any(|window| window == text);
    !contains(b"serve") && !contains(b"tensorflow") && !contains(b"Const") && !contains(b"VarHandleOp")
}

/// Numbers and types of the fields at the begin of a message, up to the first that ends beyond `begin`; `None` where it is
/// not a message.
fn top_fields(begin: &[u8]) -> Option<Vec<(u64, u8)>> {
    let mut rest = begin;
    let mut fields = Vec::new();
    while let Some((tag, after)) = varint(rest) {
        let wire = u8::try_from(tag & 7).ok()?;
        if tag >> 3 == 0 {
            return None;
        }
        fields.push((tag >> 3, wire));
        let skip = match wire {
            0 => after.len() - varint(after)?.1.len(),
            1 => 8,
            2 => {
                let (length, inner) = varint(after)?;
                match usize::try_from(length).ok().filter(|length| *length <= inner.len()) {
                    Some(length) => after.len() - inner.len() + length,
                    None => break,
                }
            }
            5 => 4,
            _ => return None,
        };
        rest = after.get(skip..)?;
        if fields.len() > 64 {
            break;
        }
    }
    Some(fields)
}

/// The bytes of the second field.
fn second_payload(begin: &[u8]) -> Option<&[u8]> {
    let (_, after) = varint(begin)?;
    let (_, after) = varint(after)?;
    let (_, after) = varint(after)?;
    varint(after).map(|(_, payload)| payload)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at * 7).ok()?)?;
        if *byte < 0x80 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// Text of some kind.
fn text(begin: &[u8]) -> Option<Kind> {
    let printable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t' | 0x80..);
    if begin.is_empty() || !begin.iter().all(printable) || !begin.is_ascii() {
        return None;
    }
    let text = std::str::from_utf8(begin).ok()?;
    let contains = |part: &str| text.contains(part);
    Some(if contains("\"weight_map\"") || contains("\"architectures\"") {
        kind("a file of a Hugging Face folder", "give the folder: dlpm model FOLDER")
    } else if contains("\"magic\"") && contains("pir") {
        kind("a program of PaddlePaddle", "convert it: paddle2onnx")
    } else if contains("layer {") || contains("layers {") {
        kind("a Caffe network", EXPORT)
    } else {
        kind("text, and not a model", "give the file of a model")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(begin: &[u8]) -> String {
        of_begin(begin).map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn foreign_files_are_named_with_what_to_do() {
        let mut tar = vec![0; 300];
        tar[257..262].copy_from_slice(b"ustar");
        // CoreML: the version, the description with an input of this name, and a neural network as field 500.
        let core_ml = b"\x08\x01\x12\x09\x0a\x07\x0a\x05image\xa2\x1f\x02\x0a\x00";
        let saved_model = b"\x08\x01\x12\x10\x0a\x0e\x12\x05serve\x2a\x05Const";
        let graph_def = b"\x0a\x10\x0a\x01x\x12\x0bPlaceholder";
        let caffe = b"\x0a\x03net\xa2\x06\x02\x0a\x00";
        for (begin, what, next) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\n"[..],
                "Git LFS",
                "git lfs pull",
            ),
            (b"\x89HDF\r\n\x1a\n", "HDF5", "tf2onnx"),
            (b"\x1c\0\0\0ORTM", ".ort", ".onnx"),
            (b"\x1c\0\0\0ET12", "ExecuTorch", "torch.export.save"),
            (b"\x7fELF\x02", "AOTInductor", "torch.export.save"),
            (b"\x1f\x8b\x08", "gzip", "unpack"),
            (&tar, "tar", "unpack"),
            (b"<!DOCTYPE html>", "web page", "download"),
            (core_ml, "CoreML", "ONNX"),
            (saved_model, "SavedModel", "--saved-model"),
            (graph_def, "TensorFlow", "--graphdef"),
            (caffe, "Caffe", "ONNX"),
            (b"{\"weight_map\": {}}", "Hugging Face", "folder"),
            (b"import torch\n", "text", "file of a model"),
        ] {
            let said = said(begin);
            assert!(said.contains(what) && said.contains(next), "{what}: {said}");
        }
    }

    #[test]
    fn onnx_is_not_foreign() {
        // Version, producer, graph; without a producer; and one whose graph ends beyond the begin.
        for begin in [
            &b"\x08\x08\x12\x07pytorch\x3a\x02\x0a\x00"[..],
            b"\x08\x08\x3a\x02\x0a\x00",
            b"\x08\x08\x12\x07pytorch\x3a\xff\x7f\x0a\x00",
            b"\x08\x08\x12\x07pytorch",
        ] {
            assert!(of_begin(begin).is_none(), "{begin:?}");
        }
    }
}
