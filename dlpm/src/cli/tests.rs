//! What can be typed, and what is said about the rest.

use clap::CommandFactory;

use super::*;

fn trace(args: &[&str]) -> Result<TraceArgs, String> {
    let line = ["dlpm", "trace"].iter().chain(args);
    match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
        Command::Trace(args) => Ok(*args),
        _ => Err("another command".to_owned()),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn filters_can_be_given_several_times() {
    let args = trace(&[
        "--comm", "python", "--comm", "^sh$", "--pid", "7", "--", "python", "--pid", "x",
    ])
    .unwrap();
    assert_eq!(args.comm.len(), 2);
    assert_eq!(args.pid, [7]);
    assert_eq!(args.command, ["python", "--pid", "x"]);
}

#[test]
fn gpus_are_named_one_by_one_or_with_commas() {
    let selection = |args: &[&str]| trace(args).map(|args| args.machine.gpus.options(&args.machine.roots).selection);
    let named = |names: &[&str]| GpuSelection::Named(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(selection(&[]), Ok(GpuSelection::All));
    assert_eq!(selection(&["--gpu", "none"]), Ok(GpuSelection::None));
    assert_eq!(
        selection(&["--gpu", "0,GPU-7", "--gpu", "3"]),
        Ok(named(&["0", "GPU-7", "3"]))
    );
    assert_eq!(selection(&["--gpu", "0,all"]), Ok(GpuSelection::All));
    assert_eq!(selection(&["--gpu", "0", "--gpu", "none"]), Ok(GpuSelection::None));
    assert!(selection(&["--gpu", "0,"]).is_err());
}

#[test]
fn durations_need_a_unit_and_a_sensible_size() {
    assert_eq!(
        trace(&["--interval", "100ms"]).unwrap().interval,
        Duration::from_millis(100)
    );
    assert_eq!(
        trace(&["--duration", "1h 30m"]).unwrap().duration,
        Some(Duration::from_secs(5400))
    );
    for (bad, says) in [
        (["--interval", "0s"], "traces nothing"),
        (["--interval", "1ms"], "from 10ms to 1h"),
        (["--interval", "2h"], "from 10ms to 1h"),
        (["--interval", "5"], "with a unit"),
        (["--duration", "soon"], "with a unit"),
    ] {
        let message = trace(&bad).unwrap_err();
        assert!(message.contains(says), "{bad:?}: {message}");
    }
}

#[test]
fn smt_weights_are_thousandths_from_a_half_to_one() {
    for (text, permille) in [("0.5", 500), ("0.55", 550), ("0.625", 625), ("1", 1000), ("1.0", 1000)] {
        assert_eq!(trace(&["--smt-weight", text]).unwrap().machine.smt_weight, permille);
    }
    for bad in ["0.49", "1.001", "0.5555", "55%", "nan", "-1", ""] {
        let message = trace(&[&format!("--smt-weight={bad}")]).unwrap_err();
        assert!(message.contains("0.5 to 1"), "{bad}: {message}");
    }
}

#[test]
fn idle_policies_have_the_words_of_the_log() {
    assert_eq!(trace(&[]).unwrap().machine.idle_policy, IdleChoice::Auto);
    assert_eq!(
        trace(&["--idle-policy", "auto"]).unwrap().machine.idle_policy,
        IdleChoice::Auto
    );
    for policy in IdlePolicy::ALL {
        let typed = trace(&["--idle-policy", policy.as_str()]).unwrap().machine.idle_policy;
        assert_eq!(typed, IdleChoice::Named(policy));
    }
    let message = trace(&["--idle-policy", "fair"]).unwrap_err();
    assert!(message.contains("auto, proportional, separate, capacity"), "{message}");
}

#[test]
fn calibrations_have_a_length_and_a_limit() {
    let calibrate = |args: &[&str]| {
        let line = ["dlpm", "calibrate"].iter().chain(args);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Calibrate(args) => Ok(args),
            _ => Err("another command".to_owned()),
        }
    };
    assert_eq!(calibrate(&[]).unwrap().duration, Duration::from_secs(60));
    assert_eq!(calibrate(&["--max-busy", "12.5%"]).unwrap().max_busy, 12.5);
    for (bad, says) in [
        (["--max-busy", "101"], "between 0 and 100"),
        (["--duration", "1ms"], "from 1s to 1h"),
    ] {
        let message = calibrate(&bad).unwrap_err();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn the_energy_source_has_five_words() {
    assert_eq!(trace(&[]).unwrap().machine.energy_source, EnergySource::Auto);
    assert_eq!(
        trace(&["--energy-source", "perf"]).unwrap().machine.energy_source,
        EnergySource::Perf
    );
    let message = trace(&["--energy-source", "nvml"]).unwrap_err();
    assert!(message.contains("auto, powercap, perf, hwmon, estimate"), "{message}");
}

#[test]
fn a_bad_pattern_is_shown_with_its_place() {
    let message = trace(&["--comm", "py(thon"]).unwrap_err();
    assert!(
        message.contains("unclosed group") && message.contains("backslash"),
        "{message}"
    );
}

#[test]
fn append_needs_a_folder() {
    assert!(trace(&["--append"]).unwrap_err().contains("--output"));
    assert!(trace(&["--append", "--overwrite", "-o", "x"]).is_err());
}
