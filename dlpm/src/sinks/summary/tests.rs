//! What the tables say.

use std::sync::Arc;

use super::*;
use crate::{
    attribution::{Options, attribute, energy_tree::Carries, selection::Selection},
    interval::{MeterSource, ZoneReading},
    sinks::testing::{all_zones, interval, ledger, zone},
};

fn summary(zones: &[ZoneReading], notes: &[&str]) -> String {
    let mut totals = Totals::default();
    for seq in 0..2 {
        totals.add(&ledger(seq, zones.to_vec()));
    }
    let notes = notes.iter().map(|note| (*note).to_owned()).collect();
    render(
        &totals,
        &SummaryOptions {
            notes,
            ..SummaryOptions::default()
        },
    )
}

#[test]
fn every_table_names_policy_and_idle_time_and_closes() {
    let text = summary(&all_zones(), &["no GPU"]);
    println!("{text}");
    assert_eq!(
        text.matches("idle policy proportional, 25.0 % of CPU time was idle")
            .count(),
        3
    );
    assert_eq!(text.matches("\njoules by method cpu_time and memory\n").count(), 2);
    // python in a: 0.7 of 1.5 s, 9.33 + 1.87 + 7.47 + 2.4 J a second.
    let python = text.lines().find(|line| line.contains("python3")).unwrap();
    let cells: Vec<&str> = python.split_whitespace().collect();
    assert_eq!(cells[..3], ["100", "python3", "/train.slice/a"]);
    assert_eq!(cells[3..], ["1.400", "42.133", "21.067", "43.9", "%"]);
    let balance: Vec<&str> = text.lines().filter(|line| line.starts_with("package-0")).collect();
    assert_eq!(balance.len(), 4);
    assert!(balance.iter().all(|line| line.ends_with(" 0")), "{text}");
    assert!(text.contains("* no GPU") && !text.contains("estimate"));
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn an_estimate_says_so_everywhere() {
    let machine = ZoneReading {
        source: MeterSource::Estimate,
        ..zone("machine", ZoneKind::Machine, Ok(15_000_000))
    };
    let text = summary(&[machine], &[]);
    println!("{text}");
    assert_eq!(text.matches("joules are an estimate").count(), 3);
    assert!(text.contains("energy is an estimate"));
    assert_eq!(text.matches("\njoules by method estimate\n").count(), 2);
}

#[test]
fn without_meters_there_are_no_joules() {
    let text = summary(&[], &[]);
    println!("{text}");
    assert!(
        text.contains("no meter") && !text.contains("energy J") && !text.contains(" W"),
        "{text}"
    );
}

#[test]
fn others_are_shown_under_a_filter_and_names_cannot_control_the_terminal() {
    let selection = Selection {
        cgroups: vec!["/train.slice".to_owned()],
        ..Selection::default()
    };
    let mut interval = interval(0, all_zones());
    interval
        .processes
        .values_mut()
        .for_each(|process| Arc::make_mut(process).comm = "\u{1b}[2J".into());
    let mut totals = Totals::default();
    totals.add(&attribute(
        &interval,
        &Options {
            selection,
            ..Options::default()
        },
        &Carries::default(),
    ));
    let text = render(
        &totals,
        &SummaryOptions {
            width: 140,
            ..SummaryOptions::default()
        },
    );
    assert!(
        text.contains("(others)") && text.contains("?[2J") && !text.contains('\u{1b}'),
        "{text}"
    );
}
