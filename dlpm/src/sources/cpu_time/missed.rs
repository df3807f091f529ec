//! Runs of programs that the kernel left out, by its own count.

use std::{
    fs::File,
    iter,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use aya::Ebpf;

use super::{
    Hook,
    cost::{field, info_of},
    program_fd,
};

/// More than the kernel says of a program.
const INFO_BYTES: usize = 1024;

/// Where the kernel tells it: for each hook, what it says of each of its programs. Open, since it is read in each
/// interval.
pub(super) struct MissedRuns(Vec<Vec<File>>);

impl MissedRuns {
    /// Of the hooks that are attached, as far as the kernel tells it.
    pub(super) fn open(ebpf: &Ebpf, hooks: &[Hook]) -> Self {
        let hooks = hooks.iter().filter(|hook| hook.state.is_ok());
        let files = hooks.map(|hook| {
            let programs = iter::once(&hook.program).chain(hook.again);
            let infos = programs.filter_map(|name| Some(info_of(program_fd(ebpf, name)?.as_raw_fd())));
            infos.filter_map(|info| File::open(info).ok()).collect()
        });
        Self(files.collect())
    }

    /// Sum over all hooks since the start. Where a hook has several programs, what none of them has seen was left out
    /// of each: so it is the least of them.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().filter_map(|programs| least(programs)).sum()
    }
}

fn least(programs: &[File]) -> Option<u64> {
    let mut missed = programs.iter().filter_map(of_program);
    // Mostly it is none of the first, and the others need not be asked.
    let mut least = missed.next()?;
    while least > 0
        && let Some(runs) = missed.next()
    {
        least = least.min(runs);
    }
    Some(least)
}

fn of_program(info: &File) -> Option<u64> {
    let mut text = [0; INFO_BYTES];
    // From the beginning, where the kernel writes it anew.
    let bytes = info.read_at(&mut text, 0).ok()?;
    field(str::from_utf8(text.get(..bytes)?).ok()?, "recursion_misses:")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_kernel_writes_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, missed: u64| {
            let path = folder.path().join(name);
            fs::write(&path, format!("run_cnt:\t7\nrecursion_misses:\t{missed}\n")).unwrap();
            path
        };
        let open = |name: &str, missed: u64| File::open(write(name, missed)).unwrap();
        fs::write(folder.path().join("silent"), "run_cnt:\t7\n").unwrap();
        let silent = File::open(folder.path().join("silent")).unwrap();
        let missed = MissedRuns(vec![vec![open("a", 0)], vec![open("b", 5), open("c", 2)], vec![silent]]);
        assert_eq!(missed.count(), 2);
        write("a", 10);
        write("c", 9);
        assert_eq!(missed.count(), 15);
    }
}
