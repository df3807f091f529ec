//! What `dlpm model` prints of the modules of a model.

use dlpm_model::{Module, Summary};

use super::{and_more, new_table, share};

/// Modules that are shown at most, where `--top` does not say otherwise.
const MOST_ROWS: usize = 1_000;

/// The tree of modules; with `top`, those that hold the most of their own, under their paths.
pub fn tree(summary: &Summary, top: Option<u32>) -> String {
    let mut modules = summary.modules();
    if modules.is_empty() {
        return "\nThe file does not name modules.\n".to_owned();
    }
    let all = modules.first().and_then(|model| model.mult_adds);
    let rank = |module: &Module| {
        module
            .mult_adds
            .filter(|_| all.unwrap_or(0) > 0)
            .unwrap_or(module.params)
    };
    let most = top.and_then(|top| usize::try_from(top).ok());
    if most.is_some() {
        modules.sort_by_key(|module| std::cmp::Reverse(rank(module)));
    }
    let more = modules.len().saturating_sub(most.unwrap_or(MOST_ROWS));
    modules.truncate(most.unwrap_or(MOST_ROWS));
    let mut table = new_table(&["module", "parameters", "multiply-adds", "share"], 1);
    for module in &modules {
        let name = match (module.path.as_str(), most) {
            ("", _) => "(model)".to_owned(),
            (path, Some(_)) => path.to_owned(),
            (_, None) => format!("{}{}", "  ".repeat(module.depth()), module.name()),
        };
        let mult_adds = module
            .mult_adds
            .map_or_else(|| "not known".to_owned(), |count| count.to_string());
        let part = module
            .mult_adds
            .zip(all)
            .map_or_else(|| "-".to_owned(), |(part, all)| share(part, all));
        table.add_row([name, module.params.to_string(), mult_adds, part]);
    }
    format!("\n{}\n{}", table.trim_fmt(), and_more(more))
}
