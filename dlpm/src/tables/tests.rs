//! What the tables say, in each of the three ways to write them.

use std::sync::Arc;

use proptest::prelude::*;

use super::{record::Record, summary::Summary, *};
use crate::{
    attribution::{
        Options, attribute,
        energy_tree::Carries,
        ledger::{Ledger, RowKey},
        selection::Selection,
    },
    interval::{MeterSource, ZoneKind, ZoneReading},
    sinks::testing::{all_zones, id, interval, ledger, zone},
    totals::{Totals, comms::Comms, gpus::Gpus, phases::PhaseTotals},
};

fn summary(totals: &Totals, listed: Option<&str>, each: bool, notes: &[&str]) -> String {
    let notes: Vec<String> = notes.iter().map(|note| (*note).to_owned()).collect();
    let summary = Summary {
        totals,
        phases: &PhaseTotals::default(),
        listed,
        each,
        cost: "",
        notes: &notes,
    };
    summary.text()
}

fn totals(zones: &[ZoneReading]) -> Totals {
    let mut totals = Totals::default();
    for seq in 0..2 {
        totals.add(&ledger(seq, zones.to_vec()));
    }
    totals
}

fn estimate() -> ZoneReading {
    ZoneReading {
        source: MeterSource::Estimate,
        ..zone("machine", ZoneKind::Machine, Ok(15_000_000))
    }
}

#[test]
fn the_answer_comes_first_and_how_it_is_known_is_said_once() {
    let text = summary(&totals(&all_zones()), None, true, &["no GPU"]);
    println!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    // 33.6 + 7.2 + ... of the listed processes in each of two seconds, of 48 J a second.
    assert!(
        lines[1].starts_with("All processes used ")
            && lines[1].ends_with(" of the 96.000 J that the node used, in 2.000 s"),
        "{text}"
    );
    let how = "Measured, by method cpu_time, memory; idle policy proportional, 25.0 % of CPU time was idle";
    assert!(lines[2].starts_with(how), "{text}");
    assert_eq!(
        (text.matches("idle policy").count(), text.matches("cpu_time").count()),
        (1, 4)
    );
    // python in a: 0.7 of 1.5 s, 9.33 + 1.87 + 7.47 + 2.4 J a second.
    let python = lines.iter().find(|line| line.contains("python3")).unwrap();
    let cells: Vec<&str> = python.split_whitespace().collect();
    assert_eq!(cells[..3], ["100", "python3", "/train.slice/a"]);
    assert_eq!(cells[3..8], ["1.400", "42.133", "21.067", "43.9", "%"]);
    let balance: Vec<&&str> = lines.iter().filter(|line| line.starts_with("package-0")).collect();
    assert_eq!(balance.len(), 4);
    assert!(balance.iter().all(|line| line.ends_with(" 0")), "{text}");
    assert!(text.contains("* no GPU") && !text.contains("stimate"));
    assert!(lines.iter().skip(3).all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn an_estimate_says_so_in_the_headline() {
    let totals = totals(&[estimate()]);
    let text = summary(&totals, Some("`python train.py`"), false, &[]);
    println!("{text}");
    assert!(text.contains("\n`python train.py` used an estimated "), "{text}");
    assert!(
        text.contains("\nEstimated from the watts of --estimate; idle policy"),
        "{text}"
    );
    assert!(text.contains("energy is an estimate"));
    assert!(!text.contains("(estimate)"), "{text}");
}

#[test]
fn without_meters_there_are_no_joules() {
    let text = summary(&totals(&[]), None, false, &[]);
    println!("{text}");
    assert!(text.contains("All processes used 2."), "{text}");
    assert!(
        text.contains("no meter") && !text.contains(" J") && !text.contains(" W"),
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
    for listed in [None, Some("\u{1b}[2J")] {
        let text = summary(&totals, listed, false, &[]);
        assert!(
            text.contains("(others)") && text.contains("?[2J") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
    assert!(summary(&totals, None, false, &[]).contains("The listed processes used"));
}

/// A ledger in which `count` more processes of the name bash ran in `/`, and nothing else of that name.
fn many(count: u32) -> Ledger {
    let mut ledger = ledger(0, all_zones());
    let at = ledger
        .rows
        .iter()
        .position(|row| matches!(row.key, RowKey::Process(..)))
        .unwrap();
    let mut template = ledger.rows[at].clone();
    template.energy_uj.iter_mut().for_each(|energy_uj| *energy_uj = 0);
    template.by_package.clear();
    template.shown.as_mut().unwrap().comm = "zsh".into();
    for number in 0..count {
        let mut row = template.clone();
        row.key = RowKey::Process(id(10_000 + number), "/train.slice/a".into());
        // From the first row, so that sums stay.
        row.energy_uj[0] = 1_000;
        ledger.rows[at].energy_uj[0] -= 1_000;
        ledger.rows.push(row);
    }
    ledger
}

#[test]
fn processes_of_one_name_share_a_row_unless_each_is_asked_for() {
    let mut totals = Totals::default();
    totals.add(&many(17));
    let folded = summary(&totals, None, false, &[]);
    let rows: Vec<&str> = folded.lines().filter(|line| line.starts_with("zsh")).collect();
    assert_eq!(rows.len(), 1, "{folded}");
    let cells: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(
        cells[..5],
        ["zsh", "x17", "/train.slice/a", "0.000", "0.017"],
        "{folded}"
    );
    let each = summary(&totals, None, true, &[]);
    assert!(each.matches("zsh").count() > 5 && !each.contains("x17"), "{each}");
}

#[test]
fn what_is_the_same_in_every_row_is_said_once() {
    let mut ledger = ledger(0, all_zones());
    for row in &mut ledger.rows {
        if let RowKey::Process(id, _) = row.key {
            row.key = RowKey::Process(id, "/".into());
        }
    }
    let mut totals = Totals::default();
    totals.add(&ledger);
    let table = consumers::processes(&totals, Depth::ALL);
    let text = table.text(200);
    assert!(text.starts_with("\nProcesses (cgroup / in every row)\n"), "{text}");
    assert_eq!(text.matches("cgroup").count(), 1, "{text}");
    let html = table.html().into_string();
    assert!(
        html.contains("cgroup /") && html.matches("cgroup").count() == 1,
        "{html}"
    );
    // Programs have it in each row.
    let record = &table.records()[0];
    assert_eq!(record.get("cgroup"), Some(&record::Cell::Text("/".to_owned())));
}

/// Every number that a way of writing has in a column, and what it has in the rows of totals.
fn of_text(table: &Table, title: &str) -> (Vec<f64>, Vec<f64>) {
    let text = table.text(400);
    let mut lines = text.lines().skip(2);
    let header = lines.next().unwrap();
    // Numbers are to the right: a column ends where its title does.
    let end = header.find(title).unwrap() + title.len();
    let (mut rows, mut total) = (Vec::new(), Vec::new());
    for line in lines {
        let Some(cell) = line.get(..end).and_then(|line| line.rsplit(' ').next()) else {
            continue;
        };
        let Ok(number) = cell.parse() else { continue };
        if line.contains("total  ") {
            &mut total
        } else {
            &mut rows
        }
        .push(number);
    }
    (rows, total)
}

fn of_html(table: &Table, title: &str) -> (Vec<f64>, Vec<f64>) {
    let html = table.html().into_string();
    let column = format!("data-title=\"{title}\">");
    let numbers = |html: &str| -> Vec<f64> {
        let cells = html.split(&column).skip(1);
        cells.filter_map(|cell| cell.split('<').next()?.parse().ok()).collect()
    };
    let (body, foot) = html.split_once("<tfoot>").unwrap();
    (numbers(body), numbers(foot))
}

fn of_programs(table: &Table, key: &str) -> Vec<f64> {
    let number = |record: &Record| match record.get(key) {
        Some(record::Cell::Whole(number)) => Some(*number as f64),
        _ => None,
    };
    let of_json: Vec<f64> = table.records().iter().filter_map(number).collect();
    let csv = record::csv(&table.records()).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let at = reader.headers().unwrap().iter().position(|name| name == key).unwrap();
    let of_csv: Vec<f64> = reader
        .records()
        .filter_map(|row| row.unwrap()[at].parse().ok())
        .collect();
    assert_eq!(of_json, of_csv);
    of_json
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// From one table: what people read on a terminal and on the page, and what programs read, comes to the same total,
    /// which is what the meters and the CPUs counted.
    #[test]
    fn a_total_is_the_sum_of_its_rows_however_it_is_written(top in 0..6usize, each: bool, more in 0..40u32) {
        let mut ledger = many(more);
        // Milliseconds and millijoules, so that nothing is rounded.
        let rounded = |value: &mut u64, left: &mut u64| { *left += *value % 1_000; *value -= *value % 1_000; };
        for leaf in 0..ledger.leaves.len() {
            let mut left = 0;
            ledger.rows.iter_mut().for_each(|row| rounded(&mut row.energy_uj[leaf], &mut left));
            ledger.rows[0].energy_uj[leaf] += left;
            let Ok(energy_uj) = ledger.leaves[leaf].energy_uj else { continue };
            prop_assert_eq!(energy_uj % 1_000, 0);
        }
        for sum in &mut ledger.cgroups {
            sum.energy_uj = ledger.rows.iter().filter(|row| matches!(&row.key, RowKey::Process(_, cgroup) if **cgroup == *sum.cgroup))
                .fold(vec![0; ledger.leaves.len()], |sums, row| sums.iter().zip(&row.energy_uj).map(|(a, b)| a + b).collect());
        }
        let (mut totals, mut comms, mut gpus) = (Totals::default(), Comms::default(), Gpus::default());
        totals.add(&ledger);
        comms.add(&ledger);
        gpus.add(&ledger);
        let depth = Depth { top, details: true, each };
        let everything = totals.energy_uj() as f64;
        let listed = totals.listed().amount.energy_uj as f64;
        for (table, expected) in [
            (consumers::processes(&totals, depth), everything),
            (consumers::cgroups(&totals, depth), listed),
            (consumers::comms(&totals, &comms, depth), listed),
        ] {
            let sum = |numbers: &[f64]| (numbers.iter().sum::<f64>() * 1e6).round();
            let programs: f64 = of_programs(&table, "energy_uj").iter().sum();
            prop_assert_eq!(programs, expected, "{}", table.id);
            for (rows, total) in [of_text(&table, "energy J"), of_html(&table, "energy J")] {
                prop_assert_eq!((sum(&rows), sum(&total), total.len()), (expected, expected, 1), "{}", table.text(400));
            }
        }
        prop_assert_eq!(gpus::gpus(&totals, &gpus, depth).rows.len(), 0);
    }
}
