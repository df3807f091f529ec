//! The page itself. Whatever text goes in is escaped by maud.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{facts::Facts, figures::Figure, survey::Survey};
use crate::{
    printable::printable,
    report::tables::Tables,
    tables::{Depth, Table},
};

const STYLE: &str = include_str!("page.css");

pub(super) const SCRIPT: &str = include_str!("page.js");

/// Rows of the table of consumers at the top; all are below.
const BRIEF: usize = 12;

/// What the page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The head.
    pub facts: &'a Facts,
    /// The sums.
    pub survey: &'a Survey,
    /// The curves.
    pub figures: &'a [Figure],
    /// Rows of a table at most.
    pub top: usize,
}

/// The page as HTML.
pub fn render(page: &Page<'_>) -> String {
    let facts = page.facts;
    let title = printable(&facts.title);
    let (answer, more) = tables(page);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title))
            body {
                header {
                    h1 { (title) }
                    @if !facts.headline.is_empty() {
                        p.headline { (printable(&facts.headline)) }
                        p.note { (printable(&facts.how)) }
                    }
                }
                main {
                    div.answer { @for table in &answer { (table.html()) } }
                    @if !facts.notes.is_empty() {
                        section.notes aria-labelledby="notes" {
                            h2 id="notes" { "What to know about the figures" }
                            ul { @for note in &facts.notes { li { (printable(note)) } } }
                        }
                    }
                    @for (index, figure) in page.figures.iter().enumerate() { (chart(index, figure)) }
                    @for table in &more { (table.html()) }
                    section aria-labelledby="run" {
                        h2 id="run" { "This run" }
                        dl { @for (name, value) in &facts.list { div { dt { (name) } dd { (printable(value)) } } } }
                    }
                }
                footer {
                    p {
                        "Made by dlpm " (env!("CARGO_PKG_VERSION")) " from " (page.survey.scanned.lines)
                        " lines of log. Curves are drawn from at most " (tables_bins(page)) " pieces of time, each with "
                        "its average and its lowest and highest interval; tables are computed from every interval, exactly."
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

pub(super) fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(policy());
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · dlpm report" }
            link rel="icon" href="data:,";
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// A page of tables alone, as of many nodes: there is no curve that they have in common.
pub fn of_tables(headline: &str, notes: &[String], tables: &[Table]) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Nodes"))
            body {
                header {
                    h1 { "Energy of many nodes" }
                    p.headline { (printable(headline)) }
                }
                main {
                    @for table in tables { (table.html()) }
                    @if !notes.is_empty() {
                        section.notes aria-labelledby="notes" {
                            h2 id="notes" { "What to know about the figures" }
                            ul { @for note in notes { li { (printable(note)) } } }
                        }
                    }
                }
                footer { p { "Made by dlpm " (env!("CARGO_PKG_VERSION")) ". Sums are exact." } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// The tables that answer at once, and those that stand below the curves.
fn tables(page: &Page<'_>) -> (Vec<Table>, Vec<Table>) {
    let collected = &page.survey.collected;
    let depth = Depth {
        top: page.top,
        ..Depth::ALL
    };
    let of = |depth| Tables {
        collected,
        depth,
        inferences: None,
    };
    let tables = of(depth);
    if collected.totals.intervals == 0 {
        return (Vec::new(), vec![tables.foreign_zones()]);
    }
    let brief = Depth {
        top: page.top.min(BRIEF),
        details: false,
        each: false,
    };
    let mut more = vec![tables.processes()];
    if collected.totals.cgroups.len() > 1 {
        more.push(tables.cgroups());
    }
    more.extend([tables.gpus(), tables.zones()]);
    let phases = of(Depth {
        details: false,
        ..depth
    });
    (vec![phases.phases(false), of(brief).processes()], more)
}

/// Nothing is fetched, and nothing runs but what is written here.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; img-src data:; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn tables_bins(page: &Page<'_>) -> usize {
    let means = page
        .figures
        .iter()
        .filter_map(|figure| figure.data.pointer("/series/0/mean"));
    means.filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0)
}

fn chart(index: usize, figure: &Figure) -> Markup {
    let heading = format!("chart-{index}");
    html! {
        section.chart id=(figure.id) aria-labelledby=(heading) {
            h2 id=(heading) { (figure.title) }
            p.note { (figure.note) }
            div.plot tabindex="0" role="img" aria-label={ (figure.title) "; arrow keys move the readout" } {
                (PreEscaped(&figure.svg))
                div.cursor hidden {}
            }
            p.readout aria-live="polite" {
                @if index == 0 { "Point at a chart to read its values; a click on a name brings out its curve." }
            }
            ul.legend {
                @for (label, color) in &figure.legend {
                    li {
                        button type="button" aria-pressed="false" data-color=(color) {
                            (swatch(color))
                            bdi { (printable(label)) }
                            span.value {}
                        }
                    }
                }
            }
            @if !figure.phases.is_empty() {
                p.phases.narrow[figure.phases.iter().all(|(.., is_labelled)| *is_labelled)] {
                    "Phases: "
                    @for (label, color, is_labelled) in &figure.phases {
                        span.narrow[*is_labelled] { (swatch(color)) bdi { (printable(label)) } }
                        " "
                    }
                }
            }
            script type="application/json" { (PreEscaped(json(&figure.data))) }
        }
    }
}

pub(super) fn swatch(color: &str) -> Markup {
    html! { svg.swatch viewBox="0 0 12 12" aria-hidden="true" { rect width="12" height="12" fill=(color) {} } }
}

/// JSON that cannot end the element that it stands in.
fn json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}
