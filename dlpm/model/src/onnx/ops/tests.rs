//! Operators by their inputs: shapes of all outputs, and operations.

use super::{
    super::{
        call::Call,
        proto::Attribute,
        value::{Data, Tensor},
    },
    evaluate,
};

const MICROSOFT: &str = "com.microsoft";
const BLOCKED: &str = "com.microsoft.nchwc";

/// An operator with these inputs and attributes: the dimensions of its outputs, and its operations.
fn run(domain: &str, op: &str, inputs: &[Option<Tensor>], ints: &[(&str, i64)]) -> (Vec<Vec<u64>>, Option<u64>) {
    let attributes: Vec<(&str, Attribute)> = ints
        .iter()
        .map(|(name, value)| {
            let attribute = Attribute {
                int: Some(*value),
                ..Attribute::default()
            };
            (*name, attribute)
        })
        .collect();
    let call = Call {
        op,
        domain,
        inputs: inputs.to_vec(),
        outputs: 4,
        attributes: attributes.iter().map(|(name, attribute)| (*name, attribute)).collect(),
        opset: 17,
    };
    let outcome = evaluate(&call).unwrap();
    let shapes = outcome
        .outputs
        .iter()
        .map(|output| output.shape.as_deref().unwrap_or_default().to_vec());
    (shapes.collect(), outcome.mult_adds)
}

fn of(shape: &[u64]) -> Option<Tensor> {
    Some(Tensor::of(shape))
}

fn int(value: i64) -> Option<Tensor> {
    Some(Tensor::int(value))
}

#[test]
fn quantised_operators() {
    let (shapes, _) = run("", "DynamicQuantizeLinear", &[of(&[2, 3])], &[]);
    assert_eq!(shapes, [vec![2, 3], vec![], vec![]]);
    let scalar = || of(&[]);
    let add = [
        of(&[2, 1, 3]),
        scalar(),
        scalar(),
        of(&[4, 1]),
        scalar(),
        scalar(),
        scalar(),
        scalar(),
    ];
    assert_eq!(run(MICROSOFT, "QLinearAdd", &add, &[]).0, [vec![2, 4, 3]]);
    let gemm = [of(&[2, 8]), scalar(), scalar(), of(&[5, 8]), scalar(), scalar()];
    assert_eq!(
        run(MICROSOFT, "QGemm", &gemm, &[("transB", 1)]),
        (vec![vec![2, 5]], Some(2 * 8 * 5))
    );
    let concat = [
        scalar(),
        scalar(),
        of(&[1, 2]),
        scalar(),
        scalar(),
        of(&[1, 5]),
        scalar(),
        scalar(),
    ];
    assert_eq!(run(MICROSOFT, "QLinearConcat", &concat, &[("axis", 1)]).0, [vec![1, 7]]);
    // Steps × sequences × gates × (inputs + hidden), with transposed weights.
    let lstm = [of(&[7, 2, 3]), of(&[1, 3, 20]), of(&[1, 5, 20])];
    let (shapes, mult_adds) = run(MICROSOFT, "DynamicQuantizeLSTM", &lstm, &[]);
    assert_eq!(
        (shapes[0].as_slice(), mult_adds),
        (&[7, 1, 2, 5][..], Some(7 * 2 * 20 * (3 + 5)))
    );
}

#[test]
fn normalisations_with_all_their_outputs() {
    for (domain, op) in [("", "SimplifiedLayerNormalization"), ("", "LayerNormalization")] {
        let (shapes, mult_adds) = run(domain, op, &[of(&[2, 5, 8]), of(&[8])], &[]);
        assert_eq!(
            (shapes, mult_adds),
            (vec![vec![2, 5, 8], vec![2, 5, 1], vec![2, 5, 1]], None),
            "{op}"
        );
    }
    for domain in ["", MICROSOFT] {
        let inputs = [of(&[2, 5, 8]), of(&[2, 5, 8]), of(&[8])];
        let (shapes, _) = run(domain, "SkipSimplifiedLayerNormalization", &inputs, &[]);
        assert_eq!(shapes[3], [2, 5, 8]);
    }
    let inputs = [of(&[1, 5]), None, of(&[10, 8]), of(&[9, 8]), None, of(&[8]), of(&[8])];
    let (shapes, _) = run(MICROSOFT, "EmbedLayerNormalization", &inputs, &[]);
    assert_eq!(shapes, [vec![1, 5, 8], vec![1], vec![1, 5, 8]]);
}

#[test]
fn fused_attention() {
    let heads = [("num_heads", 4), ("kv_num_heads", 2)];
    let past = || of(&[1, 2, 31, 16]);
    let grouped = |total: Option<Tensor>| {
        let inputs = [
            of(&[1, 1, 64]),
            of(&[1, 1, 32]),
            of(&[1, 1, 32]),
            past(),
            past(),
            of(&[1]),
            total,
        ];
        run(MICROSOFT, "GroupQueryAttention", &inputs, &heads)
    };
    // Heads × keys × (width of a key + width of a value): the past and the new one.
    let (shapes, mult_adds) = grouped(int(32));
    assert_eq!(
        (shapes[1].as_slice(), mult_adds),
        (&[1, 2, 32, 16][..], Some(4 * 32 * (16 + 16)))
    );
    // Of a buffer of 31, 10 are used.
    let (shapes, mult_adds) = grouped(int(10));
    assert_eq!(
        (shapes[1].as_slice(), mult_adds),
        (&[1, 2, 31, 16][..], Some(4 * 10 * (16 + 16)))
    );
    let fused = [of(&[2, 5, 8]), of(&[8, 24]), of(&[24])];
    let (shapes, mult_adds) = run(MICROSOFT, "Attention", &fused, &[("num_heads", 2)]);
    assert_eq!(
        (shapes[0].as_slice(), mult_adds),
        (&[2, 5, 8][..], Some(2 * 5 * 8 * 24 + 2 * 5 * 5 * 16))
    );
    let packed = [of(&[2, 5, 4, 3, 8])];
    let (_, mult_adds) = run(MICROSOFT, "MultiHeadAttention", &packed, &[("num_heads", 4)]);
    assert_eq!(mult_adds, Some(2 * 4 * 5 * 5 * 16));
}

#[test]
fn experts_blocks_and_transforms() {
    // 6 tokens, 2 of 4 experts each, gate and value fused.
    let experts = [of(&[6, 8]), of(&[6, 4]), of(&[4, 32, 8]), None, of(&[4, 8, 16])];
    let fused = [("k", 2), ("swiglu_fusion", 1)];
    assert_eq!(
        run(MICROSOFT, "MoE", &experts, &fused).1,
        Some(6 * 2 * (32 * 8 + 8 * 16))
    );
    let conv = [of(&[1, 8, 6, 6]), of(&[16, 8, 3, 3])];
    assert_eq!(
        run(BLOCKED, "Conv", &conv, &[]),
        (vec![vec![1, 16, 4, 4]], Some(16 * 16 * 8 * 9))
    );
    assert_eq!(
        run(BLOCKED, "ReorderOutput", &[of(&[1, 16, 4, 4])], &[("channels", 10)]).0,
        [vec![1, 10, 4, 4]]
    );
    let signal = [of(&[1, 16, 1]), int(8), None, int(16)];
    assert_eq!(run("", "STFT", &signal, &[]), (vec![vec![1, 1, 9, 2]], None));
    assert_eq!(
        run("", "DFT", &[of(&[1, 10, 1])], &[("onesided", 1)]).0,
        [vec![1, 6, 2]]
    );
    assert_eq!(run("", "HannWindow", &[int(10)], &[]).0, [vec![10]]);
}

#[test]
fn sequences_know_their_items() {
    let item = |size: u64| Tensor::of([2, size]);
    let sequence = Some(Tensor {
        items: Some([item(3), item(4)].into()),
        ..Tensor::default()
    });
    assert_eq!(run("", "SequenceAt", &[sequence.clone(), int(-1)], &[]).0, [vec![2, 4]]);
    assert_eq!(
        run("", "ConcatFromSequence", &[sequence], &[("axis", 1)]).0,
        [vec![2, 7]]
    );
    let lengths = Some(Tensor::of([2]).with(Some(Data::Ints([1, 4].into()))));
    let call = Call {
        op: "SplitToSequence",
        domain: "",
        inputs: vec![of(&[5, 2]), lengths],
        outputs: 1,
        attributes: Vec::new(),
        opset: 17,
    };
    let items = evaluate(&call).unwrap().outputs.remove(0).items.unwrap();
    assert_eq!(items[1].shape.as_deref(), Some(&[4, 2][..]));
}

/// What the shape of a result depends on is a value that is known, or an attribute.
#[test]
fn sizes_that_values_decide() {
    let values = |values: &[i64]| Some(Tensor::ints(values.to_vec()));
    let condition = values(&[0, 1, 1]);
    assert_eq!(
        run("", "Compress", &[of(&[3, 2]), condition.clone()], &[("axis", 0)]).0,
        [vec![2, 2]]
    );
    assert_eq!(run("", "Compress", &[of(&[3, 2]), condition], &[]).0, [vec![2]]);
    // (4 - 1) × 1 + 1, and a pad on each side.
    let unpool = |texts: &[(&str, &[i64])]| shapes_of("MaxUnpool", &[of(&[1, 2, 4, 4]), of(&[1, 2, 4, 4])], texts, "");
    assert_eq!(
        unpool(&[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]),
        [vec![1, 2, 8, 8]]
    );
    assert_eq!(
        unpool(&[("kernel_shape", &[3, 3]), ("pads", &[1, 0, 0, 0])]),
        [vec![1, 2, 5, 6]]
    );
    // 2 of 5 and 3 of 4: 0.4 or 0.75 of each side, halves rounded up.
    for (policy, expected) in [("stretch", [2, 3]), ("not_larger", [2, 2]), ("not_smaller", [4, 3])] {
        let resize = [of(&[5, 4]), None, None, values(&[2, 3])];
        let shapes = shapes_of("Resize", &resize, &[], policy);
        assert_eq!(shapes, [expected.to_vec()], "{policy}");
    }
    let indexes: &[i64] = &[0, 4, 2];
    assert_eq!(
        shapes_of("TfIdfVectorizer", &[of(&[3, 9])], &[("ngram_indexes", indexes)], ""),
        [vec![3, 5]]
    );
    assert_eq!(run("", "RegexFullMatch", &[of(&[2, 3])], &[]).0, [vec![2, 3]]);
    assert_eq!(run("", "StringConcat", &[of(&[2, 1]), of(&[3])], &[]).0, [vec![2, 3]]);
    assert_eq!(run("", "StringSplit", &[of(&[4])], &[]).0[1], [4]);
    assert_eq!(run("", "StringNormalizer", &[of(&[4])], &[]).0, [vec![4]]);
}

/// The shapes of an operator's outputs, with attributes of integers and a policy.
fn shapes_of(op: &str, inputs: &[Option<Tensor>], ints: &[(&str, &[i64])], policy: &str) -> Vec<Vec<u64>> {
    let mut attributes: Vec<(&str, Attribute)> = ints
        .iter()
        .map(|(name, values)| {
            let attribute = Attribute {
                ints: values.to_vec(),
                ..Attribute::default()
            };
            (*name, attribute)
        })
        .collect();
    attributes.push((
        "keep_aspect_ratio_policy",
        Attribute {
            text: policy.to_owned(),
            ..Attribute::default()
        },
    ));
    let call = Call {
        op,
        domain: "",
        inputs: inputs.to_vec(),
        outputs: 1,
        attributes: attributes.iter().map(|(name, attribute)| (*name, attribute)).collect(),
        opset: 20,
    };
    let outputs = evaluate(&call).unwrap().outputs;
    outputs
        .iter()
        .map(|output| output.shape.as_deref().unwrap().to_vec())
        .collect()
}

#[test]
fn steps_of_optimizers_have_the_shapes_of_their_tensors() {
    let training = "ai.onnx.preview.training";
    let two = |a: &[u64], b: &[u64]| [of(a), of(b)];
    let (rate, step) = (of(&[]), of(&[]));
    let kinds = |kinds: usize| {
        let tensors = (0..kinds).flat_map(|_| two(&[2, 3], &[4]));
        [rate.clone(), step.clone()]
            .into_iter()
            .chain(tensors)
            .collect::<Vec<_>>()
    };
    for (op, inputs, outputs) in [("Adagrad", 3, 2), ("Momentum", 3, 2), ("Adam", 4, 3)] {
        let expected: Vec<Vec<u64>> = (0..outputs).flat_map(|_| [vec![2, 3], vec![4]]).collect();
        assert_eq!(run(training, op, &kinds(inputs), &[]), (expected, None), "{op}");
    }
}
