//! GGUF: parameters, types and operations from the header alone.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::{fs, os::unix::fs::symlink, path::Path};

use build::gguf::{Decoder, Tensor, Value, file, floats, header, quantised};
use dlpm_model::{
    self as model, ModelError, Options, Summary,
    language::{CacheType, Row, Settings},
};

fn options(batches: &[u64], contexts: &[u64]) -> Options {
    Options {
        language: Settings {
            batches: batches.to_vec(),
            contexts: contexts.to_vec(),
            ..Settings::default()
        },
        per_layer: true,
        ..Options::default()
    }
}

fn read(bytes: &[u8], options: &Options) -> Result<Summary, ModelError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.gguf");
    fs::write(&path, bytes).unwrap();
    model::read(&path, options)
}

#[track_caller]
fn rows(summary: &Summary) -> Vec<Row> {
    summary.details.language.as_ref().unwrap().rows.clone()
}

fn elements(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum()
}

#[test]
fn a_decoder_has_the_operations_of_the_formula() {
    for decoder in [
        Decoder::of("llama"),
        Decoder {
            tied: true,
            ..Decoder::of("qwen2")
        },
        Decoder {
            experts: 8,
            ..Decoder::of("qwen3moe")
        },
        Decoder {
            blocks: 5,
            ..Decoder::of("mistral3")
        },
    ] {
        let summary = read(&decoder.file(), &options(&[1, 3], &[100, 2000])).unwrap();
        assert_eq!(summary.counts.format, "gguf");
        assert_eq!(summary.counts.total_params, elements(&decoder.tensors()), "{decoder:?}");
        assert!(!summary.is_lower_bound());
        let (weights, blocks) = (decoder.per_token(), u64::from(decoder.blocks));
        let attention = blocks * Decoder::PAIR;
        let expected = [(1, 100), (1, 2000), (3, 100), (3, 2000)].map(|(batch, context)| Row {
            batch,
            context,
            prompt_tokens: context,
            prefill_mult_adds: batch * (context * weights + Decoder::LOGITS + attention * context * context),
            prefill_mult_adds_causal: Some(
                batch * (context * weights + Decoder::LOGITS + attention * context * (context + 1) / 2),
            ),
            decode_mult_adds: Some(batch * (weights + Decoder::LOGITS + attention * context)),
            cache_bytes: Some(batch * context * blocks * Decoder::KV_HEADS * (16 + 16) * 2),
        });
        assert_eq!(rows(&summary), expected, "{decoder:?}");
        // The pass that stands for the model is that of the first line, and its layers add up to it.
        assert_eq!(summary.mult_adds(), expected[0].decode_mult_adds);
        let layers = &summary.counts.tally.as_ref().unwrap().layers;
        let of_layers: u64 = layers.iter().map(|layer| layer.mult_adds).sum();
        assert_eq!(Some(of_layers), summary.mult_adds());
    }
}

#[test]
fn weights_are_listed_by_type() {
    let decoder = Decoder::of("llama");
    let summary = read(&decoder.file(), &Options::default()).unwrap();
    let sum = |number: u32| {
        let of = decoder.tensors().into_iter().filter(|tensor| tensor.number == number);
        let of: Vec<_> = of.collect();
        (
            of.len() as u64,
            elements(&of),
            Some(of.iter().map(|tensor| tensor.bytes).sum()),
        )
    };
    let found = |name: &str| {
        let sum = summary.details.weights[name];
        (sum.tensors, sum.elements, sum.bytes)
    };
    assert_eq!((found("Q4_0"), found("F32")), (sum(2), sum(0)));
    let json = summary.to_json();
    assert_eq!(json["dlpm"]["weights"]["Q4_0"]["bits_per_element"], 4.5);
}

#[test]
fn a_window_limits_keys_and_the_cache() {
    let window = ("attention.sliding_window", Value::Int(100));
    // Of six blocks, gemma3 slides the window in all but the last; a list says it block by block.
    for (family, more, sliding) in [
        ("gemma3", vec![], 6),
        ("gemma2", vec![], 4),
        ("gemma3", vec![("attention.sliding_window_pattern", Value::Int(2))], 4),
        (
            "llama",
            vec![(
                "attention.sliding_window_pattern",
                Value::Bools(vec![true, false, false, false, false, false, true]),
            )],
            2,
        ),
        ("llama", vec![], 0),
    ] {
        let decoder = Decoder {
            blocks: 7,
            more: [vec![window.clone()], more].concat(),
            ..Decoder::of(family)
        };
        let summary = read(&decoder.file(), &options(&[1], &[1000])).unwrap();
        let keys = sliding * 100 + (7 - sliding) * 1000;
        let row = rows(&summary)[0];
        let weights = decoder.per_token() + Decoder::LOGITS;
        assert_eq!(row.decode_mult_adds, Some(weights + Decoder::PAIR * keys), "{family}");
        assert_eq!(row.cache_bytes, Some(keys * Decoder::KV_HEADS * 32 * 2), "{family}");
        let is_ignored = summary
            .counts
            .notes
            .iter()
            .any(|note| note.contains("window of 100 tokens is not counted"));
        assert_eq!(is_ignored, sliding == 0, "{family}");
    }
}

#[test]
fn the_cache_has_the_type_that_was_asked_for() {
    for (cache, bytes) in [("f32", 128 * 4), ("q8_0", 136), ("q4_0", 72), ("fp8", 128)] {
        let mut options = options(&[1], &[10]);
        options.language.cache = cache.parse::<CacheType>().unwrap();
        let summary = read(&Decoder::of("llama").file(), &options).unwrap();
        let view = summary.details.language.unwrap();
        assert_eq!(view.cache_bytes_per_token, Some(bytes), "{cache}");
        assert_eq!(view.rows[0].cache_bytes, Some(10 * bytes), "{cache}");
    }
}

#[test]
fn experts_of_one_tensor_each_count_as_those_of_one_for_all() {
    let mixed = Decoder {
        experts: 4,
        ..Decoder::of("llama")
    };
    let tensors = mixed
        .tensors()
        .into_iter()
        .flat_map(|tensor| match tensor.name.strip_suffix("_exps.weight") {
            None => vec![tensor],
            Some(stem) => (0..4)
                .map(|expert| quantised(format!("{stem}.{expert}.weight"), &tensor.dims[..2]))
                .collect(),
        });
    let tensors: Vec<_> = tensors.collect();
    let summary = read(&file(&mixed.metadata(), &tensors), &options(&[1], &[8])).unwrap();
    let expected = mixed.per_token() + Decoder::LOGITS + 2 * Decoder::PAIR * 8;
    assert_eq!(summary.mult_adds(), Some(expected));
    assert_eq!(summary.counts.total_params, elements(&mixed.tensors()));
}

#[test]
fn what_a_file_computes_is_unknown_rather_than_guessed() {
    let without = |key: &str| {
        let metadata: Vec<_> = Decoder::of("llama").metadata();
        metadata.into_iter().filter(|(name, _)| name != key).collect::<Vec<_>>()
    };
    let tensors = Decoder::of("llama").tensors();
    let experts = Decoder {
        experts: 4,
        ..Decoder::of("llama")
    };
    let more = |name: &'static str, value: Value| Decoder {
        more: vec![(name, value)],
        ..Decoder::of("llama")
    };
    let mut fewer = tensors.clone();
    fewer.retain(|tensor| !tensor.name.starts_with("blk.1."));
    for (metadata, tensors, why) in [
        (
            without("general.architecture"),
            &tensors,
            "do not tell the architecture",
        ),
        (without("llama.block_count"), &tensors, "blocks"),
        (
            without("llama.attention.head_count"),
            &tensors,
            "llama.attention.head_count",
        ),
        (without("llama.embedding_length"), &tensors, "llama.embedding_length"),
        (Decoder::of("mamba").metadata(), &tensors, "architecture mamba"),
        (Decoder::of("llama").metadata(), &fewer, "does not hold the 2 blocks"),
        (
            Decoder::of("llama").metadata(),
            &experts.tensors(),
            "how many of how many experts",
        ),
        (
            more("attention.key_length", Value::Int(32)).metadata(),
            &tensors,
            "other than its heads",
        ),
    ] {
        let summary = read(&file(&metadata, tensors), &Options::default()).unwrap();
        assert_eq!(summary.counts.total_params, elements(tensors));
        assert!(summary.is_lower_bound(), "{why}");
        let unsupported = summary.counts.tally.unwrap().unsupported;
        assert!(
            format!("{unsupported:?}").contains(why),
            "no `{why}` in {unsupported:?}"
        );
    }
}

#[test]
fn a_file_that_contradicts_itself_is_refused() {
    let decoder = Decoder::of("llama");
    let (metadata, tensors) = (decoder.metadata(), decoder.tensors());
    let whole = decoder.file();
    let twice = [tensors.clone(), vec![tensors[0].clone()]].concat();
    let mut odd = tensors.clone();
    odd[0].dims = vec![33, 2];
    let big_endian = [&b"GGUF\0\0\0\x03"[..], &whole[8..]].concat();
    let first = [&b"GGUF\x01\0\0\0"[..], &whole[8..]].concat();
    for (bytes, why) in [
        (whole[..whole.len() - 40].to_vec(), "longer than the file"),
        (whole[..100].to_vec(), "its header is longer than the file"),
        (file(&metadata, &twice), "token_embd.weight twice"),
        (
            file(&[metadata.clone(), metadata.clone()].concat(), &tensors),
            "a key twice",
        ),
        (file(&metadata, &odd), "is not a whole number of blocks of Q4_0"),
        (big_endian, "gguf_convert_endian.py"),
        (first, "version 1"),
    ] {
        let error = read(&bytes, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(why), "no `{why}` in {error}");
    }
}

/// Writes the parts of a model, and returns its path.
fn split(directory: &Path, numbers: &[u32], count: u32) {
    let decoder = Decoder::of("llama");
    let tensors = decoder.tensors();
    let length = tensors.len().div_ceil(2);
    for (part, tensors) in tensors.chunks(length).enumerate() {
        let number = numbers[part];
        let own = [
            ("split.no".to_owned(), Value::Int(number)),
            ("split.count".to_owned(), Value::Int(count)),
            (
                "split.tensors.count".to_owned(),
                Value::Int(u32::try_from(2 * length - 1).unwrap()),
            ),
        ];
        let metadata = if part == 0 { decoder.metadata() } else { Vec::new() };
        let bytes = file(&[metadata, own.to_vec()].concat(), tensors);
        fs::write(directory.join(format!("a-0000{}-of-00002.gguf", part + 1)), bytes).unwrap();
    }
}

#[test]
fn the_parts_of_a_split_model_are_one() {
    let directory = tempfile::tempdir().unwrap();
    split(directory.path(), &[0, 1], 2);
    let (first, second) = (
        directory.path().join("a-00001-of-00002.gguf"),
        directory.path().join("a-00002-of-00002.gguf"),
    );
    let whole = read(&Decoder::of("llama").file(), &options(&[1], &[64])).unwrap();
    for path in [&first, &second] {
        let summary = model::read(path, &options(&[1], &[64])).unwrap();
        assert_eq!(summary.counts.total_params, whole.counts.total_params);
        assert_eq!(summary.mult_adds(), whole.mult_adds());
        assert_eq!(
            summary.details.files,
            ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
        );
        let both = fs::metadata(&first).unwrap().len() + fs::metadata(&second).unwrap().len();
        assert_eq!((summary.file_bytes, &summary.sha256), (both, &None));
    }
    let fails = |why: &str| {
        let error = model::read(&first, &Options::default()).unwrap_err().to_string();
        assert!(
            error.contains("a-00002-of-00002.gguf") && error.contains(why),
            "{error}"
        );
    };
    fs::write(&second, "GGUX").unwrap();
    fails("begin with GGUF");
    fs::remove_file(&second).unwrap();
    fails("No such file");
    symlink("/dev/zero", &second).unwrap();
    fails("is a link out of it");
    fs::remove_file(&second).unwrap();
    split(directory.path(), &[0, 0], 2);
    fails("not part 2 of 2");
    let renamed = directory.path().join("b.gguf");
    fs::rename(&first, &renamed).unwrap();
    let error = model::read(&renamed, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("rename them") && error.contains("--merge"), "{error}");
}

/// The header of a file whose data are a hole of 100 GB is all that is read: reading and hashing the data would take
/// minutes, and this test a hundred times as long as any other.
#[test]
fn a_file_of_100_gb_is_read_by_its_header() {
    let decoder = Decoder::of("llama");
    let mut tensors = decoder.tensors();
    tensors.push(floats("blk.0.more.bias", &[25_000_000_000]));
    let (bytes, data) = header(&decoder.metadata(), &tensors);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.gguf");
    fs::write(&path, &bytes).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 + data).unwrap();
    let before = read_bytes();
    let summary = model::read(&path, &Options::default()).unwrap();
    let during = read_bytes() - before;
    assert!(during < 1 << 20, "{during} bytes were read");
    assert_eq!(summary.counts.total_params, elements(&tensors));
    assert!(summary.file_bytes > 100_000_000_000);
    assert_eq!(summary.sha256, None);
    assert!(summary.details.header_sha256.is_some());
    assert_eq!(summary.to_json()["dlpm"]["sha256"], serde_json::Value::Null);
}

#[test]
fn a_safetensors_file_of_100_gb_is_read_by_its_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.safetensors");
    let text = r#"{"w":{"dtype":"F16","shape":[50000,1000000],"data_offsets":[0,100000000000]}}"#;
    fs::write(
        &path,
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat(),
    )
    .unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8 + text.len() as u64 + 100_000_000_000).unwrap();
    let before = read_bytes();
    let summary = model::read(&path, &Options::default()).unwrap();
    let during = read_bytes() - before;
    assert!(during < 1 << 20, "{during} bytes were read");
    assert_eq!(summary.counts.total_params, 50_000_000_000);
    assert!(summary.sha256.is_none() && summary.details.header_sha256.is_some());
}

/// Bytes that this thread has read from files and pipes.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}
