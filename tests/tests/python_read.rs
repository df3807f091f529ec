//! The package for Python: what it reads of logs.

use std::{env, fs, path::Path, process::Command};

use dlpm_tests::{
    command::program,
    kernel,
    python::{PRELUDE, package, said},
    require_program,
};

/// Names a Python with pandas; `cargo xtask test` makes one.
const PANDAS_PYTHON: &str = "DLPM_PANDAS_PYTHON";

/// Compares what it reads with `dlpm report`, folder by folder.
const COMPARE: &str = "
import json, subprocess
def by(entries, *names):
    return sorted(tuple(entry[name] for name in names) for entry in entries)
for folder in sys.argv[2:]:
    said = subprocess.run([sys.argv[1], 'report', folder, '--format', 'json'], stdout=subprocess.PIPE).stdout
    report = json.loads(said)
    log = dlpm.read(folder)
    for entry in (*log.totals, *log.phases):
        entry['uj'] = sum(entry['energy_uj'].values()) if entry['energy_uj'] else None
    assert sum(total['uj'] or 0 for total in log.totals) == report['energy']['energy_uj'], folder
    mine = by((t for t in log.totals if t['row'] == 'process'), 'tgid', 'start_ns', 'cgroup', 'cpu_ns', 'uj')
    theirs = (t for t in report['processes'] if t['row'] == 'process')
    assert mine == by(theirs, 'tgid', 'start_ns', 'cgroup', 'cpu_ns', 'energy_uj'), folder
    # `report` leaves out a phase that has no interval yet.
    phases = [phase for phase in log.phases if phase['begin_seq'] < phase['end_seq']]
    theirs = [phase for phase in report['phases'] if phase['phase'] is not None]
    assert by(phases, 'label', 'cpu_ns', 'uj') == by(theirs, 'phase', 'listed_cpu_ns', 'listed_uj'), folder
    for phase in phases:
        rows = [r for r in log.rows if phase['label'] in r['phases'] and r['row'] in ('process', 'merged')]
        assert sum(r['cpu_ns'] for r in rows) == phase['cpu_ns'] and phase['begin_ns'] < phase['end_ns'], folder
    zones = {zone['zone'] for zone in report['zones']}
    assert {zone['zone'] for zone in log.zones} == zones, folder
    print(len(log.rows), len(log.phases))
";

#[test]
fn what_it_reads_of_a_log_is_what_report_says() {
    require_program!();
    let recorded = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name);
    let (package, directory) = (package(), tempfile::tempdir().unwrap());
    let whole = fs::read_to_string(recorded("phases").join("power_metrics.json")).unwrap();
    // The same log in two files, and one whose last line was cut.
    let (rotated, cut) = (directory.path().join("rotated"), directory.path().join("cut"));
    for folder in [&rotated, &cut] {
        fs::create_dir(folder).unwrap();
    }
    let at = whole.match_indices('\n').nth(9).unwrap().0 + 1;
    fs::write(rotated.join("power_metrics.000001.json"), &whole[..at]).unwrap();
    let continues = r#"{"metrics":{},"dlpm":{"schema":1,"event":"continues","file":1,"lines":10,"sha256":"0"}}"#;
    fs::write(
        rotated.join("power_metrics.json"),
        format!("{continues}\n{}", &whole[at..]),
    )
    .unwrap();
    // Of another log: nothing continues it.
    fs::write(rotated.join("power_metrics.000002.json"), &whole).unwrap();
    fs::write(cut.join("power_metrics.json"), &whole[..whole.len() * 2 / 3]).unwrap();
    let mut command = Command::new("python3");
    command
        .args(["-B", "-W", "error", "-c", &format!("{PRELUDE}{COMPARE}")])
        .env("PYTHONPATH", package.path())
        .arg(program());
    let names = [
        "aliases", "estimate", "events", "filtered", "gpus", "lost", "phases", "switches",
    ];
    let (stdout, _) = said(command.args(names.map(recorded)).args([&rotated, &cut]));
    let counts: Vec<&str> = stdout.lines().collect();
    assert_eq!(counts.len(), names.len() + 2);
    assert_eq!(counts[names.len()], counts[6], "two files are one log");
    assert_ne!(counts[names.len() + 1], counts[6]);
}

#[test]
fn what_is_not_a_log_is_an_error_with_a_way_out() {
    let (package, place) = (package(), tempfile::tempdir().unwrap());
    let program = "
import pathlib
def fails(error, *parts):
    try:
        dlpm.read(sys.argv[1])
    except error as found:
        assert all(part in str(found) for part in parts), found
    else:
        raise AssertionError(parts)
log = pathlib.Path(sys.argv[1], 'power_metrics.json')
fails(dlpm.LogError, 'dlpm trace')
log.write_text('[1]\\n\"END OF RECORDING SEGMENT\"\\n')
assert dlpm.read(sys.argv[1]).rows == [] and dlpm.read(log.parent).totals == []
log.write_text('{not\\n{}\\n')
fails(dlpm.LogError, 'line 1 of', 'dlpm verify')
log.write_text('{}\\n{\"dlpm\": {\"seq\": 1}}\\n')
fails(dlpm.LogError, 'line 2 of', 'dlpm verify')
log.write_text('{\"dlpm\": {\"event\": \"continues\", \"file\": 1}}\\n')
assert dlpm.read(log.parent).rows == []
log.with_name('power_metrics.000001.json.zst').write_bytes(b'x')
if sys.version_info < (3, 14):
    fails(dlpm.LogError, 'dlpm convert', '--output')
try:
    dlpm.read(log.with_name('none'))
except OSError:
    pass
else:
    raise AssertionError
";
    let mut command = Command::new("python3");
    command
        .args(["-B", "-W", "error", "-c", &format!("{PRELUDE}{program}")])
        .env("PYTHONPATH", package.path());
    said(command.arg(place.path()));
}

#[test]
fn a_log_becomes_frames_with_pandas() {
    let Some(python) = env::var_os(PANDAS_PYTHON) else {
        return kernel::skip("DLPM_PANDAS_PYTHON names no Python with pandas; `cargo xtask test` sets it");
    };
    let package = package();
    let program = "
import dlpm, sys
log = dlpm.read(sys.argv[1])
frame = log.rows.frame()
assert len(frame) == len(log.rows) and frame['energy_uj.dram-0'].sum() > 0
assert list(log.phases.frame()['label']) == [phase['label'] for phase in log.phases]
assert log.totals.frame()['joules'].sum() > 0 and len(log.zones.frame()) == len(log.zones)
";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/phases");
    let mut command = Command::new(python);
    command.args(["-B", "-c", program]).env("PYTHONPATH", package.path());
    said(command.arg(folder));
}
