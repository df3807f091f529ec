//! What a node knows of a Slurm job while it runs: the title of its daemon, and the environment of its script.

use std::path::{Path, PathBuf};

use super::{
    Roots,
    open::{Base, beginning},
    user_name,
};
use crate::{
    sources::proc_fs,
    tenants::{Label, Labels, label},
};

/// Processes of a step that are looked at.
const MOST_PROCESSES: usize = 16;

/// Longest title and environment that are read.
const TITLE_BYTES: u64 = 4096;
const ENVIRONMENT_BYTES: u64 = 256 << 10;

/// The number of a job from the title of the daemon of one of its steps: `slurmstepd: [4711.batch]`.
///
/// `job` is the directory of the job in the tree. The daemon is root's and in a directory of root's.
pub fn number(procfs: &Path, job: &Path) -> Option<u32> {
    let base = Base::of_root(job)?;
    let steps = base.list(".").into_iter().filter(|name| name.starts_with("step_"));
    steps.take(MOST_PROCESSES).find_map(|step| {
        processes(&job.join(step).join("slurm")).into_iter().find_map(|pid| {
            let title = beginning(&procfs.join(format!("{pid}/cmdline")), TITLE_BYTES).ok()?;
            // After the title: whose the process was is known of no other that got the number since.
            let is_roots = proc_fs::effective_uid(procfs, pid) == Some(0)
                && proc_fs::read_one(procfs, pid).is_some_and(|process| process.uid == Some(0));
            of_title(&String::from_utf8_lossy(&title)).filter(|_| is_roots)
        })
    })
}

fn of_title(title: &str) -> Option<u32> {
    let (number, step) = title.strip_prefix("slurmstepd: [")?.split_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| step.find(']').and_then(|_| number.parse().ok()))
        .flatten()
}

/// What the job's user may have said: labels, from the environment of the batch script; and by the kernel's word whose
/// process that is. A step has its own name in the variable of the job's, so a step is asked only in a job without a
/// script.
pub fn labels(roots: &Roots, job: &Path) -> Option<Labels> {
    let script = job.join("step_batch/user/task_0");
    if let Some(labels) = of_tasks(roots, &script) {
        return Some(labels);
    }
    let base = Base::of_root(job)?;
    let steps: Vec<String> = base.list(".");
    if steps.iter().any(|step| step == "step_batch") {
        return None;
    }
    let steps = steps
        .iter()
        .filter(|step| step.starts_with("step_") && *step != "step_extern");
    steps.take(MOST_PROCESSES).find_map(|step| {
        let tasks = base.list(&format!("{step}/user"));
        let tasks = tasks
            .iter()
            .filter(|task| task.starts_with("task_"))
            .take(MOST_PROCESSES);
        tasks
            .map(|task| job.join(step).join("user").join(task))
            .find_map(|task| of_tasks(roots, &task))
    })
}

fn of_tasks(roots: &Roots, task: &Path) -> Option<Labels> {
    let procfs = &roots.procfs;
    processes(task).into_iter().find_map(|pid| {
        let environment = beginning(&procfs.join(format!("{pid}/environ")), ENVIRONMENT_BYTES).ok()?;
        let mut labels = of_environment(&environment);
        if labels.is_empty() {
            return None;
        }
        // The variable with the user's name is the script's to change.
        if let Some(uid) = proc_fs::read_one(procfs, pid).and_then(|process| process.uid) {
            let name = user_name(&roots.rootfs, uid).unwrap_or_else(|| uid.to_string());
            labels.extend(label(&name).map(|name| (Label::User, name.into())));
        }
        Some(labels)
    })
}

fn of_environment(environment: &[u8]) -> Labels {
    let mut labels = Labels::new();
    for entry in environment.split(|&byte| byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        let Some((name, value)) = entry.split_once('=') else {
            continue;
        };
        let key = match name {
            "SLURM_JOB_NAME" => Label::JobName,
            "SLURM_JOB_PARTITION" => Label::Partition,
            "SLURM_JOB_ACCOUNT" => Label::Account,
            "SLURM_CLUSTER_NAME" => Label::Cluster,
            _ => continue,
        };
        if let Some(value) = label(value) {
            labels.entry(key).or_insert_with(|| value.into());
        }
    }
    labels
}

/// The first processes of a cgroup.
fn processes(cgroup: &Path) -> Vec<u32> {
    let list: PathBuf = cgroup.join("cgroup.procs");
    let Ok(text) = beginning(&list, TITLE_BYTES) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter_map(|line| line.parse().ok())
        .take(MOST_PROCESSES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        assert_eq!(of_title("slurmstepd: [4711.batch]\0\0"), Some(4711));
        assert_eq!(of_title("slurmstepd: [4711.0]"), Some(4711));
        for title in [
            "slurmstepd: [.0]",
            "slurmstepd: [x.0]",
            "slurmstepd: [1",
            "xslurmstepd: [1.0]",
            "slurmstepd: [+1.0]",
        ] {
            assert_eq!(of_title(title), None, "{title}");
        }
    }

    #[test]
    fn environments_give_labels_and_nothing_else() {
        let labels = of_environment(
            "A=b\0SLURM_JOB_ID=1\0SLURM_JOB_NAME=bench bob/ä\0SLURM_JOB_NAME=again\0SLURM_JOB_PARTITION=a\nb\0x\0"
                .as_bytes(),
        );
        let shown: Vec<_> = labels.iter().map(|(label, value)| (*label, value.as_ref())).collect();
        assert_eq!(shown, [(Label::JobName, "bench bob/ä"), (Label::Partition, "a?b")]);
    }
}
