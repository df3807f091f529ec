//! Screens for a fixed set of intervals, compared with files; `DLPM_RENEW_RECORDED=1` writes them again.

use std::{env, fs, path::Path};

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    screen::{render, text_of},
    text::{bytes, joules, parts, watts},
    *,
};
use crate::sinks::testing::{all_zones, ledger};

fn app(intervals: u64) -> App {
    let mut app = App::default();
    app.node = "node7".to_owned();
    for seq in 0..intervals {
        app.tally.add(&ledger(seq, all_zones()));
    }
    app
}

fn screen(app: &App, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    render(app, Colours::None, area, &mut buffer);
    text_of(&buffer)
}

#[track_caller]
fn is_recorded(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/top/screens")
        .join(format!("{name}.txt"));
    if env::var_os("DLPM_RENEW_RECORDED").is_some() {
        fs::write(&path, text).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, recorded, "{}", path.display());
}

/// The line that adds up: its parts and its sum, in mW.
fn sum_of(screen: &str) -> (u64, u64) {
    let text: Vec<&str> = screen.lines().collect();
    let from = text.iter().position(|line| line.starts_with("listed ")).unwrap();
    let line = text[from..text.len() - 1].join(" ");
    let (left, right) = line.split_once(" = ").unwrap();
    let mw = |text: &str| text.trim().replace('.', "").parse::<u64>().unwrap();
    let parts = left.split(" + ").map(|part| mw(part.rsplit(' ').next().unwrap()));
    (parts.sum(), mw(right.split(" W").next().unwrap()))
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        let key = match key {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\t' => Key::Tab,
            other => Key::Char(other),
        };
        assert_eq!(app.press(key), Flow::On);
    }
}

#[test]
fn screens_of_three_sizes() {
    let app = app(5);
    for (name, width, height) in [("80x24", 80, 24), ("120x30", 120, 30), ("40x12", 40, 12)] {
        let text = screen(&app, width, height);
        is_recorded(name, &text);
        let (of_parts, sum) = sum_of(&text);
        assert_eq!(of_parts, sum, "{name}");
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)));
    }
    assert!(screen(&App::default(), 80, 24).starts_with("measuring"));
    // However small it is, nothing panics.
    for (width, height) in [(0, 0), (1, 1), (8, 3), (500, 2)] {
        screen(&app, width, height);
    }
}

#[test]
fn the_sum_is_the_meter_in_every_frame() {
    let mut app = App::default();
    for seq in 0..10 {
        let ledger = ledger(seq, all_zones());
        app.tally.add(&ledger);
        let of_leaves: u64 = ledger
            .leaves
            .iter()
            .filter_map(|leaf| leaf.energy_uj.as_ref().ok())
            .sum();
        assert_eq!(app.tally.now_uj, of_leaves);
        let (parts, sum) = parts(&app.tally);
        assert_eq!(parts.iter().map(|(_, mw)| mw).sum::<u64>(), sum);
        // A second: as many mW as mJ.
        assert_eq!(sum, of_leaves / 1000);
    }
    let listed: u128 = app.lines().iter().map(|line| line.entry.energy_uj).sum();
    let fixed: u128 = app.tally.fixed.values().map(|fixed| fixed.energy_uj).sum();
    assert_eq!(listed + fixed, app.tally.energy_uj);
}

#[test]
fn keys_choose_what_is_listed() {
    let mut app = app(3);
    let names = |app: &App| app.lines().iter().map(|line| line.name.clone()).collect::<Vec<_>>();
    let all = names(&app);
    assert_eq!(all[0], "python3", "{all:?}");
    press(&mut app, "I");
    assert_eq!(names(&app).last().unwrap(), "python3");
    press(&mut app, "Isssss");
    assert_eq!(app.order, Order::Name);
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(names(&app), sorted);
    press(&mut app, "s/bas\n");
    assert_eq!(names(&app), ["bash"]);
    is_recorded("filter", &screen(&app, 80, 12));
    press(&mut app, "\u{1b}");
    assert_eq!(names(&app).len(), all.len());
    press(&mut app, "t");
    is_recorded("tree", &screen(&app, 80, 16));
    press(&mut app, "t\t");
    assert_eq!(app.view, View::Tenants);
    is_recorded("tenants", &screen(&app, 80, 16));
    let tenant = app.lines()[0].tenant.clone().unwrap();
    press(&mut app, "\n");
    assert_eq!((app.view, app.inside.clone()), (View::Processes, Some(tenant.clone())));
    assert!(app.lines().iter().all(|line| line.entry.tenant == tenant));
    press(&mut app, "\u{1b}");
    assert_eq!((app.view, app.inside.clone()), (View::Tenants, None));
    press(&mut app, "jjjjjjjjjj");
    assert_eq!(app.selected, app.lines().len() - 1);
    press(&mut app, "kg");
    assert_eq!(app.selected, 0);
    press(&mut app, "?");
    is_recorded("help", &screen(&app, 80, 24));
    press(&mut app, "x");
    assert!(!app.help);
    assert_eq!(app.press(Key::Char('q')), Flow::Quit);
    assert_eq!(app.press(Key::Interrupt), Flow::Quit);
}

#[test]
fn a_pause_stops_the_screen_and_not_the_counting() {
    let mut app = app(2);
    press(&mut app, " ");
    let paused = screen(&app, 80, 24);
    app.tally.add(&ledger(2, all_zones()));
    assert_eq!(screen(&app, 80, 24), paused);
    assert!(paused.contains("PAUSED"));
    press(&mut app, " ");
    assert_ne!(screen(&app, 80, 24), paused);
    assert_eq!(app.shown().intervals, 3);
}

#[test]
fn a_tree_adds_up() {
    let mut app = app(3);
    press(&mut app, "t");
    let (mut sum, mut tenants) = (0, 0);
    for line in app.lines() {
        if line.tenant.is_some() {
            tenants += line.entry.energy_uj;
        } else {
            sum += line.entry.energy_uj;
        }
    }
    assert_eq!(sum, tenants);
}

#[test]
fn a_process_that_has_ended_goes_and_what_it_used_stays() {
    let mut app = App::default();
    let mut last = ledger(0, all_zones());
    for row in &mut last.rows {
        if let Some(shown) = &mut row.shown {
            shown.exited = &*shown.comm == "bash";
        }
    }
    app.tally.add(&last);
    let has_bash = |app: &App| app.lines().iter().any(|line| line.name == "bash");
    assert!(has_bash(&app));
    let of_users =
        |app: &App| app.tally.energy_uj - app.tally.fixed.values().map(|fixed| fixed.energy_uj).sum::<u128>();
    let sum = |app: &App| app.lines().iter().map(|line| line.entry.energy_uj).sum::<u128>();
    for seq in 1..5 {
        let mut next = ledger(seq, all_zones());
        next.rows
            .retain(|row| row.shown.as_ref().is_none_or(|shown| &*shown.comm != "bash"));
        app.tally.add(&next);
    }
    assert!(!has_bash(&app));
    press(&mut app, "3");
    assert_eq!(sum(&app), of_users(&app));
}

#[test]
fn a_frame_for_a_script_has_the_same_figures() {
    let app = app(3);
    let frame: serde_json::Value = serde_json::from_str(&json(&app)).unwrap();
    let uj = |value: &serde_json::Value| value["energy_uj"].as_u64().unwrap();
    let lines = frame["lines"].as_array().unwrap().iter().map(uj).sum::<u64>();
    let rows = frame["rows"].as_object().unwrap().values().map(uj).sum::<u64>();
    assert_eq!(lines + rows, uj(&frame));
    let text = plain(&app, 100);
    assert!(text.contains("python3") && !text.contains('\u{1b}'), "{text}");
    let (of_parts, sum) = sum_of(&text);
    assert_eq!(of_parts, sum);
}

#[test]
fn figures_stay_short() {
    assert_eq!(watts(12_345), "12.345");
    for (uj, text) in [
        (1_234_567, "1.23"),
        (123_456_789_000, "123.4k"),
        (999_000_000, "999"),
        (12_000_000_000_000, "12.0M"),
    ] {
        assert_eq!(joules(uj), text, "{uj}");
    }
    for (number, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1536, "1.5K"),
        (20 << 20, "20M"),
        (u64::MAX, "16777215T"),
    ] {
        assert_eq!(bytes(number), text, "{number}");
    }
}
