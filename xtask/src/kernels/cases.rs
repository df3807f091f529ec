//! What runs on other kernels, and what does not and why.

use super::Series;
use crate::targets::Arch;

/// Test programs of `tests/tests` that run in the machines with this processor.
pub fn programs(arch: Arch) -> Vec<&'static str> {
    let left_out = |name: &&str| left_out_of(arch).iter().any(|(left_out, _)| left_out == name);
    PROGRAMS.into_iter().filter(|name| !left_out(name)).collect()
}

/// Those of x86-64.
const PROGRAMS: [&str; 12] = [
    "time_law",
    "cgroups",
    "counters",
    "cpus",
    "maps",
    "measuring_cost",
    "processes",
    "race",
    "pace",
    "energy",
    "filters",
    "agent",
];

/// Of these programs only some tests run: the whole of dlpm once, and what asks the kernel. The others are about dlpm's own
/// doing, which is the same on every kernel, and each of its starts takes seconds in an emulated machine.
const SELECTED: [&str; 5] = [
    "agent::the_agent_holds_the_rights_that_it_needs",
    "energy::all_rows_add_up_to_what_the_counters_counted",
    "filters::a_command_with_a_daemon_that_forks_twice",
    "filters::a_path_below_the_mount_is_the_same_cgroup",
    "filters::a_pid_with_all_its_descendants",
];

/// Cases of `tests/src/guest/cases.rs` that run on every kernel.
const EVERYWHERE: [&str; 4] = ["static-keys", "hooks", "no-btf", "first-process"];

/// Cases that need a kernel module with energy meters.
const POWERCAP: [&str; 4] = ["cores", "powercap-permissions", "powercap", "powercap-errors"];

/// The series for which the module is built, on x86-64.
const POWERCAP_SERIES: &str = "6.1";

/// Cases for 64-bit Arm alone: the program as it is used, where x86-64 has the tests of `cargo xtask test` as well.
const ARM64: [&str; 1] = ["commands"];

/// Cases that need the kernel's own driver of ACPI's power meters and a table with some, and the series with that driver.
const ACPI: [&str; 1] = ["acpi-power"];
const ACPI_SERIES: &str = "6.1-generic";

/// The case that runs in two machines which count instructions, and the series that it runs on.
const REPEATED: (&str, &str) = ("repeats", "6.12");

/// What does not run on 64-bit Arm alone, and why.
const LEFT_OUT_OF_ARM64: &[(&str, &str)] = &[
    ("race", "idle CPUs are turned on x86-64 only: here all are interrupted"),
    ("pace", "idle CPUs are turned on x86-64 only: here all are interrupted"),
    ("cores", "the event is that of the driver for AMD's CPUs"),
    (
        "acpi-power",
        "Debian's kernels for arm64 are built without the driver (CONFIG_SENSORS_ACPI_POWER)",
    ),
    (
        "powercap-permissions, powercap, powercap-errors",
        "Debian's kernels for arm64 are built without powercap (CONFIG_POWERCAP), so no module can register a zone",
    ),
];

/// The cases of `tests/src/guest/cases.rs` for this processor and series.
pub fn of(arch: Arch, series: &Series) -> impl Iterator<Item = &'static str> {
    let powercap = POWERCAP.into_iter().filter(move |_| has_powercap(arch, series));
    let arm64 = ARM64.into_iter().filter(move |_| arch == Arch::Arm64);
    let acpi = ACPI.into_iter().filter(move |_| has_acpi_power(arch, series));
    EVERYWHERE.into_iter().chain(powercap).chain(acpi).chain(arm64)
}

/// Whether the module with energy zones is built for it.
pub fn has_powercap(arch: Arch, series: &Series) -> bool {
    arch == Arch::Amd64 && series.to_string() == POWERCAP_SERIES
}

/// Whether its machines have ACPI's power meters.
pub fn has_acpi_power(arch: Arch, series: &Series) -> bool {
    arch == Arch::Amd64 && series.to_string() == ACPI_SERIES
}

/// The case that two machines which count instructions must tell alike.
pub fn repeated(arch: Arch, series: &Series) -> Option<&'static str> {
    let (case, on) = REPEATED;
    (arch == Arch::Arm64 && series.to_string() == on).then_some(case)
}

/// What does not run on this processor although it runs on another, and why.
pub fn left_out_of(arch: Arch) -> &'static [(&'static str, &'static str)] {
    match arch {
        Arch::Amd64 => &[],
        Arch::Arm64 => LEFT_OUT_OF_ARM64,
    }
}

/// Test programs, and tests, that do not run there, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "time_law::threads_that_hop_between_cpus_are_one_process",
        "compares with the kernel's own count within 2 %, and emulation makes every switch dear",
    ),
    (
        "time_law::begins_while_processes_fork",
        "starts five times during a storm of processes, which takes minutes there; another test does so once",
    ),
    (
        "race::holds_while_cpus_leave_idle",
        "demands races, and an emulator runs one processor after the other; another test checks the same laws there",
    ),
    (
        "race::without_its_barrier_it_breaks",
        "an emulator need not keep stores back as a processor does",
    ),
    (
        "processes::the_last_exec_names_a_short_process",
        "busybox starts its own commands under the name `exe`",
    ),
    (
        "counters::weights_are_found_or_refused",
        "loads run for half a minute, and what they weigh does not depend on the kernel",
    ),
    (
        "energy, all but one",
        "the meters are files of the test, and not the kernel's",
    ),
    (
        "filters, all but three",
        "the choice of rows does not depend on the kernel",
    ),
    (
        "agent, all but one",
        "counters and their files do not depend on the kernel; which rights it needs does",
    ),
    (
        "accuracy",
        "compares with counts of the kernel, and emulation makes every switch dear",
    ),
    ("bad_input", "error messages do not depend on the kernel"),
    (
        "exit_codes",
        "how dlpm and its command end does not depend on the kernel",
    ),
    ("full_disk", "the writer of the log does not depend on the kernel"),
    ("interrupted", "the files of the log do not depend on the kernel"),
    (
        "siblings",
        "emulated CPUs have none; the overlap itself is tested by cpus",
    ),
    ("sudo", "whose files these are does not depend on the kernel"),
    ("verify", "the proof of a log does not depend on the kernel"),
    ("report", "what is read back from a log does not depend on the kernel"),
    ("html", "what is read back from a log does not depend on the kernel"),
    ("plot", "what is read back from a log does not depend on the kernel"),
    ("model", "files of models do not depend on the kernel"),
    ("model_command", "files of models do not depend on the kernel"),
    ("model_graphs", "files of models do not depend on the kernel"),
    ("model_kinds", "files of models do not depend on the kernel"),
    ("model_mutations", "files of models do not depend on the kernel"),
    (
        "recorded",
        "what is said of a recorded log does not depend on the kernel",
    ),
    ("mark", "a mark seals as the end of every interval does"),
    ("mark_python", "there is no Python in the machines"),
    ("python", "there is no Python in the machines"),
    ("python_keras", "there is no Python in the machines"),
    ("python_read", "there is no Python in the machines"),
    ("examples", "there is no Python in the machines"),
    ("mark_gpu", "a static program cannot load NVML"),
    ("mark_situations", "the files of the log do not depend on the kernel"),
    ("gpu", "a static program cannot load NVML"),
    ("gpu_options", "a static program cannot load NVML"),
    ("gpu_source", "a static program cannot load NVML"),
    ("gpu_source_faults", "a static program cannot load NVML"),
    ("gpu_driver_records", "a static program cannot load NVML"),
    ("signals", "how dlpm and its command end does not depend on the kernel"),
    ("timezone", "the zone of dates does not depend on the kernel"),
    ("hostile", "what is read back from a log does not depend on the kernel"),
    ("output", "what is written and how does not depend on the kernel"),
    (
        "mark_limits",
        "how many marks a trace takes does not depend on the kernel",
    ),
    ("meters", "the meters are files of the test, and not the kernel's"),
    ("hwmon", "the meters are files of the test, and not the kernel's"),
    ("cores", "the meters are files of the test, and not the kernel's"),
    ("validate", "the meters are files of the test, and not the kernel's"),
    (
        "fleet",
        "how lines of many nodes are added up does not depend on the kernel",
    ),
    ("job", "what is told of a job does not depend on the kernel"),
    ("messages", "what is said does not depend on the kernel"),
    ("rotate", "the files of the log do not depend on the kernel"),
    (
        "agent_sum",
        "what servers make of the counters does not depend on the kernel",
    ),
    (
        "agent_metrics",
        "what is served does not depend on the kernel, and there is no Prometheus in the machines",
    ),
    (
        "agent_web_limits",
        "what the network cannot do does not depend on the kernel",
    ),
    (
        "agent_socket",
        "what users see and are refused does not depend on the kernel",
    ),
    ("agent_socket_crowd", "how many are heard does not depend on the kernel"),
    ("agent_trace", "what a client writes does not depend on the kernel"),
    ("top", "what is drawn does not depend on the kernel"),
    ("history", "the files of the history do not depend on the kernel"),
    (
        "agent_otlp",
        "what a collector gets and cannot do does not depend on the kernel",
    ),
    ("agent_otlp_counters", "what is pushed does not depend on the kernel"),
    ("agent_web", "what the network gets does not depend on the kernel"),
    ("tenants", "names and paths of cgroups do not depend on the kernel"),
];

/// Whether a test of a program that runs there runs itself.
pub fn runs(program: &str, test: &str) -> bool {
    let name = format!("{program}::{test}");
    let some_only = SELECTED
        .iter()
        .any(|selected| selected.starts_with(&format!("{program}::")));
    (!some_only || SELECTED.contains(&name.as_str())) && LEFT_OUT.iter().all(|(left_out, _)| *left_out != name)
}

/// A test of this module's lists that is not among those of its program: it was renamed.
pub fn renamed(program: &str, tests: &[String]) -> Option<&'static str> {
    let named = SELECTED.into_iter().chain(LEFT_OUT.iter().map(|(name, _)| *name));
    let mut of_program = named.filter_map(|name| name.split_once("::").filter(|(owner, _)| *owner == program));
    of_program.find_map(|(_, test)| (!tests.iter().any(|there| there == test)).then_some(test))
}

/// A case that must fail, and what the verdict must then say.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// The case of `tests/src/guest/cases.rs`.
    pub case: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Part of the console or of the verdict.
    pub reason: &'static str,
}

/// The proof that a machine can fail.
pub const BROKEN: [Broken; 4] = [
    Broken {
        case: "illegal-access",
        about: "a program that reads beyond its arguments",
        reason: "invalid bpf_context access",
    },
    Broken {
        case: "kernel-panic",
        about: "a kernel that panics",
        reason: "Kernel panic",
    },
    Broken {
        case: "power-off",
        about: "a machine that ends without a word",
        reason: "without its line of success",
    },
    Broken {
        case: "hang",
        about: "a machine that hangs",
        reason: "did not end in time",
    },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_test_program_runs_or_is_left_out_for_a_reason() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
        let there: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
            .collect();
        let whole = LEFT_OUT
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !name.contains([':', ',']));
        let listed: BTreeSet<String> = PROGRAMS.into_iter().chain(whole).map(str::to_owned).collect();
        assert_eq!(listed, there);
    }

    #[test]
    fn each_processor_has_its_cases() {
        let cases = |arch, series: &str| of(arch, &series.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(cases(Arch::Amd64, "6.12"), EVERYWHERE);
        assert_eq!(cases(Arch::Amd64, "6.1").len(), EVERYWHERE.len() + POWERCAP.len());
        assert_eq!(cases(Arch::Amd64, "6.1-generic"), [&EVERYWHERE[..], &ACPI].concat());
        assert_eq!(cases(Arch::Arm64, "6.1"), [&EVERYWHERE[..], &ARM64].concat());
        // What one processor has and the other has not is said.
        let said = left_out_of(Arch::Arm64).iter().flat_map(|(names, _)| names.split(", "));
        let mut said: Vec<_> = said.collect();
        let mut of_others = [&POWERCAP[..], &ACPI, &["race", "pace"]].concat();
        said.sort_unstable();
        of_others.sort_unstable();
        assert_eq!(said, of_others);
        assert!(left_out_of(Arch::Amd64).is_empty());
        assert_eq!(programs(Arch::Amd64), PROGRAMS);
        assert_eq!(programs(Arch::Arm64).len() + 2, PROGRAMS.len());
        assert_eq!(repeated(Arch::Arm64, &"6.12".parse().unwrap()), Some("repeats"));
        assert_eq!(repeated(Arch::Arm64, &"6.12-16k".parse().unwrap()), None);
        assert_eq!(repeated(Arch::Amd64, &"6.12".parse().unwrap()), None);
    }

    #[test]
    fn tests_are_chosen_by_name() {
        for (program, test, expected) in [
            ("time_law", "holds_under_forks_threads_and_hopping_tasks", true),
            ("time_law", "threads_that_hop_between_cpus_are_one_process", false),
            ("filters", "a_pid_with_all_its_descendants", true),
            ("filters", "python_under_any_of_its_names", false),
        ] {
            assert_eq!(runs(program, test), expected, "{program}::{test}");
        }
        let tests = ["the_last_exec_names_a_short_process".to_owned()];
        assert_eq!(renamed("processes", &tests), None);
        assert_eq!(renamed("processes", &[]), Some("the_last_exec_names_a_short_process"));
    }
}
