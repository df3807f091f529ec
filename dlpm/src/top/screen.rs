//! The screen.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line as TextLine, Span},
    widgets::{Cell, Clear, Paragraph, Row, StatefulWidget, Table, TableState, Widget, Wrap},
};

use super::{
    app::{App, Order, View},
    lines::Line,
    tally::{HISTORY, milliwatts},
    text::{bytes, joules, parts, percent, watts},
};

/// Lines of a screen that are not of the list.
pub const AROUND: usize = 8;

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colours {
    /// Those of the terminal.
    #[default]
    Few,
    /// None: what stands out is bold or reversed.
    None,
}

const KEYS: [(&str, &str); 12] = [
    ("arrows, j k", "choose a line; PgUp, PgDn, g, G"),
    ("Tab, 1 to 4", "processes, tenants, users, GPUs"),
    ("Enter, Esc", "into a tenant, out of it"),
    ("/", "filter by name or tenant; Esc: no filter"),
    ("s, S", "sort by the next column, by the one before"),
    ("I", "the smallest first"),
    ("t", "processes as a tree below their tenants"),
    ("Space", "pause; what is counted goes on"),
    ("?", "this help"),
    ("q", "quit"),
    ("W, J", "power in the newest interval; energy since dlpm top began"),
    ("%", "share of the power; the last line adds up to the meter"),
];

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, app: &App, colours: Colours) {
    let area = frame.area();
    render(app, colours, area, frame.buffer_mut());
}

/// The text of a buffer, without spaces at the ends of lines.
pub fn text_of(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let line: String = (area.left()..area.right())
            .filter_map(|x| buffer.cell((x, y)))
            .map(|cell| cell.symbol())
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub fn render(app: &App, colours: Colours, area: Rect, buffer: &mut Buffer) {
    let sums = sums(app, colours);
    let sum_lines = lines_needed(&sums, area.width).clamp(1, 5);
    let [head, graph, list, sum, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(sum_lines),
        Constraint::Length(1),
    ])
    .areas(area);
    Paragraph::new(header(app, colours)).render(head, buffer);
    let width = usize::from(graph.width).min(HISTORY);
    Paragraph::new(spark(app.shown().history_mw.iter().copied(), width))
        .style(colour(colours, Color::Green))
        .render(graph, buffer);
    table(app, colours, list, buffer);
    Paragraph::new(sums).wrap(Wrap { trim: true }).render(sum, buffer);
    Paragraph::new(footer(app))
        .style(Style::new().add_modifier(Modifier::DIM))
        .render(foot, buffer);
    if app.help {
        help(area, buffer);
    }
}

fn colour(colours: Colours, colour: Color) -> Style {
    match colours {
        Colours::Few => Style::new().fg(colour),
        Colours::None => Style::new(),
    }
}

fn header<'a>(app: &App, colours: Colours) -> TextLine<'a> {
    let tally = app.shown();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let power = match (tally.is_metered, tally.is_estimate) {
        _ if tally.intervals == 0 => "measuring …".to_owned(),
        (false, _) => "no meter".to_owned(),
        (true, true) => format!("{} W (estimate)", watts(milliwatts(tally.now_uj, tally.length_ns))),
        (true, false) => format!("{} W", watts(milliwatts(tally.now_uj, tally.length_ns))),
    };
    let seconds = tally.passed_ns / 1_000_000_000;
    let mut spans = vec![
        Span::styled(power, bold),
        Span::raw(format!("  {}  ", app.node)),
        Span::raw(match &app.inside {
            Some(inside) => format!(
                "{} of {}",
                app.view.as_str(),
                inside.as_deref().unwrap_or("(not known)")
            ),
            None => app.view.as_str().to_owned(),
        }),
        Span::raw(format!(
            "  {}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )),
    ];
    if app.is_paused() {
        spans.push(Span::styled("  PAUSED", bold.patch(colour(colours, Color::Yellow))));
    }
    if let Some(trouble) = &app.trouble {
        spans.push(Span::styled(
            format!("  {trouble}"),
            bold.patch(colour(colours, Color::Red)),
        ));
    } else if !tally.unknown.is_empty() {
        let text = format!("  not known: {}", tally.unknown.join(", "));
        spans.push(Span::styled(text, bold.patch(colour(colours, Color::Red))));
    }
    TextLine::from(spans)
}

/// What everything adds up to: always there.
fn sums<'a>(app: &App, colours: Colours) -> TextLine<'a> {
    let (parts, sum_mw) = parts(app.shown());
    let mut spans = Vec::new();
    for (position, (name, mw)) in parts.iter().enumerate() {
        let sign = if position == 0 { "" } else { " + " };
        spans.push(Span::raw(format!("{sign}{name} {}", watts(*mw))));
    }
    let sum = Style::new()
        .add_modifier(Modifier::BOLD)
        .patch(colour(colours, Color::Green));
    spans.push(Span::styled(format!(" = {} W", watts(sum_mw)), sum));
    spans.push(Span::raw(format!(", {} J", joules(app.shown().energy_uj))));
    TextLine::from(spans)
}

fn lines_needed(line: &TextLine<'_>, width: u16) -> u16 {
    let mut lines: u16 = 1;
    let mut column: usize = 0;
    let text: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > usize::from(width) {
            lines = lines.saturating_add(1);
            column = length;
        } else {
            column += length + usize::from(column > 0);
        }
    }
    lines
}

fn footer(app: &App) -> String {
    if app.types_filter {
        return format!("filter: {}_  (Enter: keep, Esc: none)", app.filter);
    }
    let filter = match app.filter.as_str() {
        "" => String::new(),
        filter => format!("filter: {filter}  "),
    };
    let order = if app.reverse { "smallest" } else { "largest" };
    format!(
        "{filter}s sort: {} ({order} first)  Tab view  / filter  ? help  q quit",
        app.order.as_str()
    )
}

/// A column: its heading, its width, and the smallest width of a screen that has it.
struct Column {
    heading: &'static str,
    width: u16,
    from: u16,
    cell: fn(&App, &Line) -> String,
}

const COLUMNS: [Column; 8] = [
    Column {
        heading: "PID",
        width: 8,
        from: 56,
        cell: |_, line| line.pid.map_or_else(String::new, |pid| pid.to_string()),
    },
    Column {
        heading: "W",
        width: 9,
        from: 0,
        cell: |app, line| watts(milliwatts(line.entry.now_uj, app.shown().length_ns)),
    },
    Column {
        heading: "J",
        width: 8,
        from: 32,
        cell: |_, line| joules(line.entry.energy_uj),
    },
    Column {
        heading: "CPU%",
        width: 7,
        from: 40,
        cell: |app, line| percent(line.entry.now_cpu_ns.into(), app.shown().length_ns.into()),
    },
    Column {
        heading: "GPU W",
        width: 8,
        from: 90,
        cell: |app, line| watts(milliwatts(line.entry.now_gpu_uj, app.shown().length_ns)),
    },
    Column {
        heading: "MEM",
        width: 6,
        from: 70,
        cell: |_, line| line.entry.memory_bytes.map_or_else(|| "-".to_owned(), bytes),
    },
    Column {
        heading: "%",
        width: 6,
        from: 64,
        cell: |app, line| percent(line.entry.now_uj.into(), app.shown().now_uj.into()),
    },
    Column {
        heading: "",
        width: 12,
        from: 80,
        cell: |_, line| spark(line.entry.history_mw.iter().copied(), 12),
    },
];

fn table(app: &App, colours: Colours, area: Rect, buffer: &mut Buffer) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from).collect();
    let lines = app.lines();
    let name = match app.view {
        View::Gpus => "GPU",
        View::Tenants => "TENANT",
        View::Users => "USER",
        View::Processes => "NAME",
    };
    let mark = |heading: &'static str, is_sorted: bool| {
        let arrow = if app.reverse { "▲" } else { "▼" };
        format!("{heading}{}", if is_sorted { arrow } else { "" })
    };
    let right = |text: String| Cell::from(TextLine::from(text).right_aligned());
    let mut headings = vec![Cell::from(mark(name, app.order == Order::Name))];
    headings.extend(
        columns
            .iter()
            .map(|column| right(mark(column.heading, column.heading == app.order.as_str()))),
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let header = Row::new(headings).style(bold.patch(colour(colours, Color::Cyan)));
    let rows = lines.iter().map(|line| {
        let mut cells = vec![Cell::from(line.name.clone())];
        cells.extend(columns.iter().map(|column| right((column.cell)(app, line))));
        Row::new(cells)
    });
    let widths =
        std::iter::once(Constraint::Min(8)).chain(columns.iter().map(|column| Constraint::Length(column.width)));
    let table = Table::new(rows, widths)
        .header(header)
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default();
    state.select((!lines.is_empty()).then_some(app.selected.min(lines.len().saturating_sub(1))));
    StatefulWidget::render(table, area, buffer, &mut state);
}

/// A graph of one line: the newest value is at its right end, the largest fills a cell.
fn spark(values: impl DoubleEndedIterator<Item = u64> + Clone, width: usize) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = values.clone().max().unwrap_or(0);
    let newest = values.rev().take(width);
    let mut cells: Vec<char> = newest
        .map(|value| {
            let eighth = u128::from(value) * 7 / u128::from(largest.max(1));
            match value {
                0 => ' ',
                _ => EIGHTHS[usize::try_from(eighth).unwrap_or(7).min(7)],
            }
        })
        .collect();
    cells.resize(width, ' ');
    cells.into_iter().rev().collect()
}

fn help(area: Rect, buffer: &mut Buffer) {
    let lines: Vec<TextLine<'_>> = KEYS
        .iter()
        .map(|(key, what)| TextLine::from(format!("{key:<12} {what}")))
        .collect();
    let height = u16::try_from(lines.len()).unwrap_or(area.height).min(area.height);
    let area = Rect { height, ..area };
    Clear.render(area, buffer);
    Paragraph::new(lines).render(area, buffer);
}
