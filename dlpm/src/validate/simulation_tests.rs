//! The estimator on a machine whose truth is known.

use super::{
    Cell, LoadKind, Why,
    file::{self, Header, Limits},
    methods::EQUAL,
    proof,
    simulation::{Law, SECOND_NS, cells, header},
    verdict::{State, Verdict},
};

/// The error of a method in a noiseless world, from the law alone: `predicted / (own + interaction / 2) - 1` in ppm.
fn true_error_ppm(law: &Law, load: LoadKind, other: LoadKind, weight: [f64; 2]) -> f64 {
    let own = (law.load_mw)(load) as f64;
    let interaction = (law.interaction_mw)(load.min(other), load.max(other)) as f64;
    let dynamic = own + (law.load_mw)(other) as f64 + interaction;
    let predicted = dynamic * weight[0] / weight.iter().sum::<f64>();
    (predicted / (own + interaction / 2.0) - 1.0) * 1e6
}

/// CPU time of a load in a second, less what a shared core is worth less under the SMT weight (thousandths): the load on
/// core A is the first of its pair.
fn weight(law: &Law, load: LoadKind, is_on_a: bool, smt_permille: u64) -> f64 {
    let ns = if load == LoadKind::Nap {
        SECOND_NS / 2
    } else {
        SECOND_NS
    };
    let shared = if is_on_a { law.sibling_ns.min(ns) } else { 0 };
    (ns - shared) as f64 + shared as f64 * smt_permille as f64 / 1000.0
}

/// Weights of a pair and of the others on the machine, who take a part as well: only the sibling here.
fn expected(law: &Law, load: LoadKind, other: LoadKind, method: &str) -> f64 {
    if method == EQUAL {
        return true_error_ppm(law, load, other, [1.0, 1.0]);
    }
    let smt_permille = if method == "cpu_time" { 1000 } else { 550 };
    let of = |load: LoadKind, other: LoadKind| weight(law, load, load < other, smt_permille);
    // What runs beside core A shares all of its time; dlpm's own two milliseconds are in every cell.
    let rest = law.sibling_ns as f64 * smt_permille as f64 / 1000.0 + law.foreign_ns as f64 + 2e6 / 6.0;
    true_error_ppm(law, load, other, [of(load, other), of(other, load) + rest])
}

fn turbo() -> Law {
    Law {
        interaction_mw: |first, second| match (first, second) {
            (LoadKind::Scalar, LoadKind::Fma) => -900,
            (LoadKind::Fma, _) => -600,
            _ => -150,
        },
        sibling_ns: SECOND_NS / 100,
        noise_ppm: 4_000,
        ..Law::default()
    }
}

/// How many of the errors of a verdict are outside of their intervals, of how many.
fn missed(law: &Law, verdict: &Verdict) -> (usize, usize) {
    let (mut missed, mut all) = (0, 0);
    for pair in &verdict.pairs {
        for (which, side) in pair.sides.iter().enumerate() {
            for found in &side.errors {
                let expected = expected(law, side.load, pair.loads[1 - which], &found.method);
                let held = found.error.low_ppm as f64 <= expected && expected <= found.error.high_ppm as f64;
                all += 1;
                missed += usize::from(!held);
            }
        }
    }
    (missed, all)
}

/// Mean and worst error of a method by the law.
fn summary_by_law(law: &Law, loads: &[LoadKind], method: &str) -> (f64, f64) {
    let errors: Vec<f64> = super::plan::pairs(loads)
        .flat_map(|[first, second]| [(first, second), (second, first)])
        .map(|(load, other)| expected(law, load, other, method).abs())
        .collect();
    (
        errors.iter().sum::<f64>() / errors.len() as f64,
        errors.iter().copied().fold(0.0, f64::max),
    )
}

#[test]
fn each_method_s_true_error_is_in_its_interval_for_19_of_20_seeds() {
    for (loads, rounds) in [(&LoadKind::QUICK[..], 3), (&LoadKind::ALL[..], 5)] {
        for (name, law) in [
            (
                "constant offset alone",
                Law {
                    noise_ppm: 4_000,
                    ..Law::default()
                },
            ),
            ("turbo, SMT and offset", turbo()),
        ] {
            let (mut held, mut sides) = (std::collections::BTreeMap::<String, usize>::new(), (0, 0));
            for seed in 1..=20 {
                let header = header(loads, rounds, seed);
                let verdict = Verdict::of(&header, &cells(&header, &law));
                assert_eq!(verdict.refusals, [], "{name}, seed {seed}");
                for summary in &verdict.methods {
                    let (mean, worst) = summary_by_law(&law, loads, &summary.method);
                    let within = |found: super::truth::Estimate, truth: f64| {
                        found.low_ppm as f64 <= truth && truth <= found.high_ppm as f64
                    };
                    let is_held = within(summary.mean, mean) && within(summary.worst, worst);
                    *held.entry(summary.method.clone()).or_default() += usize::from(is_held);
                }
                let (missed, all) = missed(&law, &verdict);
                sides = (sides.0 + missed, sides.1 + all);
            }
            assert_eq!(held.len(), 3, "{held:?}");
            for (method, held) in held {
                assert!(held >= 19, "{name}, {rounds} rounds: {method} {held} of 20");
            }
            // Each load of each pair has an interval as well, and they are not independent.
            assert!(sides.0 * 10 <= sides.1, "{name}, {rounds} rounds: {sides:?} outside");
        }
    }
}

#[test]
fn without_noise_the_figures_are_those_of_the_law() {
    let law = Law {
        noise_ppm: 0,
        ..turbo()
    };
    let header = header(&LoadKind::ALL, 5, 9);
    let verdict = Verdict::of(&header, &cells(&header, &law));
    assert_eq!(verdict.refusals, []);
    assert_eq!(verdict.pairs.len(), 10);
    for pair in &verdict.pairs {
        let interaction_uw = (law.interaction_mw)(pair.loads[0], pair.loads[1]) * 1000;
        assert!((pair.interaction_uw - interaction_uw).abs() <= 2, "{pair:?}");
        for side in &pair.sides {
            assert!((side.alone_uw - (law.load_mw)(side.load) * 1000).abs() <= 2);
            assert!((side.added_uw - side.alone_uw - interaction_uw).abs() <= 4);
        }
    }
    assert_eq!(missed(&law, &verdict).0, 0);
    // The SMT weight makes a difference on a machine with a busy sibling.
    let [time, smt] = ["cpu_time", "cpu_time_smt"].map(|method| verdict.summary(method).unwrap().mean.ppm);
    assert_ne!(time, smt);
    // Equal time is not equal energy: 11 W beside 3 W.
    assert!(verdict.summary("cpu_time").unwrap().mean.ppm > 300_000);
}

#[test]
fn where_cores_have_meters_the_method_that_reads_them_is_right() {
    let law = Law {
        core_zones: true,
        noise_ppm: 1_000,
        ..Law::default()
    };
    let header = header(&LoadKind::QUICK, 3, 4);
    let verdict = Verdict::of(&header, &cells(&header, &law));
    assert_eq!(verdict.refusals, []);
    let mean = |method: &str| verdict.summary(method).unwrap().mean.ppm;
    assert!(mean("cpu_time_core") < 20_000, "{}", mean("cpu_time_core"));
    assert!(mean("cpu_time") > 300_000, "{}", mean("cpu_time"));
    assert!(super::show::conclusion(&verdict).contains("CPU time, by core"));
}

#[test]
fn counters_that_follow_the_joules_are_right_where_cpu_time_is_not() {
    let law = Law {
        counters: true,
        noise_ppm: 1_000,
        ..Law::default()
    };
    let header = header(&LoadKind::QUICK, 3, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &whole(&header, &law));
    assert_eq!(failures(&path), [""; 0]);
    let verdict = proof::prove(&file::Validation::read(&path).unwrap()).verdict;
    assert_eq!(verdict.refusals, []);
    let mean = |method: &str| verdict.summary(method).unwrap().mean.ppm;
    assert!(mean("counters") < 20_000, "{}", mean("counters"));
    assert!(mean("cpu_time") > 10 * mean("counters"), "{}", mean("cpu_time"));
}

/// What a run is refused for.
fn refused(header: &Header, cells: &[Cell]) -> Vec<Why> {
    let verdict = Verdict::of(header, cells);
    assert_eq!(verdict.holds(), verdict.refusals.is_empty());
    for refusal in &verdict.refusals {
        let said = refusal.to_string();
        assert!(said.contains("Next step: ") && said.len() > 80, "{said}");
    }
    verdict.refusals.iter().map(|refusal| refusal.why).collect()
}

#[test]
fn each_condition_that_spoils_a_run_refuses_it() {
    let plan = header(&LoadKind::QUICK, 3, 1);
    let of = |law: &Law| refused(&plan, &cells(&plan, law));
    assert_eq!(of(&Law::default()), []);
    let just_below = Law {
        foreign_ns: SECOND_NS / 51,
        ..Law::default()
    };
    assert_eq!(of(&just_below), []);
    let foreign = Law {
        foreign_ns: SECOND_NS / 49,
        ..Law::default()
    };
    assert_eq!(of(&foreign), [Why::ForeignLoad]);
    let drift = |idle_drift_ppm| Law {
        idle_drift_ppm,
        ..Law::default()
    };
    assert_eq!(
        of(&drift(24_000))
            .iter()
            .filter(|why| **why == Why::UnstableIdle)
            .count(),
        0
    );
    assert!(of(&drift(26_000)).contains(&Why::UnstableIdle));
    let noisy = Law {
        noise_ppm: 60_000,
        ..Law::default()
    };
    assert!(of(&noisy).contains(&Why::UncertainLoad));
    let slowed = Law {
        speed_permille: |_, _| 960,
        ..Law::default()
    };
    assert_eq!(of(&slowed), [Why::Interference]);
    let faster = Law {
        speed_permille: |_, _| 1040,
        ..Law::default()
    };
    assert_eq!(of(&faster), [Why::Interference]);
    let weightless = Law {
        load_mw: |_| 0,
        ..Law::default()
    };
    assert_eq!(of(&weightless), [Why::NothingToSplit]);

    let changed = |change: fn(&mut Cell)| {
        let mut all = cells(&plan, &Law::default());
        change(&mut all[4]);
        refused(&plan, &all)
    };
    assert_eq!(changed(|cell| cell.throttled = Some(1)), [Why::Throttling]);
    assert_eq!(changed(|cell| cell.throttled = None), []);
    let mut uncounted = cells(&plan, &Law::default());
    uncounted[0].throttled = None;
    let said = super::show::notes(&plan, &Verdict::of(&plan, &uncounted)).join("\n");
    assert!(said.contains("whether a core was throttled is not known"), "{said}");
    assert_eq!(changed(|cell| cell.on_battery = true), [Why::Battery]);
    assert_eq!(
        changed(|cell| cell
            .ledger
            .leaves
            .iter_mut()
            .for_each(|leaf| leaf.energy_uj = Err("it was reset".to_owned()))),
        [Why::MeterFailed]
    );
    let mut all = cells(&plan, &Law::default());
    let slower = all.iter_mut().find(|cell| cell.runs.len() == 1).unwrap();
    slower.runs[0].units = slower.runs[0].units * 96 / 100;
    assert_eq!(refused(&plan, &all), [Why::UnstableSpeed]);
    all.pop();
    assert!(refused(&plan, &all).contains(&Why::Incomplete));
    let one = header(&LoadKind::QUICK, 1, 1);
    assert_eq!(refused(&one, &cells(&one, &Law::default())), [Why::Incomplete]);
    // Higher limits accept more, and are said.
    let mut patient = plan.clone();
    patient.limits = Limits {
        foreign_permille: 500,
        ..Limits::default()
    };
    let verdict = Verdict::of(&patient, &cells(&patient, &foreign));
    assert!(verdict.holds());
    assert!(
        super::show::notes(&patient, &verdict)
            .join("\n")
            .contains("50.0 % of a CPU for others")
    );
}

#[test]
fn a_pair_that_slows_down_is_left_out_and_the_others_count() {
    let law = Law {
        speed_permille: |load, other| match (load, other) {
            (LoadKind::Chase, LoadKind::Fma) => 900,
            _ => 1000,
        },
        ..Law::default()
    };
    let header = header(&LoadKind::QUICK, 3, 2);
    let verdict = Verdict::of(&header, &cells(&header, &law));
    assert!(verdict.holds());
    let states: Vec<(State, [LoadKind; 2])> = verdict.pairs.iter().map(|pair| (pair.state, pair.loads)).collect();
    assert_eq!(
        states,
        [
            (State::Used, [LoadKind::Scalar, LoadKind::Fma]),
            (State::Used, [LoadKind::Scalar, LoadKind::Chase]),
            (State::Interfering, [LoadKind::Fma, LoadKind::Chase]),
        ]
    );
    assert_eq!(verdict.pairs[2].sides[1].speed_ppm, -100_000);
    assert!(
        super::show::notes(&header, &verdict)
            .join("\n")
            .contains("fma beside chase")
    );
    let (mean, _) = [(LoadKind::Scalar, LoadKind::Fma), (LoadKind::Scalar, LoadKind::Chase)]
        .iter()
        .flat_map(|(first, second)| [(*first, *second), (*second, *first)])
        .map(|(load, other)| expected(&law, load, other, EQUAL).abs())
        .fold((0.0, 0), |(sum, count), error| (sum + error / 4.0, count + 1));
    assert!((verdict.summary(EQUAL).unwrap().mean.ppm as f64 - mean).abs() < 500.0);
}

fn written(folder: &std::path::Path, text: &str) -> std::path::PathBuf {
    let path = folder.join(file::FILE_NAME);
    std::fs::write(&path, text).unwrap();
    path
}

fn whole(header: &Header, law: &Law) -> String {
    let cells = cells(header, law);
    file::text(header, &cells, Some(&Verdict::of(header, &cells))).unwrap()
}

fn failures(path: &std::path::Path) -> Vec<String> {
    match file::Validation::read(path) {
        Ok(validation) => proof::prove(&validation)
            .failures
            .iter()
            .map(ToString::to_string)
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn a_file_gives_its_verdict_again_and_a_folder_means_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let law = Law {
        core_zones: true,
        ..turbo()
    };
    let header = header(&LoadKind::ALL, 5, 3);
    let path = written(folder.path(), &whole(&header, &law));
    assert_eq!(failures(&path), [""; 0]);
    let validation = file::Validation::read(&path).unwrap();
    assert_eq!(validation.header, header);
    assert_eq!(validation.cells.len(), 80);
    let proof = proof::prove(&validation);
    assert_eq!(proof.verdict, Verdict::of(&header, &cells(&header, &law)));
    assert_eq!(file::of_path(folder.path()), Some(path.clone()));
    let renamed = folder.path().join("node1.jsonl");
    std::fs::copy(&path, &renamed).unwrap();
    assert_eq!(file::of_path(&renamed), Some(renamed));
    std::fs::write(folder.path().join(crate::log::names::LOG_NAME), "{}").unwrap();
    assert_eq!(file::of_path(folder.path()), None);
    assert_eq!(file::of_path(&folder.path().join("nothing")), None);
}

/// Replaces the digest by the one that fits, as a forger would.
fn signed(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let end = text.trim_end().rfind('\n').unwrap() + 1;
    let digest: String = Sha256::digest(&text.as_bytes()[..end])
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}{{\"sha256\":\"{digest}\"}}\n", &text[..end])
}

#[test]
fn every_changed_digit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let header = header(&LoadKind::QUICK, 2, 8);
    let text = whole(&header, &turbo());
    assert_eq!(signed(&text), text);
    let digits: Vec<usize> = (0..text.len())
        .filter(|at| text.as_bytes()[*at].is_ascii_digit())
        .collect();
    let mut random = super::random::Random::new(5);
    let (mut unseen, mut forged) = (std::collections::BTreeSet::new(), 0);
    for number in 0..1000 {
        let at = digits[random.below(digits.len())];
        let mut changed = text.clone().into_bytes();
        changed[at] = b'0' + (changed[at] - b'0' + 1 + u8::try_from(random.below(8)).unwrap()) % 10;
        let changed = String::from_utf8(changed).unwrap();
        let found = file::Validation::read(&written(folder.path(), &changed));
        assert!(
            found.is_err() || found.is_ok_and(|found| !found.failures.is_empty()),
            "digit {at}"
        );
        // With a new digest: what was measured, predicted and concluded is found all the same.
        let changed = signed(&changed);
        if number % 5 != 0 || changed == text {
            continue;
        }
        forged += 1;
        // A package in which a row has no time means nothing.
        let means_nothing = text[at..].split_once('"').unwrap().1.starts_with(":{\"cpu_ns\":0");
        if !means_nothing && failures(&written(folder.path(), &changed)).is_empty() {
            unseen.insert(text[..at].rsplit('"').nth(1).unwrap().to_owned());
        }
    }
    assert!(forged > 150, "{forged}");
    // What describes the run, and follows from nothing.
    let descriptive = [
        "date",
        "dlpm",
        "settle_ns",
        "cell_ns",
        "end_unix_ns",
        "cpu",
        "seq",
        "counter_uj",
        "range_uj",
        "cpus",
        "uid",
        "package",
        "seed",
        "start_ns",
        "seal_ns",
        "energy_skew_ns",
        "switches",
    ];
    unseen.retain(|kind| !descriptive.contains(&kind.as_str()) && !kind.ends_with("_permille"));
    assert!(unseen.is_empty(), "{unseen:?} of {forged}");
}

/// Whatever is in a file: it is proved or not, and nothing else happens.
#[test]
fn no_file_makes_the_proof_panic() {
    let folder = tempfile::tempdir().unwrap();
    let header = header(&LoadKind::QUICK, 2, 8);
    let text = whole(&header, &turbo());
    let mut random = super::random::Random::new(6);
    for number in 0..300 {
        let mut bytes = text.clone().into_bytes();
        let at = random.below(bytes.len());
        if number % 3 == 0 {
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        } else {
            // A number becomes the largest of its kind.
            let digit = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()).unwrap_or(at);
            let end = (digit..bytes.len())
                .find(|at| !bytes[*at].is_ascii_digit())
                .unwrap_or(digit);
            let largest = ["18446744073709551615", "0", "4294967295", "9223372036854775807"][random.below(4)];
            bytes.splice(digit..end, largest.bytes());
        }
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        drop(failures(&written(folder.path(), &signed(&changed))));
    }
    // Cells of which the laws hold, with the largest figures.
    let mut extreme = cells(&header, &turbo());
    for cell in &mut extreme {
        cell.ledger.end_ns = cell.ledger.begin_ns + 1;
        for leaf in &mut cell.ledger.leaves {
            leaf.energy_uj = Ok(u64::MAX);
        }
        for run in &mut cell.runs {
            (run.units, run.ns) = (u64::MAX, 1);
        }
    }
    let verdict = Verdict::of(&header, &extreme);
    assert!(!super::show::text(&header, &verdict, 100).is_empty());
}

#[test]
fn a_damaged_file_is_refused_with_its_reason_and_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let header = header(&LoadKind::QUICK, 2, 8);
    let text = whole(&header, &Law::default());
    let lines: Vec<&str> = text.lines().collect();
    let says = |text: &str, expected: &str| {
        let found = failures(&written(folder.path(), text)).join("\n");
        assert!(found.contains(expected), "{found}");
    };
    says("", "it is empty");
    says("{}\n", "its first line does not describe a validation");
    says(
        &text.replacen("\"validation\":1", "\"validation\":2", 1),
        "version 2 of the layout",
    );
    says(
        &text.replacen("\"rounds\":2", "\"rounds\":4000000000", 1),
        "4000000000 rounds",
    );
    says(&lines[..5].join("\n"), "the end is missing");
    says(&(lines[..lines.len() - 1].join("\n") + "\n"), "the end is missing");
    says(&(text.clone() + "{}\n"), "behind the end");
    let twice = [&lines[..3], &lines[2..]].concat().join("\n") + "\n";
    says(&signed(&twice), "this cell is there twice");
    let without = [&lines[..3], &lines[4..]].concat().join("\n") + "\n";
    says(&signed(&without), "verdict");
    says(
        &signed(&text.replacen("\"round\":1", "\"round\":9", 1)),
        "this cell was not planned",
    );
    says(&format!("{}\n{}\n", lines[0], "[".repeat(600_000)), "values");
    says(&format!("{}\n\u{1b}]0;x\n", lines[0]), "it is not JSON");
    let many = format!("{}\n{}", lines[0], "{}\n".repeat(2_000));
    says(&many, "more than 1000 lines");
    let path = written(folder.path(), "x");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    says_error(&path);
}

fn says_error(path: &std::path::Path) {
    assert!(failures(path).join("").contains("a folder"));
}
