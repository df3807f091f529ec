//! Files of models that were damaged at random: reading them neither panics nor hangs nor takes much memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "../../dlpm/model/tests/build/damage.rs"]
#[expect(dead_code, reason = "the tests of the newer formats use more of it")]
mod damage;

use std::{cell::Cell, fs};

use damage::{apply, limit, mutation, peak_kib};
use dlpm_model::{self as model, Options};
use dlpm_tests::{
    model_files::{archive, folder, safetensors},
    onnx_build::{
        DataType, Dim::Is, GraphProto, graph_attribute, int, int_constant, model as onnx_model, names, node, value,
        weights,
    },
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rustix::process::Resource;

/// Mutated files.
const CASES: u32 = 10_500;

/// Private memory that the process may have, all files and the test itself included.
const MEMORY_BYTES: u64 = 256 << 20;

/// CPU time of all files, beyond which something hangs: some hundred times what a machine needs for it.
const CPU_SECONDS: u64 = 3_600;

/// How the mutated bytes become a file: the checksums of an archive would hide all but its list from the mutations.
#[derive(Clone, Copy, Debug)]
enum Wrap {
    None,
    /// In an archive under this name.
    Archive(&'static str),
    /// As the header of `.safetensors`.
    Header,
}

fn seeds() -> Vec<(Wrap, Vec<u8>)> {
    let file = |name: &str| fs::read(folder().join(name)).unwrap();
    let program = |name: &str| {
        let bytes = file(name);
        let begin = find(&bytes, br#"{"graph_module""#);
        let end = begin + find(&bytes[begin..], b"PK");
        bytes[begin..end].to_vec()
    };
    let tensor =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\
        K\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR";
    let pickle = [
        &b"\x80\x02}q\0(X\x01\0\0\0wq\x01"[..],
        tensor,
        b"X\x05\0\0\0twiceh\x01u.",
    ]
    .concat();
    let header = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let saved = archive(&[
        ("a/data.pkl", &pickle),
        ("a/code/a.py", b"class A"),
        ("a/data/0", &[0; 24]),
    ]);
    vec![
        (Wrap::None, file("dynamic.onnx")),
        (Wrap::None, file("encoder.onnx")),
        (Wrap::None, control_flow()),
        (Wrap::Archive("a/models/model.json"), program("recurrent.pt2")),
        (Wrap::None, file("recurrent.pt2")),
        (Wrap::Archive("a/data.pkl"), pickle),
        (Wrap::None, saved),
        (Wrap::Header, header.into()),
        (Wrap::None, safetensors(header, 24)),
    ]
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

/// A loop with a branch in it, and shapes from integers.
fn control_flow() -> Vec<u8> {
    let branch = |name: &str| GraphProto {
        node: vec![node("MatMul", &["carried", "w"], &[name], vec![])],
        output: names(&[name]),
        ..GraphProto::default()
    };
    let branches = vec![
        graph_attribute("then_branch", branch("p")),
        graph_attribute("else_branch", branch("q")),
    ];
    let body = GraphProto {
        node: vec![
            node("If", &["condition"], &["next"], branches),
            node("Less", &["turn", "n"], &["goes_on"], vec![]),
        ],
        input: names(&["turn", "condition", "carried"]),
        output: names(&["goes_on", "next"]),
        ..GraphProto::default()
    };
    onnx_model(GraphProto {
        node: vec![
            node("Shape", &["x"], &["dims"], vec![]),
            node("Slice", &["dims", "zero", "one"], &["some"], vec![]),
            node("Tile", &["some", "one"], &["more"], vec![]),
            node("Concat", &["more", "rest"], &["target"], vec![int("axis", 0)]),
            node("Reshape", &["x", "target"], &["r"], vec![]),
            node("Loop", &["n", "", "r"], &["y"], vec![graph_attribute("body", body)]),
        ],
        initializer: vec![
            int_constant("zero", &[1], &[0]),
            int_constant("one", &[1], &[1]),
            int_constant("rest", &[1], &[-1]),
            int_constant("n", &[], &[4]),
            weights("w", &[3, 3], true),
        ],
        input: vec![value("x", DataType::FLOAT, &[Is(2), Is(3)])],
        output: names(&["y"]),
        ..GraphProto::default()
    })
}

fn wrapped(wrap: Wrap, bytes: Vec<u8>) -> Vec<u8> {
    match wrap {
        Wrap::None => bytes,
        Wrap::Archive(name) => archive(&[(name, &bytes)]),
        Wrap::Header => {
            let mut file = (bytes.len() as u64).to_le_bytes().to_vec();
            file.extend(bytes);
            file.resize(file.len() + 24, 0);
            file
        }
    }
}

#[test]
fn mutated_files_neither_panic_nor_hang_nor_fill_the_memory() {
    // An allocation beyond this, also one that is never touched, ends the process; so does a loop without end.
    limit(Resource::Data, MEMORY_BYTES);
    limit(Resource::Cpu, CPU_SECONDS);
    let seeds = seeds();
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = Options {
        inputs: vec!["image=2,3,16,20".parse().unwrap(), "words=2,9".parse().unwrap()],
        per_layer: true,
        ..Options::default()
    };
    let read = |bytes: &[u8]| {
        fs::write(file.path(), bytes).unwrap();
        let with_inputs = model::read(file.path(), &options).is_ok();
        model::read(file.path(), &Options::default()).is_ok() || with_inputs
    };
    for (wrap, seed) in &seeds {
        assert!(read(&wrapped(*wrap, seed.clone())), "{wrap:?} of {} bytes", seed.len());
    }

    let config = Config {
        // PROPTEST_CASES asks for more.
        cases: Config::default().cases.max(CASES),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let (survived, tried) = (Cell::new(0u32), Cell::new(0u32));
    let strategy = (0..seeds.len(), prop::collection::vec(mutation(), 1..4));
    TestRunner::new(config)
        .run(&strategy, |(seed, mutations)| {
            let (wrap, mut bytes) = seeds[seed].clone();
            for mutation in &mutations {
                apply(mutation, &mut bytes);
            }
            tried.set(tried.get() + 1);
            survived.set(survived.get() + u32::from(read(&wrapped(wrap, bytes))));
            Ok(())
        })
        .unwrap();
    let (survived, tried) = (survived.get(), tried.get());
    println!(
        "{tried} mutated files, {survived} of them still models; peak {} KiB",
        peak_kib()
    );
    assert!(tried >= 10_000);
    // Else the mutations would only ever meet the first check.
    assert!(survived > tried / 20, "{survived} of {tried}");
    assert!(peak_kib() * 1024 < MEMORY_BYTES);
}
