//! `dlpm report`, `dlpm result` and `dlpm convert` on logs that were traced, and on those that are none.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dlpm_tests::{
    command::{Dlpm, NOBODY, give, world_readable},
    gpu::{FakeNvml, gpu, process},
    gpu_trace::{Sleeper, of_pid, row_uj, trace},
    log::{LOG_NAME, Log, number},
    powercap::{Powercap, node},
    require_dlpm,
};
use serde_json::Value;
use tempfile::TempDir;

/// Two traces in one log, with meters in files.
fn traced() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    world_readable(&folder);
    let meters = Powercap::start(node());
    for append in [false, true] {
        let mut trace = Dlpm::trace(&folder.path().join("log"))
            .arg("--sysfs")
            .arg(meters.sysfs());
        if append {
            trace = trace.arg("--append");
        }
        let output = trace
            .args([
                "--each",
                "--",
                "/bin/sh",
                "-c",
                "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 0.2",
            ])
            .run()
            .exited(0);
        // The first line that is not a note.
        let mut lines = output.stderr.lines().filter(|line| !line.starts_with("dlpm: "));
        let headline = lines.find(|line| !line.is_empty()).unwrap();
        assert!(
            headline.starts_with("`sh -c i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sle…` used ")
                && headline.contains(" J: ")
                && headline.contains(" of the "),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains("\nProcesses"), "{}", output.stderr);
    }
    folder
}

fn report(folder: &Path, args: &[&str]) -> String {
    Dlpm::new(["report"]).arg(folder).args(args).run().exited(0).stdout
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&report(folder, &[args, &["--format", "json"]].concat())).unwrap()
}

fn sum<'a>(values: impl IntoIterator<Item = &'a Value>, field: &str) -> u64 {
    values.into_iter().map(|value| number(&value[field])).sum()
}

#[test]
fn a_report_is_the_sum_of_the_log() {
    require_dlpm!();
    let folder = traced();
    let folder = folder.path().join("log");
    let log = Log::read(&folder);
    let all = json(&folder, &[]);
    let exact: Vec<&Value> = log.samples.iter().map(|sample| &sample.exact).collect();
    assert_eq!(number(&all["intervals"]), exact.len() as u64);
    assert_eq!(
        (number(&all["traces"]), number(&all["segments"])),
        (2, log.segments as u64)
    );
    let length: u64 = exact
        .iter()
        .map(|exact| number(&exact["end_ns"]) - number(&exact["begin_ns"]))
        .sum();
    assert_eq!(number(&all["duration_ns"]), length);
    let zones = all["zones"].as_array().unwrap();
    for zone in zones {
        let of_zone = |exact: &&Value| -> u64 {
            let zones = exact["zones"].as_array().unwrap().iter();
            zones
                .filter(|written| written["zone"] == zone["zone"] && written["role"] == zone["role"])
                .map(|written| written["energy_uj"].as_u64().unwrap_or(0))
                .sum()
        };
        let expected: u64 = exact.iter().map(of_zone).sum();
        assert_eq!(zone["energy_uj"].as_u64().unwrap_or(0), expected, "{zone}");
    }
    let leaves: u64 = zones
        .iter()
        .filter(|zone| zone["role"] == "leaf")
        .map(|zone| zone["energy_uj"].as_u64().unwrap_or(0))
        .sum();
    assert!(leaves > 0);
    assert_eq!(number(&all["energy"]["energy_uj"]), leaves);
    assert_eq!(all["energy"]["closes"], true);
    let processes = all["processes"].as_array().unwrap();
    assert_eq!(sum(processes, "energy_uj"), leaves);
    let rows = exact.iter().flat_map(|exact| exact["rows"].as_array().unwrap());
    assert_eq!(sum(processes, "cpu_ns"), sum(rows, "cpu_ns"));
    // Both halves, and nothing twice.
    let half = length / 2;
    let at = format!("+{half}ns");
    let parts = [json(&folder, &["--to", &at]), json(&folder, &["--from", &at])];
    let energy: u64 = parts.iter().map(|part| number(&part["energy"]["energy_uj"])).sum();
    assert_eq!(energy, leaves);

    let text = report(&folder, &[]);
    for says in [
        "The balance closes",
        "The listed processes used ",
        "Measured, by method cpu_time",
        "idle policy proportional",
        "Biggest consumers",
        "peak W is the highest average of one interval",
    ] {
        assert!(text.contains(says), "{text}");
    }
    let csv = report(&folder, &["--by", "process", "--format", "csv"]);
    assert_eq!(csv.lines().count(), processes.len() + 1);
    assert!(csv.starts_with("row,tgid,start_ns,comm,cgroup,cpu_ns,"), "{csv}");
    assert!(
        csv.lines()
            .next()
            .unwrap()
            .contains("idle_policy,idle_time_share,methods"),
        "{csv}"
    );
    let list = report(&folder, &["--list"]);
    assert!(
        list.contains("intel_power") && list.contains("zone:package-0"),
        "{list}"
    );
    let carbon = report(&folder, &["--carbon", "50", "--pue", "1.5"]);
    assert!(carbon.contains("kWh x PUE 1.5 x 50 gCO2e/kWh = "), "{carbon}");
}

#[test]
fn a_gpu_is_shown_with_its_processes() {
    require_dlpm!();
    let sleepers = Sleeper::many(2);
    let processes = vec![process(sleepers[0].pid(), 63), process(sleepers[1].pid(), 27)];
    let fake = FakeNvml::of(vec![gpu(0, 300, processes)]);
    let traced = trace(&fake, 1500, &[]);
    let folder = traced.folder.path().join("log");
    let all = json(&folder, &[]);
    let zone = all["zones"]
        .as_array()
        .unwrap()
        .iter()
        .find(|zone| zone["kind"] == "gpu")
        .unwrap();
    let rows = all["gpus"].as_array().unwrap();
    assert_eq!(sum(rows, "energy_uj"), number(&zone["energy_uj"]));
    let pids: Vec<u64> = rows.iter().take(2).map(|row| number(&row["tgid"])).collect();
    assert_eq!(pids, [u64::from(sleepers[0].pid()), u64::from(sleepers[1].pid())]);
    assert!(number(&rows[0]["sm_percent_us"]) > number(&rows[1]["sm_percent_us"]));
    let of_log: u64 = traced
        .log
        .samples
        .iter()
        .map(|sample| row_uj(sample, of_pid(sleepers[0].pid()), 0))
        .sum();
    assert_eq!(number(&rows[0]["energy_uj"]), of_log);
    let text = report(&folder, &["--by", "gpu"]);
    assert!(
        text.contains("GPUs and the listed processes on them") && text.contains("total"),
        "{text}"
    );
}

/// A log by hand: two seconds, 10 J each for python, of which the first is phase `train`.
fn by_hand() -> TempDir {
    let interval = |seq: u64| {
        format!(
            "{{\"date\":\"2026-01-01 00:00:0{}.000000+00:00\",\"metrics\":{{\"cpu\":{{\"per_process_cpu_uses\":{{}}}}}},\
             \"dlpm\":{{\"schema\":1,\"seq\":{seq},\"begin_ns\":{}000000000,\"end_ns\":{}000000000,\"energy_skew_ns\":0,\
             \"seal_ns\":1,\"identity\":\"start_time\",\"cpus\":[{{\"cpu\":0,\"package\":0,\"interval_ns\":1000000000,\
             \"busy_ns\":250000000,\"idle_ns\":750000000,\"lost_ns\":0,\"smt_shared_ns\":0,\"switches\":1}}],\
             \"zones\":[{{\"zone\":\"machine\",\"role\":\"root\",\"kind\":\"machine\",\"energy_uj\":10000000,\
             \"source\":\"estimate\",\"state\":\"ok\",\"method\":\"estimate\"}},{{\"zone\":\"machine/rest\",\"role\":\"leaf\",\
             \"kind\":\"rest\",\"energy_uj\":10000000,\"source\":\"estimate\",\"state\":\"ok\",\"method\":\"estimate\"}}],\
             \"idle_policy\":\"proportional\",\"smt_weight_permille\":550,\"rows\":[{{\"row\":\"process\",\"tgid\":7,\
             \"start_ns\":1,\"comm\":\"python3\",\"exec_comm\":\"python3\",\"cgroup\":\"/\",\"exited\":false,\
             \"cpu_ns\":250000000,\"by_package\":{{\"0\":{{\"cpu_ns\":250000000,\"smt_shared_ns\":0}}}},\
             \"energy_uj\":{{\"machine/rest\":10000000}}}},{{\"row\":\"idle\",\"cpu_ns\":750000000,\
             \"by_package\":{{\"0\":{{\"cpu_ns\":750000000,\"smt_shared_ns\":0}}}},\"energy_uj\":{{\"machine/rest\":0}}}}],\
             \"cgroups\":[{{\"cgroup\":\"/\",\"cpu_ns\":250000000,\"energy_uj\":{{\"machine/rest\":10000000}}}}]}}}}\n",
            seq + 1,
            seq + 5,
            seq + 6
        )
    };
    let phase = |event: &str, seq: u64| {
        format!(
            "{{\"metrics\":{{}},\"dlpm\":{{\"schema\":1,\"event\":\"phase_{event}\",\"seq\":{seq},\"at_ns\":1,\
             \"label\":\"train\"}}}}\n"
        )
    };
    let end = "\"END OF RECORDING SEGMENT\"\n";
    let log = phase("begin", 0) + &interval(0) + &phase("end", 1) + &interval(1) + end;
    let folder = tempfile::tempdir().unwrap();
    world_readable(&folder);
    fs::write(folder.path().join(LOG_NAME), log).unwrap();
    folder
}

#[test]
fn phases_models_and_carbon_are_computed_from_the_ledger() {
    let folder = by_hand();
    let folder = folder.path();
    let all = json(folder, &["--carbon", "360", "--pue", "2"]);
    assert_eq!(number(&all["energy"]["listed_uj"]), 20_000_000);
    assert_eq!(all["estimate"], true);
    assert_eq!(all["idle_time_share"], 0.75);
    // 20 J are 5.5556e-6 kWh; twice that, at 360 g, are 4 mg.
    assert!(
        (all["carbon"]["grams"].as_f64().unwrap() - 0.004).abs() < 1e-12,
        "{all}"
    );
    let phases = all["phases"].as_array().unwrap();
    let rows: Vec<(&Value, u64, u64)> = phases
        .iter()
        .map(|phase| {
            (
                &phase["phase"],
                number(&phase["intervals"]),
                number(&phase["listed_uj"]),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [(&Value::from("train"), 1, 10_000_000), (&Value::Null, 1, 10_000_000)]
    );
    let train = json(folder, &["--phase", "train"]);
    assert_eq!(
        (number(&train["intervals"]), number(&train["intervals_outside"])),
        (1, 1)
    );
    fs::write(
        folder.join("model_summary.json"),
        "{\"total_params\": 9, \"total_mult_adds\": 500000, \"dlpm\": {\"unsupported_ops\": [\"Loop\"]}}",
    )
    .unwrap();
    let text = report(folder, &["--inferences", "1000", "--phase", "train"]);
    assert!(text.contains("at least 500000 multiply-adds"), "{text}");
    // 10 J for 1000 inferences of 500,000.
    assert!(
        text.contains("0.010000 J of the listed processes, all leaves; at most 20000.000 pJ for each multiply-add"),
        "{text}"
    );
    let text = report(folder, &["--by", "phase", "--inferences", "1000"]);
    assert!(
        text.contains("phases can overlap: their sum is not the total"),
        "{text}"
    );
    assert!(text.contains("(no phase)") && !text.contains("Biggest"), "{text}");
    // Half a line more: the trace is still writing.
    let log = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    fs::write(folder.join(LOG_NAME), format!("{log}{}", &log[..400])).unwrap();
    assert!(report(folder, &[]).contains("the last line is not whole"));
}

#[test]
fn results_are_related_to_energy() {
    let folder = by_hand();
    give(folder.path(), NOBODY);
    let add = |values: &[&str]| Dlpm::new(["result"]).arg(folder.path()).args(values);
    add(&["accuracy=0.5", "loss=2", "--date", "2026-01-01 00:00:00.500000+00:00"])
        .through_sudo_of(NOBODY)
        .run()
        .exited(0);
    add(&["accuracy=0.75", "loss=1", "--date", "1767225602"])
        .through_sudo_of(NOBODY)
        .run()
        .exited(0);
    let file = folder.path().join("results_exp.json");
    assert_eq!(fs::metadata(&file).unwrap().uid(), NOBODY);
    assert_eq!(dlpm::verify::files::check(folder.path()), [""; 0]);
    // 5 J until the first, 20 J until the second.
    let all = json(
        folder.path(),
        &[
            "--reach",
            "accuracy=0.7",
            "--reach",
            "loss=1.5",
            "--reach",
            "accuracy=0.9",
        ],
    );
    let reach = all["results"]["reach"].as_array().unwrap();
    let joules = |position: usize| reach[position]["listed_joules"].as_f64().unwrap();
    assert!(
        (joules(0) - 17.0).abs() < 1e-9 && (joules(1) - 12.5).abs() < 1e-9,
        "{all}"
    );
    assert_eq!(reach[2]["reached"], false);
    let text = report(folder.path(), &["--reach", "accuracy=0.7"]);
    assert!(
        text.contains("accuracy = 0.7 after 17.000 J of the listed processes"),
        "{text}"
    );
    assert!(
        text.contains("Result accuracy: 0.75 after 20.000 J") && text.contains("37.500000 per kJ"),
        "{text}"
    );

    let before = fs::read(&file).unwrap();
    add(&["accuracy=nan"]).run().exited(2).says(&["accuracy is NaN"]);
    add(&["accuracy"])
        .run()
        .exited(2)
        .says(&["not of the form METRIC=VALUE"]);
    add(&["intel_power=1"])
        .run()
        .fails(1, &["cannot be called `intel_power`", "choose another name"]);
    add(&["a=1", "a=2"]).run().fails(1, &["given twice"]);
    add(&["a=1", "--date", "+10m"]).run().fails(1, &["give --date a date"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    fs::write(&file, "{\"date\": \"2026-01-01\", \"metrics\": {}}\n").unwrap();
    let parts = ["results_exp.json cannot be continued", "move it away"];
    add(&["a=1"]).run().fails(1, &parts);
    assert!(fs::read_to_string(&file).unwrap().contains("metrics"));
    let report = |args: &[&str]| Dlpm::new(["report"]).arg(folder.path()).args(args).run();
    report(&[]).fails(1, &["results_exp.json cannot be read", "move it away"]);
    fs::remove_file(&file).unwrap();
    report(&["--reach", "f1=1"]).fails(1, &["there are no results", "dlpm result DIR f1="]);
    let nowhere = folder.path().join("nowhere");
    Dlpm::new(["result"])
        .arg(&nowhere)
        .arg("a=1")
        .run()
        .fails(1, &["nowhere", "dlpm trace --output"]);
    assert!(!nowhere.exists());
}

#[test]
fn a_converted_log_is_what_was_asked_for() {
    let folder = by_hand();
    let source = folder.path();
    let output = |name: &str| source.join(name);
    let convert = |to: &PathBuf, args: &[&str]| Dlpm::new(["convert"]).arg(source).arg("-o").arg(to).args(args);
    convert(&output("a"), &["--naive-dates", "--no-marker", "--strip-exact"])
        .run()
        .exited(0);
    let log = fs::read_to_string(output("a").join(LOG_NAME)).unwrap();
    let expected = |second: u32| {
        format!(
            "{{\"date\":\"2026-01-01 00:00:0{second}.000000\",\"metrics\":{{\"cpu\":{{\"per_process_cpu_uses\":{{}}}}}}}}\n"
        )
    };
    assert_eq!(log, expected(1) + &expected(2));

    convert(&output("a"), &["--naive-dates"])
        .run()
        .fails(1, &["not empty", "--output"]);
    convert(&output("b"), &[])
        .run()
        .fails(1, &["there is nothing to change"]);
    let path = source.join(LOG_NAME);
    let once = fs::read_to_string(&path).unwrap();
    fs::write(&path, once.repeat(2)).unwrap();
    convert(&output("b"), &["--no-marker"])
        .run()
        .fails(1, &["several segments", "--split"]);
    assert!(!output("b").exists());
    convert(&output("b"), &["--no-marker", "--split"]).run().exited(0);
    for segment in ["segment-1", "segment-2"] {
        let log = fs::read_to_string(output("b").join(segment).join(LOG_NAME)).unwrap();
        assert_eq!((log.lines().count(), log.contains("END OF")), (2, false));
    }
    convert(&output("c"), &["--split"]).run().exited(0);
    let first = fs::read_to_string(output("c/segment-1").join(LOG_NAME)).unwrap();
    assert_eq!(first, once);
    fs::write(&path, format!("{once}broken\n{once}")).unwrap();
    convert(&output("d"), &["--naive-dates"])
        .run()
        .fails(1, &[":6: it is not JSON"]);
    assert!(!output("d").exists());
}

#[test]
fn what_cannot_be_reported_says_what_to_do() {
    let folder = by_hand();
    let report = |args: &[&str]| Dlpm::new(["report"]).arg(folder.path()).args(args).run();
    report(&["--phase", "eval"]).fails(1, &["there is no phase `eval`", "it has train"]);
    report(&["--from", "+1h"]).fails(1, &["none of the 2 intervals", "leave out --from"]);
    for wrong in ["yesterday", "+1", "-5"] {
        report(&["--from", wrong]).exited(2).says(&["is not a time", "+10m"]);
    }
    report(&["--pue", "0.5"]).exited(2).says(&["is not a PUE"]);
    report(&["--carbon", "-1"]).exited(2);
    report(&["--inferences", "0"]).exited(2);
    report(&["--list", "--by", "process"]).exited(2);
    let missing = folder.path().join("missing");
    Dlpm::new(["report"])
        .arg(&missing)
        .run()
        .fails(1, &["missing", "give the folder"]);
    let log = folder.path().join(LOG_NAME);
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, "").unwrap();
    report(&[]).fails(1, &["holds no interval yet"]);
    fs::write(&log, text.replace("phase_", "other_")).unwrap();
    report(&["--phase", "train"]).fails(1, &["has no phases", "dlpm mark"]);
    fs::write(&log, format!("{text}\u{1b}[2J\n{text}")).unwrap();
    report(&[]).fails(1, &[":6: it is not JSON", "dlpm verify"]);
}

#[test]
fn a_log_of_aipowermeter_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let sample = |second: u32, watts: u32| {
        format!(
            "{{\"date\": \"2023-07-27 17:21:{second:02}.146517\", \"metrics\": {{\"cpu\": {{\"per_process_cpu_uses\": \
             {{\"9\": 0.5}}, \"intel_power\": {watts}, \"psys_power\": -1, \"rel_intel_power\": {{\"9\": 4.5}}}}}}}}\n"
        )
    };
    let log = sample(1, 90) + &sample(3, 10) + &sample(4, 20) + "\"END OF RECORDING SEGMENT\"\n";
    fs::write(folder.path().join(LOG_NAME), log).unwrap();
    let text = report(folder.path(), &[]);
    assert!(
        text.contains("Recorded by AIPowerMeter: 3 samples over 3.000 s"),
        "{text}"
    );
    assert!(text.contains("have no exact part") && !text.contains("psys"), "{text}");
    let all = json(folder.path(), &[]);
    assert_eq!(all["energy"], Value::Null);
    assert_eq!(all["aipowermeter"]["zones"][0]["joules"], 40.0);
    assert_eq!(all["aipowermeter"]["processes"][0]["package_joules"], 13.5);
    let csv = report(folder.path(), &["--format", "csv"]);
    assert!(
        csv.starts_with("zone,joules,") && csv.contains("\npackage,40,3,"),
        "{csv}"
    );
}
