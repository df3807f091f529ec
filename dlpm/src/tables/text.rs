//! Tables for a terminal.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, presets};

use super::{
    Look, Table,
    figures::{bar, shortened},
};
use crate::printable::printable;

/// Cells that the longest bar takes.
const BAR: usize = 12;

/// A grid for a terminal of `width` columns; after the first `left` columns are numbers.
pub fn grid(header: Vec<String>, left: usize, width: u16) -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .force_no_tty()
        .set_header(header);
    for (position, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if position >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid
}

/// The lines of a grid, without blanks at their ends.
pub fn trimmed(grid: &Grid) -> String {
    let lines: Vec<String> = grid.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

impl Table {
    /// Heading and rows; nothing without rows.
    pub fn text(&self, width: u16) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let view = self.view();
        let mut header = Vec::new();
        for (_, title, column) in &view.columns {
            header.push((*title).to_owned());
            if column.look == Look::Bar {
                header.push(String::new());
            }
        }
        let mut grid = grid(header, usize::MAX, width);
        let mut at = 0;
        for (_, _, column) in &view.columns {
            let right = !matches!(column.look, Look::Name | Look::Aside | Look::Common);
            if let Some(first) = grid.column_mut(at).filter(|_| right) {
                first.set_cell_alignment(CellAlignment::Right);
            }
            at += if column.look == Look::Bar { 2 } else { 1 };
        }
        for row in &self.rows {
            let mut cells = Vec::new();
            for (index, _, column) in &view.columns {
                let shown = self.shown(row, *index);
                cells.push(match column.look {
                    Look::Common => shortened(&shown),
                    _ => printable(&shown),
                });
                if column.look == Look::Bar {
                    cells.push(bar(self.bar(row, *index, view.longest).unwrap_or(0.0), BAR));
                }
            }
            grid.add_row(cells);
        }
        // A name or a figure that is broken over two lines cannot be read; the table may be wider instead.
        for column in grid.column_iter_mut() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        let said: Vec<&str> = view.common.iter().chain(&self.notes).map(String::as_str).collect();
        let said = match said.join("; ") {
            said if said.is_empty() => said,
            said => format!(" ({})", printable(&said)),
        };
        format!("\n{}{said}\n{}\n", self.title, trimmed(&grid))
    }
}
