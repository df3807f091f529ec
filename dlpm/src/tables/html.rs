//! Tables for the page. Whatever text goes in is escaped by maud.

use maud::{Markup, html};

use super::{Column, Kind, Look, Row, Table, Unit, View};
use crate::printable::printable;

impl Table {
    /// Heading and rows; nothing without rows.
    pub fn html(&self) -> Markup {
        let view = self.view();
        let notes: Vec<&str> = view.common.iter().chain(&self.notes).map(String::as_str).collect();
        html! {
            @if !self.rows.is_empty() {
                section.table aria-labelledby={ "title-" (self.id) } {
                    h2 id={ "title-" (self.id) } { (self.title) }
                    @if !notes.is_empty() { p.note { (printable(&notes.join("; "))) } }
                    div.scroll tabindex="0" {
                        table id=(self.id) {
                            thead {
                                tr {
                                    @for (_, title, column) in &view.columns {
                                        th scope="col" class=[class(column)] {
                                            button type="button" { (printable(title)) span.arrow aria-hidden="true" {} }
                                        }
                                    }
                                }
                            }
                            tbody { @for row in self.rows.iter().filter(|row| row.kind != Kind::Total) { (self.row(&view, row)) } }
                            tfoot { @for row in self.rows.iter().filter(|row| row.kind == Kind::Total) { (self.row(&view, row)) } }
                        }
                    }
                }
            }
        }
    }

    fn row(&self, view: &View<'_>, row: &Row) -> Markup {
        let kind = match row.kind {
            Kind::Named => None,
            kind => Some(kind.word("")),
        };
        html! {
            tr class=[kind] {
                @for (index, title, column) in &view.columns {
                    @let value = row.values.get(*index);
                    @let number = value.and_then(|value| value.number(column.unit));
                    @let shown = printable(&self.shown(row, *index));
                    td class=[class(column)] data-value=[number] data-title=(printable(title)) {
                        @match column.look {
                            _ if shown.is_empty() => {},
                            Look::Bar => {
                                span { (shown) }
                                @if let Some(part) = self.bar(row, *index, view.longest) { (bar(part)) }
                            },
                            Look::Number => (shown),
                            _ => bdi { (shown) },
                        }
                    }
                }
            }
        }
    }
}

fn class(column: &Column) -> Option<&'static str> {
    match (column.look, column.unit) {
        (Look::Name, _) => Some("name"),
        (Look::Aside, Unit::Plain) => Some("aside"),
        (Look::Aside | Look::Common, _) => Some("common"),
        (Look::Number, _) => Some("number"),
        (Look::Bar, _) => Some("share"),
    }
}

/// Drawn, since the policy of the page allows no style in an element.
fn bar(part: f64) -> Markup {
    html! {
        svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect width=(format!("{:.2}", part * 100.0)) height="10" {}
        }
    }
}
