//! `dlpm report --html`, opened in a browser. Each name holds `html`: for these tests `cargo xtask test` sees to a browser.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use dlpm::report_html::{self, Options};
use dlpm_tests::{
    browser::Browser,
    require_browser,
    synthetic::{Ran, SECOND_NS, Synthetic},
};
use serde_json::Value;
use tempfile::TempDir;

/// The largest page of a day of samples: docs/plots.md names it.
const LARGEST_PAGE_BYTES: usize = 2 << 20;

/// A folder with a log and its page.
struct Made {
    folder: TempDir,
    html: String,
}

impl Made {
    fn of(write: impl FnOnce(&mut Synthetic)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Synthetic::new(folder.path());
        write(&mut log);
        log.finish();
        Self::from(folder)
    }

    fn from(folder: TempDir) -> Self {
        report_html::write(folder.path(), &Options::default(), &page(folder.path()), false, None).unwrap();
        let html = fs::read_to_string(page(folder.path())).unwrap();
        Self { folder, html }
    }

    fn open(&self, browser: &Browser) {
        browser.open(&page(self.folder.path()));
        // Whatever went wrong is in the console; and nothing was fetched.
        assert_eq!(browser.console(), Vec::<Value>::new());
        let fetched = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)");
        assert_eq!(fetched, Value::Array(Vec::new()));
    }
}

fn page(folder: &Path) -> PathBuf {
    folder.join("page.html")
}

fn ran<'a>(tgid: u32, comm: &'a str, cgroup: &'a str, permille: u64) -> Ran<'a> {
    Ran {
        tgid,
        comm,
        cgroup,
        permille,
    }
}

/// A minute with two phases, a gap, a GPU, and three processes of which the last one has the lowest pid.
fn minute(log: &mut Synthetic) {
    for second in 0..60 {
        match second {
            10 => log.phase("phase_begin", "train"),
            30 => {
                log.phase("phase_end", "train");
                log.phase("phase_begin", "val");
            }
            40 => log.phase("phase_end", "val"),
            50 => log.pause(20 * SECOND_NS),
            _ => {}
        }
        let rows = [
            ran(4000, "python3", "/train.slice", 1500),
            ran(90, "gzip", "/system.slice", 300),
            ran(700, "sshd", "/system.slice", 100),
        ];
        log.interval(SECOND_NS, 40 + second, &[200], &rows);
    }
}

/// The cells of a column of the table of processes, from top to bottom.
fn column(browser: &Browser, name: &str) -> Vec<String> {
    let script = format!(
        "const table = document.querySelector('#processes');
         const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
         const column = names.indexOf('{name}');
         return [...table.tBodies[0].rows].map(row => row.cells[column].textContent);"
    );
    let cells = browser.run(&script);
    let cells = cells.as_array().unwrap_or_else(|| panic!("no column {name}: {cells}"));
    cells.iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
}

fn numbers(cells: &[String]) -> Vec<f64> {
    cells.iter().filter_map(|cell| cell.parse().ok()).collect()
}

#[test]
fn html_page_has_its_charts_and_no_error() {
    let browser = require_browser!();
    let made = Made::of(minute);
    made.open(&browser);
    let headings = browser.run("return [...document.querySelectorAll('section h2')].map(head => head.textContent)");
    let expected = [
        "Phases",
        "Biggest consumers",
        "Who used the energy",
        "The same by cgroup",
        "Power of the meters",
        "Power inside the packages",
        "Power of the GPUs",
        "Processes",
        "By cgroup",
        "Energy by zone, and who got it, in joules",
    ];
    for heading in expected {
        assert!(
            headings.as_array().unwrap().iter().any(|found| found == heading),
            "{heading}: {headings}"
        );
    }
    // Every chart is drawn: it is there on the screen, and each curve of its legend is in it.
    let drawn = browser.run(
        "return [...document.querySelectorAll('.chart')].map(chart => {
             const svg = chart.querySelector('.plot svg').getBoundingClientRect();
             const curves = [...chart.querySelectorAll('.legend button')].every(button =>
                 chart.querySelector(`.plot [stroke=\"${button.dataset.color}\"], .plot [fill=\"${button.dataset.color}\"]`));
             return svg.width > 500 && svg.height > 100 && curves;
         })",
    );
    assert_eq!(drawn, serde_json::json!([true, true, true, true, true]));
    // The curve of the package stops for the gap: in two pieces.
    let pieces = browser.run("return document.querySelectorAll('#meters .plot polyline[stroke=\"#0072B2\"]').length");
    assert_eq!(pieces, 2);
    let labels =
        browser.run("return [...document.querySelectorAll('.plot text')].map(text => text.textContent.trim())");
    for label in ["train", "val"] {
        assert!(
            labels.as_array().unwrap().iter().any(|found| found == label),
            "{label}: {labels}"
        );
    }
}

/// A run with phases, two GPUs and 300 short processes of four names.
fn busy(log: &mut Synthetic) {
    for second in 0..60u32 {
        if second % 15 == 0 {
            if second > 0 {
                log.phase("phase_end", &format!("epoch {}", second / 15));
            }
            log.phase("phase_begin", &format!("epoch {}", second / 15 + 1));
        }
        let short = |number: u32| 10_000 + 5 * second + number;
        let rows = [
            ran(4000, "python3", "/", 1500),
            ran(90, "data-loader", "/", 300),
            ran(short(0), "sh", "/", 100),
            ran(short(1), "gzip", "/", 200),
            ran(short(2), "gzip", "/", 150),
            ran(short(3), "head", "/", 50),
            ran(short(4), "sha256sum", "/", 70),
        ];
        log.interval(SECOND_NS, 80, &[300, 70], &rows);
    }
}

/// Done when the answer is on the first screen, nothing scrolls sideways, and a phone and paper show all of it.
#[test]
fn html_page_answers_at_first_sight() {
    let browser = require_browser!();
    let made = Made::of(busy);
    let sideways = "return [document.documentElement, ...document.querySelectorAll('.scroll')]
         .filter(box => box.scrollWidth > box.clientWidth).map(box => box.outerHTML.slice(0, 200))";
    let bottoms = "return [document.querySelector('.headline'), ...document.querySelectorAll('#phases tr'),
         ...[...document.querySelectorAll('#consumers tbody tr')].slice(0, 5)]
         .map(row => [row.textContent, row.getBoundingClientRect().bottom])";
    browser.size(1280, 900);
    made.open(&browser);
    let seen = browser.run(bottoms);
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 1 + 1 + 4 + 5, "{seen:?}");
    for row in seen {
        let bottom = row[1].as_f64().unwrap();
        assert!(bottom > 0.0 && bottom <= 900.0, "{row}");
    }
    for (row, name) in seen[6..]
        .iter()
        .zip(["python3", "gzip x120", "data-loader", "sh x60", "sha256sum x60"])
    {
        assert!(row[0].as_str().unwrap().starts_with(name), "{name}: {row}");
    }
    for (width, height) in [(1280, 900), (400, 800)] {
        browser.size(width, height);
        assert_eq!(browser.run(sideways), Value::Array(Vec::new()), "{width}");
    }
    // A card on a phone has each figure with its title, and nothing of it is hidden.
    let hidden = "return [...document.querySelectorAll('#consumers td, #phases td')]
         .filter(cell => cell.textContent && cell.getBoundingClientRect().height === 0).length";
    assert_eq!(browser.run(hidden), 0);
    let title = "return getComputedStyle(document.querySelector('#consumers td.number'), '::before').content";
    assert_eq!(browser.run(title), "\"CPU time s \"");
    // Paper cannot be scrolled.
    browser.paper();
    let cut =
        "return [...document.querySelectorAll('.scroll')].filter(box => box.scrollHeight > box.clientHeight).length";
    assert_eq!(browser.run(cut), 0);
}

/// What is not a process is neither a shade of the consumers nor of each other; idle is under all of them.
#[test]
fn html_idle_is_the_base_of_the_stack() {
    let browser = require_browser!();
    let made = Made::of(|log| {
        for _ in 0..20 {
            // The second GPU is nobody's: its energy is idle.
            log.interval(SECOND_NS, 50, &[100, 70], &[ran(7, "python3", "/", 500)]);
        }
    });
    made.open(&browser);
    let legend = browser
        .run("return [...document.querySelectorAll('#who .legend button')].map(button => button.textContent.trim())");
    assert_eq!(legend, serde_json::json!(["idle", "python3 7"]));
    let base = browser.run(
        "const tops = [...document.querySelectorAll('#who .plot polygon')].map(shape => shape.getBoundingClientRect());
         return tops.length === 2 && tops[0].bottom > tops[1].bottom",
    );
    assert_eq!(base, true);
}

#[test]
fn html_table_sorts_by_a_click() {
    let browser = require_browser!();
    let made = Made::of(minute);
    made.open(&browser);
    let joules = |browser: &Browser| numbers(&column(browser, "energy J"));
    // The largest first, as written.
    let written = column(&browser, "command");
    assert_eq!(written[..3], ["python3", "gzip", "sshd"]);

    browser.click("#processes th:nth-child(5) button");
    let falling = joules(&browser);
    assert!(falling.len() > 3 && falling.is_sorted_by(|a, b| a >= b), "{falling:?}");
    let order = "return document.querySelector('#processes th:nth-child(5)').getAttribute('aria-sort')";
    assert_eq!(browser.run(order), "descending");

    browser.click("#processes th:nth-child(5) button");
    let rising = joules(&browser);
    assert!(rising.is_sorted(), "{rising:?}");
    assert_ne!(rising, falling);
    assert_eq!(browser.run(order), "ascending");

    // By number and not by letters; rows without a pid stay at the end.
    browser.click("#processes th:nth-child(1) button");
    let pids = column(&browser, "pid");
    assert_eq!(pids[..3], ["90", "700", "4000"]);
    assert!(pids[3..].iter().all(String::is_empty), "{pids:?}");
    assert_eq!(browser.run(order), Value::Null);

    browser.click("#processes th:nth-child(2) button");
    let commands = column(&browser, "command");
    assert!(commands.len() > 5 && commands.is_sorted(), "{commands:?}");
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn html_chart_tells_its_values() {
    let browser = require_browser!();
    let made = Made::of(minute);
    made.open(&browser);
    let plot = "const plot = document.querySelector('#meters .plot'); plot.scrollIntoView({block: 'center'});
                const box = plot.getBoundingClientRect();";
    let place = browser.run(&format!(
        "{plot} return [box.left + box.width / 2, box.top + box.height / 2].map(Math.round)"
    ));
    browser.point_at(place[0].as_i64().unwrap(), place[1].as_i64().unwrap());
    let readout = browser.run("return document.querySelector('#meters .readout').textContent");
    let readout = readout.as_str().unwrap();
    assert!(
        readout.contains("after the start") && readout.contains("phase val"),
        "{readout}"
    );
    // In the middle, after about 38 of 80 seconds, the package draws 40 W and one more for each second.
    let value = browser.run("return document.querySelector('#meters .legend .value').textContent");
    let watts: f64 = value.as_str().unwrap().trim_end_matches(" W").parse().unwrap();
    assert!((75.0..82.0).contains(&watts), "{value}");

    // The same by keys: to the end, of which the last interval has 99 W.
    browser.run("document.querySelector('#meters .plot').focus()");
    browser.press('\u{E010}');
    let value = browser.run("return document.querySelector('#meters .legend .value').textContent");
    assert_eq!(value, "99 W");

    let faint = "return document.querySelectorAll('.chart .faint').length";
    assert_eq!(browser.run(faint), 0);
    // The core of the package; the rest fades.
    browser.click("#packages .legend button");
    assert_ne!(browser.run(faint), 0);
    browser.click("#packages .legend button");
    assert_eq!(browser.run(faint), 0);
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn html_page_is_readable_on_a_dark_screen() {
    let browser = require_browser!();
    let made = Made::of(minute);
    made.open(&browser);
    let ink = "return [getComputedStyle(document.body).backgroundColor,
                       getComputedStyle(document.querySelector('.plot text')).fill]";
    let light = browser.run(ink);
    browser.dark();
    let dark = browser.run(ink);
    let brightness = |color: &Value| -> u32 {
        let parts = color
            .as_str()
            .unwrap()
            .trim_start_matches("rgb(")
            .trim_end_matches(')')
            .split(", ");
        parts.map(|part| part.parse::<u32>().unwrap()).sum()
    };
    assert!(brightness(&light[0]) > brightness(&light[1]) + 400, "{light}");
    assert!(brightness(&dark[1]) > brightness(&dark[0]) + 400, "{dark}");
}

/// A process, a cgroup, a label and a description that try to be markup.
#[test]
fn html_page_runs_nothing_from_the_log() {
    let browser = require_browser!();
    let evil = "</script><img src=x onerror=\"window.evil=1\"><script>window.evil=1</script>";
    let folder = tempfile::tempdir().unwrap();
    let mut log = Synthetic::new(folder.path());
    log.phase("phase_begin", evil);
    let cgroup = format!("/{evil}");
    for _ in 0..20 {
        let rows = [
            ran(1, "<b>&'\"\u{7}\u{202e}", &cgroup, 500),
            ran(2, "]]><svg onload", "/b", 100),
        ];
        log.interval(SECOND_NS, 50, &[], &rows);
    }
    log.finish();
    let metadata =
        serde_json::json!({"description": evil, "node_id": evil, "dlpm": {"notes": [evil], "command_line": [evil]}});
    fs::write(folder.path().join("metadata.json"), metadata.to_string()).unwrap();
    let made = Made::from(folder);
    made.open(&browser);
    assert_eq!(
        browser.run("return window.evil === undefined && document.images.length === 0"),
        true
    );
    let text = browser.run("return document.body.textContent");
    // It is all there, as text; only what a terminal or XML could not bear is replaced.
    assert!(text.as_str().unwrap().matches(evil).count() >= 4, "{text}");
    assert!(text.as_str().unwrap().contains("<b>&'\"??"), "{text}");
    // The policy stands even if something got through: a script that is added is not run.
    browser.run("const script = document.createElement('script'); script.textContent = 'window.evil = 1'; document.body.append(script)");
    assert_eq!(browser.run("return window.evil === undefined"), true);
}

/// 86,400 samples with one second of 400 W among 50 W.
#[test]
fn html_page_of_a_day_is_small_and_keeps_its_peak() {
    let browser = require_browser!();
    let made = Made::of(|log| {
        for second in 0..86_400u64 {
            if second % 3600 == 0 {
                if second > 0 {
                    log.phase("phase_end", "hour");
                }
                log.phase("phase_begin", "hour");
            }
            let watts = if second == 50_000 { 400 } else { 50 + second * 7919 % 5 };
            log.interval(SECOND_NS, watts, &[], &[ran(1, "python3", "/", 800)]);
        }
    });
    assert!(made.html.len() < LARGEST_PAGE_BYTES, "{} bytes", made.html.len());
    made.open(&browser);
    let (mean, high) = (
        browser
            .run("return Math.max(...JSON.parse(document.querySelector('#meters script').textContent).series[0].mean)"),
        browser
            .run("return Math.max(...JSON.parse(document.querySelector('#meters script').textContent).series[0].high)"),
    );
    assert!(mean.as_f64().unwrap() < 60.0, "{mean}");
    assert_eq!(high, 400.0);
    // The table has every joule: 50 to 54 W in turn, and the one second.
    let expected: u64 = (0..86_400u64)
        .map(|second| if second == 50_000 { 400 } else { 50 + second * 7919 % 5 })
        .sum();
    let joules =
        browser.run("return [...document.querySelectorAll('#zones tbody tr')].map(row => row.cells[2].textContent)");
    assert_eq!(joules[0], format!("{expected}.000"));
}
