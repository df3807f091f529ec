//! Damaged files of GGUF, Hugging Face, TFLite, Keras and old `torch.save`, in a process that may have 256 MiB of private
//! memory: none panics, takes a second, or opens another file than the model's.
//!
//! More than 10,000 of each: `PROPTEST_CASES=10200 cargo test -p dlpm-model --test mutations -- --nocapture`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod build;

use std::{
    cell::Cell,
    env, fs,
    mem::MaybeUninit,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use build::{
    damage::{apply, cpu_time, limit, mutation, peak_kib},
    gguf::Decoder,
    hugging_face::{llama, write_sharded},
    keras, legacy_torch, tflite,
};
use dlpm_model::{self as model, Options, language::Settings};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
    process::Resource,
};

/// Damaged files of each format, where the environment does not ask for more.
const CASES: u32 = 1_500;

/// CPU time that a damaged file may take.
const MOST_TIME: Duration = Duration::from_secs(1);

/// Private memory that the process may have.
const MEMORY_BYTES: u64 = 256 << 20;

/// What is put around the bytes of a file.
type Around = fn(&[u8]) -> Vec<u8>;

/// A model that is damaged in one of its files.
struct Seed {
    /// What it is.
    name: &'static str,
    /// What is read.
    model: PathBuf,
    /// What is damaged, each in turn, and what is put around it: the checksums of an archive would hide all but its list.
    files: Vec<(PathBuf, Vec<u8>, Around)>,
}

fn single(folder: &Path, name: &'static str, bytes: Vec<u8>) -> Seed {
    let path = folder.join(name);
    fs::write(&path, &bytes).unwrap();
    Seed {
        name,
        model: path.clone(),
        files: vec![(path, bytes, <[u8]>::to_vec)],
    }
}

fn seeds(folder: &Path) -> Vec<Vec<Seed>> {
    let sharded = folder.join("folder");
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
        (path, bytes, <[u8]>::to_vec as Around)
    });
    let layers = keras::small().to_string().into_bytes();
    let mut in_archive = single(folder, "small.keras", keras::file(&layers));
    in_archive.files.push((in_archive.model.clone(), layers, keras::file));
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
        vec![in_archive],
    ]
}

#[test]
fn damaged_files_neither_panic_nor_hang_nor_fill_the_memory_nor_open_others() {
    limit(Resource::Data, MEMORY_BYTES);
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    // The names that are put into files lead here.
    fs::write(outside.path().join("x"), "foreign").unwrap();
    symlink(outside.path().join("x"), folder.path().join("x")).unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    symlink(outside.path().join("x"), folder.path().join("folder/x")).unwrap();
    let opened = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&opened, outside.path(), WatchFlags::OPEN).unwrap();
    let cases = env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
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
            cases,
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
                let (path, whole, wrap) = file.get(&seed.files);
                let mut bytes = whole.clone();
                for mutation in &mutations {
                    apply(mutation, &mut bytes);
                }
                fs::write(path, wrap(&bytes)).unwrap();
                let start = cpu_time();
                let is_read = model::read(&seed.model, &options).is_ok();
                slowest.set(slowest.get().max(cpu_time() - start));
                survived.set(survived.get() + u32::from(is_read));
                fs::write(path, wrap(whole)).unwrap();
                prop_assert!(slowest.get() < MOST_TIME, "{:?}", slowest.get());
                Ok(())
            })
            .unwrap();
        let name = seeds[0].name;
        println!(
            "{name}: {cases} damaged files, {} of them still models; slowest {:?}, peak {} KiB",
            survived.get(),
            slowest.get(),
            peak_kib()
        );
        // Else the mutations would only ever meet the first check.
        assert!(survived.get() > cases / 50, "{name}: {} of {cases}", survived.get());
    }
    assert!(peak_kib() * 1024 < MEMORY_BYTES);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let found = inotify::Reader::new(&opened, &mut buffer)
        .next()
        .map(|event| event.events());
    assert_eq!(found.unwrap_err(), Errno::AGAIN, "a foreign file was opened");
}
