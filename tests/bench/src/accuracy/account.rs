//! The kernel's own account of cgroups, at the moment when it makes it.

use std::path::Path;

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuHashMap, PerCpuValues},
    programs::RawTracePoint,
};
use dlpm::sources::cpu_time::{KERNEL_BTF, field_offsets};
use dlpm_common::yardsticks::{KernelAccount, KernelAccountOffsets};

use dlpm_tests::cgroup::Cgroup;

/// Programs that follow the account as long as this lives.
pub struct Accounts {
    ebpf: Ebpf,
}

impl Accounts {
    /// Attaches them, for these cgroups.
    ///
    /// # Errors
    ///
    /// Where the kernel has no tracepoint `sched_stat_runtime`, or other structures.
    pub fn follow(object: &Path, groups: &[Cgroup]) -> Result<Self> {
        let fields = [
            ("task_struct", "pid"),
            ("task_struct", "thread_info"),
            ("thread_info", "cpu"),
            ("task_struct", "cgroups"),
            ("css_set", "dfl_cgrp"),
            ("cgroup", "kn"),
            ("kernfs_node", "id"),
        ];
        let found = field_offsets(Path::new(KERNEL_BTF), fields).map_err(anyhow::Error::msg)?;
        let [
            task_pid,
            thread_info,
            cpu,
            task_cgroups,
            css_set_dfl_cgrp,
            cgroup_kn,
            kernfs_node_id,
        ] = found;
        let offsets = KernelAccountOffsets {
            task_pid,
            task_cpu: thread_info + cpu,
            task_cgroups,
            css_set_dfl_cgrp,
            cgroup_kn,
            kernfs_node_id,
        };
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| error)
            .context("the possible CPUs")?;
        let mut ebpf = EbpfLoader::new()
            .override_global("ACCOUNT_OFFSETS", &offsets, true)
            .map_max_entries("LINES", u32::try_from(cpus)?)
            .load_file(object)
            .with_context(|| format!("{} cannot be loaded", object.display()))?;
        let map = ebpf.map_mut("ACCOUNTS").context("no map ACCOUNTS")?;
        let mut accounts: PerCpuHashMap<&mut MapData, u64, KernelAccount> = map.try_into()?;
        for group in groups {
            let zeros = PerCpuValues::try_from(vec![KernelAccount::default(); cpus])?;
            accounts.insert(group.id(), zeros, 0)?;
        }
        // Every slice begins somewhere before it ends.
        for (name, tracepoint) in [("account_switch", "sched_switch"), ("account", "sched_stat_runtime")] {
            let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program
                .attach(tracepoint)
                .with_context(|| format!("the kernel has no tracepoint {tracepoint}"))?;
        }
        Ok(Self { ebpf })
    }

    /// What was accounted to a cgroup so far.
    ///
    /// # Errors
    ///
    /// Where it is none of those that are followed.
    pub fn of(&self, group: &Cgroup) -> Result<KernelAccount> {
        let map = self.ebpf.map("ACCOUNTS").context("no map ACCOUNTS")?;
        let accounts: PerCpuHashMap<&MapData, u64, KernelAccount> = map.try_into()?;
        let by_cpu = accounts.get(&group.id(), 0)?;
        Ok(by_cpu
            .iter()
            .fold(KernelAccount::default(), |sum, account| KernelAccount {
                runtime_ns: sum.runtime_ns + account.runtime_ns,
                elapsed_ns: sum.elapsed_ns + account.elapsed_ns,
                switched_ns: sum.switched_ns + account.switched_ns,
            }))
    }
}
