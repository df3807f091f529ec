//! What a GGUF file computes: its tensors are products, and its metadata tell the attention.
//!
//! Names of tensors and keys are those of the package `gguf` (`gguf/constants.py`); which families slide a window, and over which
//! blocks, is what llama.cpp does when it loads their metadata (`src/llama-model.cpp`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Header, Tensor, Value, families};
use crate::language::{Attention, Experts, Kind, MOST_BLOCKS, Network, Runs, Side, Unknown, unknown};

/// What was found, and what a reader has to know.
pub struct Found {
    pub network: Network,
    pub notes: Vec<String>,
}

/// The metadata of one architecture.
struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
}

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.header.metadata.get(&format!("{}.{key}", self.architecture))
    }

    /// A number, for this block where there is one for each.
    fn number(&self, key: &str, block: u64) -> Option<u64> {
        let int = match self.value(key)? {
            Value::Int(int) => *int,
            Value::Ints(ints) => *ints.get(usize::try_from(block).ok()?)?,
            _ => return None,
        };
        u64::try_from(int).ok()
    }
}

/// What a header computes.
///
/// # Errors
///
/// Where dlpm does not know the architecture, or a number that it needs is missing.
pub fn of(header: &Header) -> Result<Found, Unknown> {
    let architecture = match header.metadata.get("general.architecture") {
        Some(Value::Text(architecture)) => architecture.as_str(),
        _ => return unknown("the model", "its metadata do not tell the architecture"),
    };
    match header.metadata.get("general.type") {
        Some(Value::Text(kind)) if kind != "model" => {
            return unknown(
                "the model",
                format!("it is of the type {}, not a whole model", crate::printable(kind)),
            );
        }
        _ => {}
    }
    let Some(kind) = families::kind(architecture) else {
        return unknown(
            &format!("architecture {}", crate::printable(architecture)),
            "dlpm does not know what it computes",
        );
    };
    let keys = Keys { header, architecture };
    let mut network = Network::new(architecture, kind, keys.number("context_length", 0));
    let mut notes = Vec::new();
    products(&keys, &mut network)?;
    attention(&keys, &mut network, &mut notes)?;
    Ok(Found { network, notes })
}

/// What the name of a tensor tells.
struct Name<'a> {
    /// `enc.blk`, `dec.blk` or `blk`, and its number.
    block: Option<(&'a str, u64)>,
    /// What follows, without `.weight`.
    what: &'a str,
    /// Which expert it is, where each has a tensor of its own.
    expert: Option<u64>,
}

fn name_of(tensor: &str) -> Option<Name<'_>> {
    let whole = tensor.strip_suffix(".weight")?;
    let at = whole
        .find("blk.")
        .filter(|at| matches!(whole.get(..*at), Some("" | "enc." | "dec.")));
    let (block, rest) = match at {
        None => (None, whole),
        Some(at) => {
            let (number, rest) = whole.get(at + 4..)?.split_once('.')?;
            (Some((whole.get(..at + 3)?, number.parse().ok()?)), rest)
        }
    };
    let (what, expert) = match rest.rsplit_once('.') {
        Some((what, number)) => match number.parse() {
            Ok(expert) => (what, Some(expert)),
            Err(_) => (rest, None),
        },
        None => (rest, None),
    };
    Some(Name { block, what, expert })
}

/// Tensors that are looked up, and not multiplied with.
const LOOKUPS: [&str; 5] = ["token_embd", "position_embd", "token_types", "attn_rel_b", "rope_freqs"];

fn products(keys: &Keys<'_>, network: &mut Network) -> Result<(), Unknown> {
    let tensors = &keys.header.tensors;
    for tensor in tensors {
        let Some(name) = name_of(&tensor.name) else { continue };
        if tensor.dims.len() < 2 || LOOKUPS.contains(&name.what) || name.what.contains("norm") {
            continue;
        }
        let is_expert = name.expert.is_some() || name.what.ends_with("_exps");
        let mult_adds = if is_expert {
            expert(keys, tensor, &name)?
        } else {
            tensor.elements
        };
        let runs = runs(&name, network.kind);
        network.multiply(&tensor.name, tensor.dims.get(1), mult_adds, runs, is_expert);
    }
    // Without a matrix of its own, the next token is chosen with that of the words.
    if network.kind != Kind::Encoder && !network.chooses() {
        let Some(words) = tensors.iter().find(|tensor| tensor.name == "token_embd.weight") else {
            return unknown(
                "the choice of the next token",
                "it has neither output.weight nor token_embd.weight",
            );
        };
        network.multiply(&words.name, words.dims.get(1), words.elements, Runs::Logits, false);
    }
    Ok(())
}

fn runs(name: &Name<'_>, kind: Kind) -> Runs {
    let cross = matches!(name.what, "cross_attn_k" | "cross_attn_v");
    match (name.block, name.what) {
        (None, "output") => Runs::Logits,
        (None, "cls" | "cls.output") => Runs::Sequence,
        (Some(("enc.blk", _)), _) => Runs::PromptToken,
        // Keys and values of the prompt are made once.
        (Some(("dec.blk", _)), _) if cross => Runs::PromptToken,
        (Some(("dec.blk", _)), _) => Runs::NewToken,
        _ if kind == Kind::EncoderDecoder => Runs::NewToken,
        _ => Runs::EveryToken,
    }
}

/// Operations for one token with the experts that it uses.
fn expert(keys: &Keys<'_>, tensor: &Tensor, name: &Name<'_>) -> Result<u64, Unknown> {
    let block = name.block.map_or(0, |(_, block)| block);
    let (count, used) = (
        keys.number("expert_count", block),
        keys.number("expert_used_count", block),
    );
    let experts = Experts::new(count, used, "its metadata do")?;
    experts.mult_adds(&tensor.name, tensor.elements, name.expert, tensor.dims.get(2))
}

/// Columns of the matrices by name, in one block.
type Columns<'a> = BTreeMap<&'a str, u64>;

fn attention(keys: &Keys<'_>, network: &mut Network, notes: &mut Vec<String>) -> Result<(), Unknown> {
    let mut blocks: BTreeMap<(&str, u64), Columns<'_>> = BTreeMap::new();
    for tensor in &keys.header.tensors {
        if let Some(Name {
            block: Some(block),
            what,
            ..
        }) = name_of(&tensor.name)
        {
            let columns = blocks.entry(block).or_default();
            columns.insert(what, tensor.dims.get(1).copied().unwrap_or(1));
        }
    }
    check_blocks(keys, &blocks)?;
    let window = Window::of(keys, notes);
    for ((group, number), columns) in &blocks {
        let has = |prefix: &str| {
            columns
                .keys()
                .any(|name| name.starts_with(prefix) && !name.contains("norm"))
        };
        let side = if *group == "enc.blk" || network.kind == Kind::Encoder {
            Side::Encoder
        } else {
            Side::Own
        };
        let sides = [(side, has("attn_"), ""), (Side::Cross, has("cross_attn_"), "cross_")];
        for (side, _, prefix) in sides.into_iter().filter(|(_, has, _)| *has) {
            let mut found = heads(keys, *number)?;
            if found.heads == 0 {
                continue;
            }
            found.name = format!("{group}.{number}.{prefix}attention");
            found.side = side;
            found.window = window.in_block(*number).filter(|_| side == Side::Own);
            fits(&found, columns, prefix)?;
            network.attention.push(found);
        }
    }
    Ok(())
}

/// All blocks that the metadata announce have to be there.
fn check_blocks(keys: &Keys<'_>, blocks: &BTreeMap<(&str, u64), Columns<'_>>) -> Result<(), Unknown> {
    let count = keys.number("block_count", 0).filter(|count| *count <= MOST_BLOCKS);
    let Some(count) = count else {
        return unknown(
            "blocks",
            format!("its metadata do not tell how many there are, up to {MOST_BLOCKS}"),
        );
    };
    let groups: BTreeSet<&str> = blocks.keys().map(|(group, _)| *group).collect();
    for group in groups {
        let wanted = match group {
            "dec.blk" => keys.number("decoder_block_count", 0).unwrap_or(count),
            _ => count,
        };
        let numbers = blocks.keys().filter(|(of, _)| *of == group);
        if !numbers.map(|(_, number)| *number).eq(0..wanted) {
            return unknown(
                "blocks",
                format!("the file does not hold the {wanted} blocks that its metadata tell of"),
            );
        }
    }
    if blocks.is_empty() && count > 0 {
        return unknown("blocks", "the file holds none of them");
    }
    Ok(())
}

fn heads(keys: &Keys<'_>, block: u64) -> Result<Attention, Unknown> {
    let missing = |key: &str| Unknown {
        what: "attention".to_owned(),
        why: format!("its metadata do not tell {}.{key}", crate::printable(keys.architecture)),
    };
    let heads = keys
        .number("attention.head_count", block)
        .ok_or_else(|| missing("attention.head_count"))?;
    let from_embedding = || {
        let width = keys
            .number("embedding_length", 0)
            .ok_or_else(|| missing("embedding_length"))?;
        width.checked_div(heads).ok_or_else(|| missing("attention.key_length"))
    };
    let width = |key: &str| keys.number(key, block).map_or_else(from_embedding, Ok);
    let is_none = heads == 0;
    Ok(Attention {
        name: String::new(),
        side: Side::Own,
        heads,
        kv_heads: keys.number("attention.head_count_kv", block).unwrap_or(heads),
        key_width: if is_none { 0 } else { width("attention.key_length")? },
        value_width: if is_none { 0 } else { width("attention.value_length")? },
        window: None,
    })
}

/// The matrices must be those of the heads, or the metadata mean something that dlpm does not know.
fn fits(found: &Attention, columns: &Columns<'_>, prefix: &str) -> Result<(), Unknown> {
    for (name, wanted) in [
        ("attn_q", found.query_rows()),
        ("attn_k", found.key_rows()),
        ("attn_v", found.value_rows()),
        ("attn_qkv", found.fused_rows()),
    ] {
        let found_columns = columns.get(format!("{prefix}{name}").as_str());
        if let Some(columns) = found_columns
            && Some(*columns) != wanted
        {
            return unknown(
                "attention",
                format!(
                    "{prefix}{name} of {} has {columns} columns, other than its heads",
                    found.name
                ),
            );
        }
    }
    Ok(())
}

/// The sliding window of a family, and in which blocks it is.
struct Window {
    tokens: Option<u64>,
    period: u64,
    pattern: Vec<i128>,
}

impl Window {
    fn of(keys: &Keys<'_>, notes: &mut Vec<String>) -> Self {
        let tokens = keys.number("attention.sliding_window", 0).filter(|tokens| *tokens > 0);
        let known = families::window_period(keys.architecture);
        let (period, pattern) = match keys.value("attention.sliding_window_pattern") {
            Some(Value::Int(period)) => (u64::try_from(*period).ok(), Vec::new()),
            Some(Value::Ints(pattern)) => (None, pattern.clone()),
            _ => (None, Vec::new()),
        };
        let period = period.or(known).unwrap_or(0);
        let is_known = known.is_some() || !pattern.is_empty();
        if let (Some(tokens), false) = (tokens, is_known) {
            notes.push(format!(
                "its window of {tokens} tokens is not counted, since llama.cpp does not apply it to this family"
            ));
        }
        Self {
            tokens: tokens.filter(|_| is_known),
            period,
            pattern,
        }
    }

    fn in_block(&self, block: u64) -> Option<u64> {
        let slides = match self.pattern.as_slice() {
            [] => self.period > 0 && block % self.period < self.period - 1,
            pattern => usize::try_from(block)
                .ok()
                .and_then(|at| pattern.get(at))
                .is_some_and(|slides| *slides != 0),
        };
        self.tokens.filter(|_| slides)
    }
}
