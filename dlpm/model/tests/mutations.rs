//! More than 10,000 damaged files each of GGUF, Hugging Face, TFLite and old `torch.save`, in a process that may have
//! 256 MiB of private memory: none panics, hangs or opens another file than the model's.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::{
    cell::Cell,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use build::{
    gguf::Decoder,
    hugging_face::{llama, write_sharded},
    legacy_torch, tflite,
};
use dlpm_model::{self as model, Options, language::Settings};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Damaged files of each format.
const CASES: u32 = 10_200;

/// Private memory that the process may have.
const MEMORY_BYTES: u64 = 256 << 20;

/// What is done to the bytes of a file; positions are shares of its length.
#[derive(Clone, Debug)]
enum Mutation {
    Set(f64, u8),
    Flip(f64, u8),
    Insert(f64, Vec<u8>),
    Overwrite(f64, Vec<u8>),
    Delete(f64, u8),
    Copy(f64, f64, u8),
    Cut(f64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Headers are at the begin, and most of a small file's structure.
    let at = || prop_oneof![0.0..1.0f64, (0.0..1.0f64).prop_map(|at| at * at * at)];
    let extreme = || {
        prop::sample::select(vec![
            vec![0xff; 8],
            vec![0xff; 4],
            vec![0; 8],
            vec![0, 0, 0, 0x80],
            vec![0xff, 0xff, 0xff, 0x7f],
            vec![0, 0, 0, 0, 1, 0, 0, 0],
            b"9223372036854775807".to_vec(),
            b"-1".to_vec(),
            b"../x".to_vec(),
            b"/etc/passwd".to_vec(),
            b"[".repeat(300),
            b"{\"a\":".repeat(200),
        ])
    };
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        6 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => (at(), extreme()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), extreme()).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
        1 => (at(), any::<u8>()).prop_map(|(at, count)| Mutation::Delete(at, count)),
        1 => (at(), at(), any::<u8>()).prop_map(|(from, to, count)| Mutation::Copy(from, to, count)),
        1 => at().prop_map(Mutation::Cut),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "any position will do"
)]
fn apply(mutation: &Mutation, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    let place = |at: f64| (at * length as f64) as usize;
    match mutation {
        Mutation::Set(at, byte) => {
            if let Some(found) = bytes.get_mut(place(*at)) {
                *found = *byte;
            }
        }
        Mutation::Flip(at, bit) => {
            if let Some(found) = bytes.get_mut(place(*at)) {
                *found ^= 1 << bit;
            }
        }
        Mutation::Insert(at, new) => {
            let at = place(*at);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Overwrite(at, new) => {
            let at = place(*at);
            let end = (at + new.len()).min(length);
            bytes.splice(at..end, new.iter().copied());
        }
        Mutation::Delete(at, count) => {
            let at = place(*at);
            bytes.drain(at..(at + usize::from(*count)).min(length));
        }
        Mutation::Copy(from, to, count) => {
            let (from, to) = (place(*from), place(*to));
            let copied = bytes[from..(from + usize::from(*count)).min(length)].to_vec();
            bytes.splice(to..to, copied);
        }
        Mutation::Cut(at) => bytes.truncate(place(*at)),
    }
}

/// A model that is damaged in one of its files.
struct Seed {
    /// What it is.
    name: &'static str,
    /// What is read.
    model: PathBuf,
    /// What is damaged, each in turn.
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn single(folder: &Path, name: &'static str, bytes: Vec<u8>) -> Seed {
    let path = folder.join(name);
    fs::write(&path, &bytes).unwrap();
    Seed {
        name,
        model: path.clone(),
        files: vec![(path, bytes)],
    }
}

fn seeds(folder: &Path) -> Vec<Vec<Seed>> {
    let sharded = folder.join("folder");
    fs::create_dir(&sharded).unwrap();
    let (config, tensors) = llama("llama", "LlamaForCausalLM");
    write_sharded(&sharded, &config, &tensors);
    let damaged = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
    ];
    let files = damaged.map(|name| {
        let path = sharded.join(name);
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let experts = Decoder {
        experts: 4,
        ..Decoder::of("qwen3moe")
    };
    vec![
        vec![
            single(folder, "dense.gguf", Decoder::of("gemma3").file()),
            single(folder, "experts.gguf", experts.file()),
        ],
        vec![Seed {
            name: "folder",
            model: sharded,
            files: files.to_vec(),
        }],
        vec![single(
            folder,
            "old.pth",
            legacy_torch::file(&[
                ("a.weight", "FloatStorage", [4, 3]),
                ("b.weight", "HalfStorage", [2, 5]),
            ]),
        )],
        vec![single(folder, "small.tflite", tflite::file(&[tflite::small().0]))],
    ]
}

fn limit(resource: Resource, most: u64) {
    let maximum = getrlimit(resource).maximum;
    let current = Some(maximum.map_or(most, |maximum| maximum.min(most)));
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn damaged_files_neither_panic_nor_hang_nor_fill_the_memory() {
    limit(Resource::Data, MEMORY_BYTES);
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path().join("x"), folder.path().join("x")).unwrap();
    let with_layers = Options {
        per_layer: true,
        language: Settings {
            batches: vec![1, 7],
            contexts: vec![1, 100_000],
            ..Settings::default()
        },
        ..Options::default()
    };
    for seeds in seeds(folder.path()) {
        // Weights alone have no layers, and say so.
        let has_layers = seeds.iter().all(|seed| model::read(&seed.model, &with_layers).is_ok());
        let options = Options {
            per_layer: has_layers,
            ..with_layers.clone()
        };
        for seed in &seeds {
            model::read(&seed.model, &options).unwrap();
        }
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::default()
        };
        let (survived, slowest) = (Cell::new(0u32), Cell::new(Duration::ZERO));
        let strategy = (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            prop::collection::vec(mutation(), 1..4),
        );
        TestRunner::new(config)
            .run(&strategy, |(seed, file, mutations)| {
                let seed = seed.get(&seeds);
                let (path, whole) = file.get(&seed.files);
                let mut bytes = whole.clone();
                for mutation in &mutations {
                    apply(mutation, &mut bytes);
                }
                fs::write(path, &bytes).unwrap();
                let start = Instant::now();
                let is_read = model::read(&seed.model, &options).is_ok();
                slowest.set(slowest.get().max(start.elapsed()));
                survived.set(survived.get() + u32::from(is_read));
                fs::write(path, whole).unwrap();
                Ok(())
            })
            .unwrap();
        let name = seeds[0].name;
        println!(
            "{name}: {CASES} damaged files, {} of them still models; slowest {:?}, peak {} KiB",
            survived.get(),
            slowest.get(),
            peak_kib()
        );
        // Else the mutations would only ever meet the first check.
        assert!(survived.get() > CASES / 50, "{name}: {} of {CASES}", survived.get());
    }
    assert!(peak_kib() * 1024 < MEMORY_BYTES);
}
