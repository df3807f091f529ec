//! ACPI's power meters under Grace's names, by the kernel's own driver: `tests/kernel-module/power-meter.asl` says what they
//! draw at each moment.

use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::clock::monotonic_ns;
use rustix::system::finit_module;

use crate::{
    command::Dlpm,
    log::{Log, number},
};

const DRIVER: &str = "/acpi_power_meter.ko";
const METER: &str = "/sys/bus/acpi/devices/ACPI000D:00/power1_average";

/// The table's power in the second `second` of its timer, in W.
fn watts(second: u64) -> u64 {
    50 + second % 100
}

/// Seconds of the table's timer begin some time after those of the clock, less than one: how long, in ns.
fn phase_ns() -> u64 {
    let read = || -> u64 { fs::read_to_string(METER).unwrap().trim().parse().unwrap() };
    let (first, begun) = (read(), Instant::now());
    while read() == first {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the meter always shows {first} µW"
        );
        thread::sleep(Duration::from_millis(2));
    }
    let now_ns = monotonic_ns();
    let second = read() / 1_000_000 - 50;
    now_ns - second * 1_000_000_000
}

/// Energy of the table's first meter from one moment of the clock to another, in µJ.
fn closed_form_uj(phase_ns: u64, begin_ns: u64, end_ns: u64) -> u64 {
    let (mut at_ns, end_ns, mut energy_uj) = (begin_ns - phase_ns, end_ns - phase_ns, 0);
    while at_ns < end_ns {
        let second = at_ns / 1_000_000_000;
        let until_ns = end_ns.min((second + 1) * 1_000_000_000);
        energy_uj += watts(second) * (until_ns - at_ns) / 1000;
        at_ns = until_ns;
    }
    energy_uj
}

/// The joules of the log are those of the closed form, within 0.5 %: of the socket, which is split, and of the module, which
/// draws twice as much and is shown.
pub fn meters() {
    finit_module(File::open(DRIVER).unwrap(), c"", 0).unwrap();
    let phase_ns = phase_ns();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let output = Dlpm::new(["trace", "--interval", "500ms", "--duration", "12s", "--output"])
        .arg(&folder)
        .run();
    println!("{}{}", output.stdout, output.stderr);
    output.exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    for (name, times) in [("package-0", 1), ("module-0", 2)] {
        let (mut counted_uj, mut expected_uj) = (0, 0);
        // The first interval is as long as its first reading takes.
        for sample in &log.samples[1..] {
            let zone = sample.zone(name).unwrap();
            assert_eq!(
                (zone["state"].as_str(), zone["source"].as_str()),
                (Some("ok"), Some("hwmon_power")),
                "{zone}"
            );
            counted_uj += number(&zone["energy_uj"]);
            expected_uj += times * closed_form_uj(phase_ns, sample.begin_ns(), sample.end_ns());
        }
        println!("{name}: {counted_uj} µJ in the log, {expected_uj} µJ by the closed form");
        assert!(counted_uj.abs_diff(expected_uj) * 1000 < expected_uj * 5, "{name}");
    }
    // All rows together have the socket, to the microjoule, and nothing of the module.
    for sample in &log.samples {
        let of_rows = sample
            .rows()
            .iter()
            .flat_map(|row| row["energy_uj"].as_object().unwrap());
        let rows_uj: u64 = of_rows.map(|(_, energy_uj)| number(energy_uj)).sum();
        assert_eq!(rows_uj, number(&sample.zone("package-0").unwrap()["energy_uj"]));
    }
    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
}
