//! `dlpm plot` as a command: what it draws, and what it says to wrong input.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::Dlpm,
    kernel::skip,
    output::Output,
    synthetic::{Ran, SECOND_NS, Synthetic},
};
use tempfile::TempDir;

/// Leaves the test where the program is not named; it needs no kernel.
macro_rules! require_program {
    () => {
        if std::env::var_os("DLPM_BIN").is_none() {
            return skip("DLPM_BIN does not name the built program; `cargo xtask test` sets it");
        }
    };
}

fn ran<'a>(tgid: u32, comm: &'a str, cgroup: &'a str, permille: u64) -> Ran<'a> {
    Ran {
        tgid,
        comm,
        cgroup,
        permille,
    }
}

/// 40 s of 50 W and a phase from 10 to 20 s.
fn log() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Synthetic::new(folder.path());
    for second in 0..40 {
        match second {
            10 => log.phase("phase_begin", "train"),
            20 => log.phase("phase_end", "train"),
            _ => {}
        }
        let rows = [
            ran(4242, "python3", "/train.slice/a", 1000),
            ran(7, "sshd", "/system.slice", 250),
        ];
        log.interval(SECOND_NS, 50, &[200], &rows);
    }
    log.finish();
    folder
}

fn plot(log: &Path, metrics: &str, output: &Path) -> Dlpm {
    Dlpm::new(["plot"]).arg(log).args(["-m", metrics, "-o"]).arg(output)
}

/// The labels of the legend and of the axes.
fn texts(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text").skip(1).map(|text| text.split_once('>').unwrap().1);
    texts.map(|text| text.split_once("</text>").unwrap().0.trim()).collect()
}

/// The values of the one curve of this colour, drawn from 0 W at the bottom.
fn heights(svg: &str, color: &str) -> Vec<i32> {
    let curves = svg
        .split("<polyline")
        .skip(1)
        .filter(|curve| curve.contains(&format!("stroke=\"{color}\"")));
    let points = curves.map(|curve| curve.split_once("points=\"").unwrap().1.split_once('"').unwrap().0);
    points
        .flat_map(str::split_whitespace)
        .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
        .collect()
}

#[test]
fn plot_draws_what_was_asked_for() {
    require_program!();
    let log = log();
    let file = log.path().join("x.svg");
    let metrics = "intel_power,process:4242,cgroup:/train.slice,comm:sshd,zone:package-0/core,sm:0:4242";
    plot(log.path(), metrics, &file).run().exited(0);
    let svg = fs::read_to_string(&file).unwrap();
    let texts = texts(&svg);
    for label in metrics.split(',').chain(["power (W)", "use (%)", "train"]) {
        assert!(texts.contains(&label), "{label}: {texts:?}");
    }
    // Constant curves are level lines; the process has 4/5 of the package, and all of the GPU.
    let level = |color: &str| {
        let heights = heights(&svg, color);
        assert!(
            !heights.is_empty() && heights.iter().all(|height| *height == heights[0]),
            "{heights:?}"
        );
        heights[0]
    };
    let (package, process, cgroup) = (level("#0072B2"), level("#E69F00"), level("#009E73"));
    assert_eq!(process, cgroup);
    // The axis goes from 0 to 240 W and a little more, downwards in units of a quarter pixel.
    let watts_per_unit = (200.0 + 0.8 * 50.0 - 50.0) / f64::from(package - process);
    let sshd = level("#D55E00");
    let core = level("#56B4E9");
    let apart = |upper: i32, lower: i32| f64::from(lower - upper) * watts_per_unit;
    assert!((apart(package, core) - 20.0).abs() < 0.5, "{package} {core}");
    assert!((apart(core, sshd) - 20.0).abs() < 0.5, "{core} {sshd}");
}

#[test]
fn plot_writes_png_and_replaces_nothing_unasked() {
    require_program!();
    let log = log();
    let file = log.path().join("x.png");
    let draw = || plot(log.path(), "intel_power", &file).args(["--size", "400x300"]);
    draw().run().exited(0);
    let png = fs::read(&file).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    // Width and height in the header: two dots to a pixel.
    assert_eq!(
        (&png[16..20], &png[20..24]),
        (&800u32.to_be_bytes()[..], &600u32.to_be_bytes()[..])
    );
    fs::write(&file, "precious").unwrap();
    draw().run().fails(1, &["x.png exists", "--force"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    draw().arg("--force").run().exited(0);
    assert_eq!(fs::read(&file).unwrap(), png);
}

#[test]
fn plot_of_a_phase_and_of_a_time() {
    require_program!();
    let log = log();
    let svg = |arguments: &[&str]| {
        let file = log.path().join("x.svg");
        let plot = plot(log.path(), "intel_power", &file).args(["--size", "1600x300", "--force"]);
        plot.args(arguments).run().exited(0);
        fs::read_to_string(&file).unwrap()
    };
    // The ticks of the time axis; the other one has whole tens.
    let phase = svg(&["--phase", "train"]);
    assert!(
        texts(&phase).contains(&"9") && !texts(&phase).contains(&"15"),
        "{:?}",
        texts(&phase)
    );
    let time = svg(&["--from", "+10s", "--to", "+14s"]);
    assert!(
        texts(&time).contains(&"4.0") && !texts(&time).contains(&"5.0"),
        "{:?}",
        texts(&time)
    );
}

#[test]
fn plot_says_what_there_is() {
    require_program!();
    let log = log();
    let output: Output = Dlpm::new(["plot"]).arg(log.path()).arg("--list").run().exited(0);
    for line in [
        "intel_power",
        "rel_intel_power:PID (4242, 7)",
        "sm:GPU:PID (0:4242)",
        "comm:NAME (python3, sshd)",
    ] {
        assert!(
            output.stdout.lines().any(|found| found == line),
            "{line}: {}",
            output.stdout
        );
    }
    let file = log.path().join("x.svg");
    let fails = |metrics: &str, parts: &[&str]| plot(log.path(), metrics, &file).run().fails(1, parts);
    fails(
        "psys_power",
        &["no `psys_power`", "intel_power", "zone:NAME (gpu-00000000, package-0"],
    );
    fails("process:99", &["no `process:99`", "process:PID (7, 4242)"]);
    fails("intel_power,sm:0:4242,memory:0:4242", &["two axes", "3 units"]);
    assert!(!file.exists());
    let typed = |metric: &str| plot(log.path(), metric, &file).run().exited(2).says(&["--help"]);
    typed("intel_pwer").says(&["intel_power"]);
    typed("sm:0").says(&["sm:GPU:PID"]);
    typed("row:everybody").says(&["row:kernel"]);
    plot(log.path(), "intel_power", &file)
        .args(["--phase", "test"])
        .run()
        .fails(1, &["no phase `test`", "train"]);
    plot(log.path(), "intel_power", &file)
        .args(["--from", "+1h"])
        .run()
        .fails(1, &["no interval"]);
    plot(log.path(), "intel_power", &log.path().join("x.pdf"))
        .run()
        .fails(1, &[".svg or .png"]);
    plot(&log.path().join("none"), "intel_power", &file)
        .run()
        .fails(1, &["cannot be read", "dlpm trace --output"]);
    assert!(!file.exists());
}

#[test]
fn plot_reads_what_aipowermeter_wrote() {
    require_program!();
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..10)
        .map(|second| {
            format!(
                "{{\"date\": \"2023-07-27 17:21:{second:02}.500000\", \"metrics\": {{\"cpu\": {{\"intel_power\": 20.0, \
                 \"psys_power\": -1, \"rel_intel_power\": {{\"1\": 5.0, \"2\": 7.0}}}}}}}}\n"
            )
        })
        .collect();
    let log = lines.concat() + "\"END OF RECORDING SEGMENT\"\n";
    fs::write(folder.path().join("power_metrics.json"), log).unwrap();
    let file = folder.path().join("x.svg");
    plot(folder.path(), "intel_power,rel_intel_power:2,rel_intel_power", &file)
        .run()
        .exited(0);
    let svg = fs::read_to_string(&file).unwrap();
    let (all, one, both) = (
        heights(&svg, "#0072B2")[0],
        heights(&svg, "#E69F00")[0],
        heights(&svg, "#009E73")[0],
    );
    assert!(all < both && both < one, "{all} {both} {one}");
    // -1 is how that tool says that there is none: a curve without values.
    plot(folder.path(), "psys_power", &file)
        .arg("--force")
        .run()
        .fails(1, &["psys_power", "no value"]);
}
