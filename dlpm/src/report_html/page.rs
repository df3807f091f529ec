//! The page itself. Whatever text goes in is escaped by maud.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    facts::Facts,
    figures::Figure,
    survey::Survey,
    tables::{self, Cell, Table},
};
use crate::printable::printable;

const STYLE: &str = include_str!("page.css");

const SCRIPT: &str = include_str!("page.js");

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
    let tables = tables::all(page.survey, page.top);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · dlpm report" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    dl { @for (name, value) in &facts.list { div { dt { (name) } dd { (printable(value)) } } } }
                }
                main {
                    @if !facts.notes.is_empty() {
                        section aria-labelledby="notes" {
                            h2 id="notes" { "What to know about the figures" }
                            ul { @for note in &facts.notes { li { (printable(note)) } } }
                        }
                    }
                    @for (index, figure) in page.figures.iter().enumerate() { (chart(index, figure)) }
                    @for table in &tables { (self::table(table, &facts.policy)) }
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
        section.chart aria-labelledby=(heading) {
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
                p.phases {
                    "Phases: "
                    @for (label, color) in &figure.phases { span { (swatch(color)) bdi { (printable(label)) } } " " }
                }
            }
            script type="application/json" { (PreEscaped(json(&figure.data))) }
        }
    }
}

fn swatch(color: &str) -> Markup {
    html! { svg.swatch viewBox="0 0 12 12" aria-hidden="true" { rect width="12" height="12" fill=(color) {} } }
}

/// JSON that cannot end the element that it stands in.
fn json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn table(table: &Table, policy: &str) -> Markup {
    html! {
        section aria-labelledby={ "title-" (table.id) } {
            h2 id={ "title-" (table.id) } { (table.title) }
            p.note { (table.note) " " (policy) }
            div.scroll tabindex="0" {
                table id=(table.id) {
                    thead {
                        tr {
                            @for (index, name) in table.header.iter().enumerate() {
                                th scope="col" class=[is_number(table, index).then_some("number")] {
                                    button type="button" { (name) span.arrow aria-hidden="true" {} }
                                }
                            }
                        }
                    }
                    tbody {
                        @for row in &table.rows {
                            tr { @for cell in row { (self::cell(cell)) } }
                        }
                    }
                }
            }
        }
    }
}

fn is_number(table: &Table, column: usize) -> bool {
    let mut cells = table.rows.iter().filter_map(|row| row.get(column));
    cells.any(|cell| matches!(cell, Cell::Number(..)))
}

fn cell(cell: &Cell) -> Markup {
    html! {
        @match cell {
            Cell::Text(text) => td { bdi { (printable(text)) } },
            Cell::Number(text, value) => td.number data-value=(value) { (text) },
            Cell::Absent => td {},
        }
    }
}
