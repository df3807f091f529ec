//! What `dlpm model` prints of weights by type, and of a language model.

use comfy_table::{Table, presets};
use dlpm_model::{Details, bits_per_element, language::View};

use super::{new_table, number, unpad};

/// A table of the tensors by type.
pub fn weights(details: &Details) -> String {
    if details.weights.is_empty() {
        return String::new();
    }
    let mut table = new_table(&["type", "tensors", "elements", "bytes", "bits per element"], 1);
    let mut weights: Vec<_> = details.weights.iter().collect();
    weights.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.elements));
    for (name, sum) in weights {
        let unknown = || "not known".to_owned();
        table.add_row([
            name.clone(),
            sum.tensors.to_string(),
            sum.elements.to_string(),
            sum.bytes.map_or_else(unknown, |bytes| bytes.to_string()),
            bits_per_element(*sum).map_or_else(unknown, |bits| bits.to_string()),
        ]);
    }
    format!("\n{}\n", table.trim_fmt())
}

/// The work of a language model.
pub fn view(view: &View) -> String {
    let mut facts = Table::new();
    facts.load_preset(presets::NOTHING).force_no_tty();
    facts.add_row([
        "language model",
        &format!("{} ({})", view.architecture, view.kind.as_str()),
    ]);
    facts.add_row(["blocks with attention", &view.blocks.to_string()]);
    if let Some(trained) = view.trained_context {
        facts.add_row(["trained context", &format!("{trained} tokens")]);
    }
    facts.add_row([
        "weights, per token",
        &format!("{} MACs", number(view.weights_mult_adds_per_token)),
    ]);
    facts.add_row(["choice of a token", &format!("{} MACs", number(view.logits_mult_adds))]);
    facts.add_row([
        "attention, per token and key",
        &format!("{} MACs", number(view.attention_mult_adds_per_token_and_key)),
    ]);
    if let Some(bytes) = view.cache_bytes_per_token {
        facts.add_row([
            "KV cache, per token",
            &format!("{bytes} bytes ({})", view.cache.as_str()),
        ]);
    }
    unpad(&mut facts);

    let decodes = view.cache_bytes_per_token.is_some();
    let mut header = vec!["batch"];
    if decodes {
        header.push("context");
    }
    header.extend(["prompt tokens", "prompt MACs"]);
    if decodes {
        header.extend(["causal pairs only", "MACs per new token", "KV cache bytes"]);
    }
    let mut sweep = new_table(&header, 0);
    for row in &view.rows {
        let mut cells = vec![row.batch];
        if decodes {
            cells.push(row.context);
        }
        cells.extend([row.prompt_tokens, row.prefill_mult_adds]);
        cells.extend(row.prefill_mult_adds_causal);
        cells.extend(row.decode_mult_adds);
        cells.extend(row.cache_bytes);
        sweep.add_row(cells);
    }
    format!("\n{}\n\n{}\n", facts.trim_fmt(), sweep.trim_fmt())
}
