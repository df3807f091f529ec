//! GGUF files for tests, written after its description, independently of dlpm's reader.

/// A value of the metadata.
#[derive(Clone, Debug)]
pub enum Value {
    /// An unsigned integer of 32 bits.
    Int(u32),
    /// A text.
    Text(&'static str),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts, as a vocabulary has them.
    Texts(Vec<&'static str>),
    /// A float of 32 bits.
    Float(f32),
}

/// A tensor: name, dimensions with the one that changes fastest first, number of its type, bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<u64>,
    /// The number of its type.
    pub number: u32,
    /// Bytes of its data.
    pub bytes: u64,
}

/// A tensor of 32-bit floats.
pub fn floats(name: impl Into<String>, dims: &[u64]) -> Tensor {
    Tensor {
        name: name.into(),
        dims: dims.to_vec(),
        number: 0,
        bytes: 4 * dims.iter().product::<u64>(),
    }
}

/// A tensor of `Q4_0`: blocks of 32 elements in 18 bytes.
pub fn quantised(name: impl Into<String>, dims: &[u64]) -> Tensor {
    Tensor {
        name: name.into(),
        dims: dims.to_vec(),
        number: 2,
        bytes: dims.iter().product::<u64>() / 32 * 18,
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The header of such a file, padded up to its data, and the bytes of these.
pub fn header(metadata: &[(String, Value)], tensors: &[Tensor]) -> (Vec<u8>, u64) {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut bytes, key);
        let mut array = |number: u32, length: usize| {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend((length as u64).to_le_bytes());
        };
        match value {
            Value::Int(int) => {
                bytes.extend(4u32.to_le_bytes());
                bytes.extend(int.to_le_bytes());
            }
            Value::Float(float) => {
                bytes.extend(6u32.to_le_bytes());
                bytes.extend(float.to_le_bytes());
            }
            Value::Text(value) => {
                bytes.extend(8u32.to_le_bytes());
                text(&mut bytes, value);
            }
            Value::Bools(bools) => {
                array(7, bools.len());
                bytes.extend(bools.iter().map(|value| u8::from(*value)));
            }
            Value::Texts(texts) => {
                array(8, texts.len());
                for value in texts {
                    text(&mut bytes, value);
                }
            }
        }
    }
    let mut offset = 0u64;
    for tensor in tensors {
        text(&mut bytes, &tensor.name);
        bytes.extend(u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
        bytes.extend(tensor.number.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor.bytes.next_multiple_of(32);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    (bytes, offset)
}

/// A whole file, its data zero.
pub fn file(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let (mut bytes, data) = header(metadata, tensors);
    let length = bytes.len() as u64 + data;
    bytes.resize(usize::try_from(length).unwrap_or_default(), 0);
    bytes
}

/// A small decoder of such a family, with `experts` of which each token uses 2, or with none; by its numbers below.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Its family.
    pub family: &'static str,
    /// Blocks.
    pub blocks: u32,
    /// Experts, or 0.
    pub experts: u64,
    /// Whether the words and the choice of the next token share a matrix.
    pub tied: bool,
    /// Further metadata of the family.
    pub more: Vec<(&'static str, Value)>,
}

impl Decoder {
    /// Length of a token's vector.
    pub const WIDTH: u64 = 64;
    /// Length within the feed-forward part.
    pub const INNER: u64 = 96;
    /// Words.
    pub const WORDS: u64 = 160;
    /// Heads of queries, of 16.
    pub const HEADS: u64 = 4;
    /// Heads of keys and values, of 16.
    pub const KV_HEADS: u64 = 2;

    /// One of a family, with two blocks and nothing special.
    pub fn of(family: &'static str) -> Self {
        Self {
            family,
            blocks: 2,
            experts: 0,
            tied: false,
            more: Vec::new(),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> Vec<(String, Value)> {
        let key = |name: &str| format!("{}.{name}", self.family);
        let mut all = vec![
            ("general.architecture".to_owned(), Value::Text(self.family)),
            ("general.name".to_owned(), Value::Text("small")),
            (key("block_count"), Value::Int(self.blocks)),
            (key("context_length"), Value::Int(2048)),
            (key("embedding_length"), Value::Int(64)),
            (key("attention.head_count"), Value::Int(4)),
            (key("attention.head_count_kv"), Value::Int(2)),
            (key("attention.layer_norm_rms_epsilon"), Value::Float(1e-5)),
            ("tokenizer.ggml.tokens".to_owned(), Value::Texts(vec!["word"; 160])),
        ];
        if self.experts > 0 {
            let experts = u32::try_from(self.experts).unwrap_or(u32::MAX);
            all.push((key("expert_count"), Value::Int(experts)));
            all.push((key("expert_used_count"), Value::Int(2)));
        }
        all.extend(self.more.iter().map(|(name, value)| (key(name), value.clone())));
        all
    }

    /// Its tensors.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut all = vec![quantised("token_embd.weight", &[Self::WIDTH, Self::WORDS])];
        for block in 0..self.blocks {
            let name = |what: &str| format!("blk.{block}.{what}.weight");
            let (queries, keys) = (Self::HEADS * 16, Self::KV_HEADS * 16);
            all.push(floats(name("attn_norm"), &[Self::WIDTH]));
            all.push(quantised(name("attn_q"), &[Self::WIDTH, queries]));
            all.push(quantised(name("attn_k"), &[Self::WIDTH, keys]));
            all.push(quantised(name("attn_v"), &[Self::WIDTH, keys]));
            all.push(quantised(name("attn_output"), &[queries, Self::WIDTH]));
            all.push(floats(name("ffn_norm"), &[Self::WIDTH]));
            if self.experts > 0 {
                all.push(floats(name("ffn_gate_inp"), &[Self::WIDTH, self.experts]));
                all.push(quantised(
                    name("ffn_gate_exps"),
                    &[Self::WIDTH, Self::INNER, self.experts],
                ));
                all.push(quantised(
                    name("ffn_up_exps"),
                    &[Self::WIDTH, Self::INNER, self.experts],
                ));
                all.push(quantised(
                    name("ffn_down_exps"),
                    &[Self::INNER, Self::WIDTH, self.experts],
                ));
            } else {
                all.push(quantised(name("ffn_gate"), &[Self::WIDTH, Self::INNER]));
                all.push(quantised(name("ffn_up"), &[Self::WIDTH, Self::INNER]));
                all.push(quantised(name("ffn_down"), &[Self::INNER, Self::WIDTH]));
            }
        }
        all.push(floats("output_norm.weight", &[Self::WIDTH]));
        if !self.tied {
            all.push(quantised("output.weight", &[Self::WIDTH, Self::WORDS]));
        }
        all
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        file(&self.metadata(), &self.tensors())
    }

    /// Operations with weights for one token, without the choice of the next one: the formula of docs/model.md.
    pub fn per_token(&self) -> u64 {
        let attention = Self::WIDTH * 16 * (2 * Self::HEADS + 2 * Self::KV_HEADS);
        let feed_forward = 3 * Self::WIDTH * Self::INNER * if self.experts > 0 { 2 } else { 1 };
        u64::from(self.blocks) * (attention + feed_forward + Self::WIDTH * self.experts)
    }

    /// Operations that choose the next token.
    pub const LOGITS: u64 = Self::WIDTH * Self::WORDS;

    /// Operations of attention in a block for one pair of tokens.
    pub const PAIR: u64 = Self::HEADS * (16 + 16);
}
