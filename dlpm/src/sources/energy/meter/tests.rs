use super::super::testing::*;
use super::*;

/// The kernel's software events stand for the PMU: they can be opened everywhere.
fn with_pmu(tree: Tree) -> Tree {
    tree.pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)])
}

/// A zone whose counter cannot be read.
fn unreadable() -> Tree {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 0, RANGE);
    let file = tree.class("intel-rapl:0").join("energy_uj");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(file).unwrap();
    tree
}

fn watts() -> Option<Estimate> {
    Some("idle=20,busy=3".parse().unwrap())
}

fn found(tree: &Tree, wanted: EnergySource, estimate: Option<Estimate>) -> (&'static str, String) {
    match find_meter(tree.path(), wanted, estimate) {
        Ok((meter, notes)) => {
            let word = match meter {
                Meter::Powercap(_) => "powercap",
                Meter::Perf(_) => "perf",
                Meter::Estimate(_) => "estimate",
                Meter::None => "none",
            };
            (word, notes.join("\n"))
        }
        Err(error) => ("error", error.to_string()),
    }
}

#[test]
fn auto_takes_the_first_that_can_be_read_and_says_which() {
    if !perf_allowed() {
        return;
    }
    use EnergySource::Auto;
    for (tree, estimate, word, says) in [
        (with_pmu(laptop()), None, "powercap", "powercap zones"),
        (with_pmu(laptop()), watts(), "powercap", "--estimate is not used"),
        (with_pmu(Tree::new()), None, "perf", "there are no powercap zones"),
        (with_pmu(Tree::new()), watts(), "perf", "--estimate is not used"),
        (with_pmu(unreadable()), None, "perf", "powercap zones cannot be read"),
        (Tree::new(), watts(), "estimate", "is an estimate"),
        (Tree::new(), None, "none", "--estimate"),
        (unreadable(), None, "error", "run dlpm as root"),
        (unreadable(), watts(), "error", "run dlpm as root"),
        (
            Tree::new().pmu(4_000_000, "0", &[("energy-pkg", 2)]),
            watts(),
            "error",
            "CAP_PERFMON",
        ),
    ] {
        let (meter, text) = found(&tree, Auto, estimate);
        assert_eq!(meter, word, "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn what_is_asked_for_is_used_or_is_an_error_with_the_next_step() {
    if !perf_allowed() {
        return;
    }
    use EnergySource::{Estimate, Perf, Powercap};
    for (tree, wanted, estimate, word, says) in [
        (with_pmu(laptop()), Powercap, None, "powercap", ""),
        (with_pmu(laptop()), Perf, None, "perf", ""),
        (with_pmu(laptop()), Estimate, watts(), "estimate", "is an estimate"),
        (laptop(), Perf, watts(), "error", "--energy-source auto"),
        (with_pmu(Tree::new()), Powercap, watts(), "error", "intel_rapl_msr"),
        (laptop(), Estimate, None, "error", "--estimate idle=W,busy=W"),
    ] {
        let (meter, text) = found(&tree, wanted, estimate);
        assert_eq!(meter, word, "{text}");
        assert!(text.contains(says), "{text}");
    }
}
