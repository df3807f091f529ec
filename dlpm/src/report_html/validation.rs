//! The page of a validation: what may be concluded, the error of each method about each load of each pair, and tables.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::page::{SCRIPT, head, swatch};
use crate::{
    plot::palette,
    printable::{self, printable},
    validate::{
        file::Header,
        methods::METHODS,
        show,
        verdict::{Pair, SideError, State, Verdict},
    },
};

/// The drawing, in units of its view box: a row for each load of each pair, and a bar for each method in it.
const WIDTH: f64 = 1200.0;
const LABEL: f64 = 190.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 34.0;
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;

/// Errors beyond this are drawn at it, in percent.
const MOST_PERCENT: f64 = 300.0;

/// The page as HTML.
pub fn render(header: &Header, verdict: &Verdict) -> String {
    let title = "How wrong each method is on this machine";
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                header {
                    h1 { (title) }
                    p.headline { (printable(&show::conclusion(verdict))) }
                    p.note { (printable(&show::headline(header))) }
                }
                main {
                    (chart(verdict))
                    @for table in show::tables(header, verdict) { (table.html()) }
                    section.notes aria-labelledby="notes" {
                        h2 id="notes" { "What to know about the figures" }
                        ul { @for note in show::notes(header, verdict) { li { (printable(&note)) } } }
                    }
                }
                footer {
                    p {
                        "Made by dlpm " (env!("CARGO_PKG_VERSION")) " from " (verdict.measured_ns / 1_000_000_000)
                        " s of cells that dlpm " (printable(&header.dlpm)) " measured on " (printable(&header.date)) "."
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    printable::page(&page.into_string()).into_owned()
}

/// One row: its label, whether it counts, and the errors.
struct Line<'a> {
    label: String,
    counts: bool,
    errors: &'a [SideError],
}

fn lines(pair: &Pair) -> impl Iterator<Item = Line<'_>> {
    let [first, second] = pair.loads;
    pair.sides.iter().zip([second, first]).map(|(side, other)| Line {
        label: show::beside(&[side.load, other]),
        counts: pair.state == State::Used,
        errors: &side.errors,
    })
}

fn chart(verdict: &Verdict) -> Markup {
    let rows: Vec<Line<'_>> = verdict.pairs.iter().flat_map(lines).collect();
    let known = |name: &str| {
        rows.iter()
            .any(|row| row.errors.iter().any(|error| error.method == name))
    };
    let methods: Vec<(usize, &str, &str)> = METHODS
        .iter()
        .filter(|method| known(method.name))
        .enumerate()
        .map(|(index, method)| (index, method.name, method.title))
        .collect();
    if methods.is_empty() {
        return html! {};
    }
    let percents = rows
        .iter()
        .flat_map(|row| row.errors)
        .map(|error| percent(error.error.ppm).abs());
    // At least ten percent, in whole tens, so that a good method looks good.
    let span = (percents.fold(10.0, f64::max) / 10.0).ceil() * 10.0;
    let row_height = methods.len() as f64 * BAR + GAP;
    let height = TOP + rows.len() as f64 * row_height + 8.0;
    let x = |percent: f64| LABEL + (WIDTH - LABEL - RIGHT) * (percent.clamp(-span, span) + span) / (2.0 * span);
    html! {
        section aria-labelledby="errors" {
            h2 id="errors" { "Error of each method about each load of each pair" }
            p.note {
                "In percent of what the load draws above idle: to the left the method gives it too little, to the right too "
                "much. The thin lines are 95 % intervals. Pale rows do not count."
            }
            div role="img" aria-label="Error of each method about each load of each pair; the table below has the figures" {
                svg width="100%" viewBox={ "0 0 " (WIDTH) " " (height) } fill="currentColor" font-size="14" {
                    @for part in [-1.0, -0.5, 0.0, 0.5, 1.0] {
                        line stroke="currentColor" stroke-opacity="0.2" x1=(x(part * span)) x2=(x(part * span)) y1=(TOP - 8.0) y2=(height) {}
                        text x=(x(part * span)) y=(TOP - 14.0) text-anchor="middle" {
                            (format!("{:+.0} %", part * span).replace("+0", "0"))
                        }
                    }
                    @for (number, row) in rows.iter().enumerate() {
                        @let top = TOP + number as f64 * row_height;
                        g opacity=(if row.counts { "1" } else { "0.3" }) {
                            text x=(LABEL - 10.0) y=(top + row_height / 2.0) text-anchor="end" dominant-baseline="middle" { (printable(&row.label)) }
                            @for (index, name, _) in &methods {
                                @if let Some(found) = row.errors.iter().find(|error| error.method == *name) {
                                    (bar(found, top + *index as f64 * BAR, *index, &x))
                                }
                            }
                        }
                    }
                }
            }
            ul.legend {
                @for (index, _, title) in &methods {
                    li { (swatch(&palette::hex(palette::series(*index)))) " " (*title) }
                }
            }
        }
    }
}

fn bar(found: &SideError, top: f64, index: usize, x: &impl Fn(f64) -> f64) -> Markup {
    let (zero, end) = (x(0.0), x(percent(found.error.ppm)));
    let (low, high) = (x(percent(found.error.low_ppm)), x(percent(found.error.high_ppm)));
    let middle = top + BAR / 2.0;
    let tell = format!("{}: {:.1} %", found.method, found.error.ppm as f64 / 10_000.0);
    html! {
        rect x=(zero.min(end)) y=(top + 1.0) width=((end - zero).abs().max(1.0)) height=(BAR - 2.0)
            fill=(palette::hex(palette::series(index))) { title { (printable(&tell)) } }
        line.interval stroke="currentColor" stroke-width="1.5" x1=(low) x2=(high) y1=(middle) y2=(middle) {}
    }
}

fn percent(ppm: i64) -> f64 {
    (ppm as f64 / 10_000.0).clamp(-MOST_PERCENT, MOST_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{
        LoadKind,
        simulation::{Law, cells, header},
    };

    #[test]
    fn the_page_draws_each_method_and_pair_and_obeys_no_text_of_the_file() {
        let mut header = header(&LoadKind::QUICK, 3, 1);
        header.machine.cpu_model = Some("<script>alert(1)</script>\u{1b}[2J".to_owned());
        let law = Law {
            noise_ppm: 1000,
            ..Law::default()
        };
        let page = render(&header, &Verdict::of(&header, &cells(&header, &law)));
        for expected in [
            "fma beside chase",
            "chase beside fma",
            "CPU time",
            "equal split",
            "<rect",
            "Content-Security-Policy",
        ] {
            assert!(page.contains(expected), "{expected}");
        }
        assert!(!page.contains("<script>alert") && !page.contains('\u{1b}'), "{page}");
        // Three pairs, two loads, three methods.
        assert_eq!(page.matches("class=\"interval\"").count(), 18);
    }

    #[test]
    fn a_refusal_is_a_page_as_well() {
        let header = header(&LoadKind::QUICK, 3, 1);
        let page = render(&header, &Verdict::of(&header, &[]));
        assert!(page.contains("Nothing may be concluded") && page.contains("incomplete"));
    }
}
