//! Energy from a powercap tree of files whose counters move by a known model, through the whole program.

use dlpm_tests::{
    command::Dlpm,
    log::{LOG_NAME, Log, Sample, number},
    powercap::{LARGE_RANGE_UJ, Powercap, Zone, node},
    require_dlpm,
};

/// Ranges that each counter goes through several times in 62 intervals of 50 ms.
fn node_that_wraps() -> Vec<Zone> {
    let wraps = |zone: Zone| {
        let (own_mw, mw) = match zone.name {
            // So little beside its parts that these are often ahead of it in a reading.
            "package-0" => (100, 70_100),
            _ => (zone.own_mw, zone.own_mw),
        };
        // With a line a counter may go on by an eighth of its range: 80 ms at its power.
        let range_uj = mw * 640;
        Zone {
            own_mw,
            range_uj,
            ..zone
        }
    };
    node().into_iter().map(wraps).collect()
}

/// The zone of the log that is split from, or is, the counter with this name.
fn in_the_log(name: &str) -> &str {
    match name {
        "core" => "package-0/core",
        "uncore" => "package-0/uncore",
        "dram" => "dram-0",
        root => root,
    }
}

#[test]
fn all_rows_add_up_to_what_the_counters_counted() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut tree = Powercap::paced_by(node_that_wraps(), &folder.join(LOG_NAME));
    let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
    dlpm.wait_for_lines(&folder, 75);
    // On a machine that is very busy the counters are slow, too.
    dlpm.wait_until("wraps", || {
        node().iter().all(|zone| tree.history(zone.name).wraps() >= 3)
    });
    dlpm.end_with(libc::SIGTERM).exited(0);
    tree.stop();

    let log = Log::read(&folder);
    log.is_complete();
    assert!(log.samples.len() >= 60, "{} intervals", log.samples.len());
    for zone in node_that_wraps() {
        let history = tree.history(zone.name);
        let of_log: Vec<_> = log
            .samples
            .iter()
            .map(|sample| (sample, sample.zone(in_the_log(zone.name)).unwrap()))
            .collect();
        // What the tree says, by its own record, at each reading.
        let totals: Vec<u64> = of_log
            .iter()
            .map(|(sample, of_log)| {
                assert_eq!(number(&of_log["range_uj"]), zone.range_uj);
                history.total_at(number(&of_log["counter_uj"]), sample.end_ns())
            })
            .collect();
        let energies: Vec<u64> = of_log.iter().map(|(_, zone)| number(&zone["energy_uj"])).collect();
        for (index, pair) in totals.windows(2).enumerate() {
            assert_eq!(
                energies[index + 1],
                pair[1] - pair[0],
                "{} in interval {}",
                zone.name,
                index + 1
            );
        }
        let first = totals[0] - energies[0];
        assert!(
            history.was(first),
            "{} was never {first} before the first interval",
            zone.name
        );

        // The same from the log alone, where a counter that fell has wrapped once.
        let counters: Vec<u64> = of_log.iter().map(|(_, zone)| number(&zone["counter_uj"])).collect();
        let wraps = counters.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        assert!(wraps >= 2, "{} wrapped {wraps} times", zone.name);
        let last = counters[counters.len() - 1];
        let counted = wraps * (zone.range_uj + 1) + last - counters[0];
        assert_eq!(energies[1..].iter().sum::<u64>(), counted, "{}", zone.name);

        // And the joules of all rows, over the whole run.
        let moved = i128::from(totals[totals.len() - 1] - first);
        let leaves: &[&str] = match zone.name {
            "package-0" => &["package-0/core", "package-0/uncore", "package-0/rest"],
            "psys" => continue,
            _ => &[in_the_log(zone.name)],
        };
        let rows: u64 = log
            .samples
            .iter()
            .flat_map(|sample| leaves.iter().map(|leaf| sample.rows_uj(leaf)))
            .sum();
        let (_, of_last) = of_log[of_log.len() - 1];
        // The parts of a package may be ahead of it at the end: then the carry says by how much.
        let carry = i128::from(of_last.get("carry_uj").map_or(0, |carry| carry.as_i64().unwrap()));
        assert_eq!(i128::from(rows), moved - carry, "{}", zone.name);
    }
    let carried = |sample: &&Sample| sample.zone("package-0").unwrap()["carry_uj"].as_i64().unwrap() < 0;
    assert!(
        log.samples.iter().filter(carried).count() > 0,
        "no part was ever ahead of its package"
    );
    let labelled = log.samples.iter().all(|sample| {
        sample
            .zones()
            .iter()
            .all(|zone| zone["source"] == "powercap" && zone["method"] != "estimate")
    });
    assert!(labelled);
}

#[test]
fn a_counter_that_starts_again_is_invalid_and_ends_the_segment() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
    dlpm.wait_for_lines(&folder, 3);
    tree.stop();
    // As after the driver was loaded again: far below, where no wrap can have brought it.
    let core = tree.directory("intel-rapl:0:0");
    std::fs::write(core.join("new"), "17\n").unwrap();
    std::fs::rename(core.join("new"), core.join("energy_uj")).unwrap();
    dlpm.wait_for_lines(&folder, 10);
    dlpm.end_with(libc::SIGINT).exited(0);

    let log = Log::read(&folder);
    log.is_complete();
    // Later it may be invalid again, since it stands still.
    let resets = log.samples.iter().filter(|sample| {
        let reason = &sample.zone("package-0/core").unwrap()["reason"];
        reason.as_str().is_some_and(|reason| reason.contains("reset"))
    });
    assert_eq!(resets.count(), 1);
    assert!(log.segments >= 3, "{} segments", log.segments);
    assert!(
        log.events.iter().any(|event| event["event"] == "zones_changed"),
        "{:?}",
        log.events
    );
    assert!(number(&log.samples[0].zone("package-0/core").unwrap()["range_uj"]) == LARGE_RANGE_UJ);
}

#[test]
fn an_estimate_is_called_one_everywhere() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let tree = Powercap::start(Vec::new());
    let output = Dlpm::trace(&folder)
        .args(["--duration", "300ms", "--estimate", "idle=20,busy=3.5", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0)
        .says(&["estimate"]);
    let headline = output.stdout.lines().find(|line| line.contains(" J: ")).unwrap();
    assert!(headline.contains("used an estimated "), "{}", output.stdout);

    let log = Log::read(&folder);
    log.is_complete();
    assert!(
        log.metadata["dlpm"].to_string().contains("estimate"),
        "{}",
        log.metadata
    );
    for sample in &log.samples {
        let root = sample.zone("machine").unwrap();
        let leaf = sample.zone("machine/rest").unwrap();
        assert_eq!(sample.zones().len(), 2);
        for zone in [root, leaf] {
            assert_eq!(
                (&zone["source"], &zone["method"]),
                (&"estimate".into(), &"estimate".into())
            );
        }
        // mW · ns are 1e-12 J; 20 W for the time, 3.5 W for each busy CPU.
        let busy_ns = sample.over_cpus("busy_ns") + sample.over_cpus("lost_ns");
        let picojoules = 20_000 * (sample.end_ns() - sample.begin_ns()) + 3_500 * busy_ns;
        assert_eq!(number(&root["energy_uj"]), (picojoules + 500_000) / 1_000_000);
        for key in ["intel_power", "rel_intel_power"] {
            assert!(sample.cpu.contains_key(key), "{key}");
        }
        for key in ["total_cpu_power", "psys_power", "total_dram_power", "uncore_power"] {
            assert!(!sample.cpu.contains_key(key), "{key}");
        }
    }
}

#[test]
fn a_meter_wins_over_an_estimate() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let tree = Powercap::start(node());
    let output = Dlpm::trace(&folder)
        .args(["--duration", "200ms", "--estimate", "idle=20,busy=3.5", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0)
        .says(&["--estimate is not"]);
    assert!(!output.stdout.contains("stimated"), "{}", output.stdout);
    let log = Log::read(&folder);
    assert!(log.samples.iter().all(|sample| sample.zone("machine").is_none()));
    assert!(
        log.samples
            .iter()
            .all(|sample| sample.zone("package-0").unwrap()["method"] == "measured")
    );
}

#[test]
fn without_a_meter_time_is_traced_and_energy_left_out() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let tree = Powercap::start(Vec::new());
    let output = Dlpm::trace(&folder)
        .args(["--duration", "300ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    let warnings: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("energy counter"))
        .collect();
    assert_eq!(warnings.len(), 1, "{}", output.stderr);
    assert!(warnings[0].contains("--estimate"), "{}", output.stderr);
    assert!(!output.stdout.contains("energy J"), "{}", output.stdout);
    let log = Log::read(&folder);
    assert!(log.is_complete().samples.len() >= 3);
    for sample in &log.samples {
        assert!(sample.zones().is_empty());
        assert!(!sample.cpu.keys().any(|key| key.contains("power")), "{:?}", sample.cpu);
    }
}

#[test]
fn a_zone_that_cannot_be_read_is_named_and_the_others_are_split() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let tree = Powercap::start(node().into_iter().filter(|zone| zone.name != "dram").collect());
    let dram = tree.directory("intel-rapl:0:2");
    std::fs::create_dir_all(dram.join("energy_uj")).unwrap();
    std::fs::write(dram.join("name"), "dram\n").unwrap();
    Dlpm::trace(&folder)
        .args(["--duration", "200ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    let log = Log::read(&folder);
    for sample in &log.samples {
        let dram = sample.zone("dram-0").unwrap();
        assert!(dram["reason"].as_str().unwrap().contains("energy_uj"), "{dram}");
        assert!(sample.cpu.contains_key("intel_power") && !sample.cpu.contains_key("total_dram_power"));
    }
}
