//! The cold path: who the processes are. Runs at fork, exec, rename and exit of processes, never at a switch; and once
//! over all tasks, when the hooks are in place.
//!
//! Entries are never deleted here: a process goes on running for a while after its exit hook, and user space deletes
//! it when its last interval has been drained.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_comm, bpf_get_current_task, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        bpf_probe_read_kernel_str_bytes,
    },
    programs::RawTracePointContext,
};
use dlpm_common::{COMM_BYTES, Counter, ProcessKey, ProcessRecord};

use crate::{
    maps::{CHANGES, PROCESSES, count, offset},
    task::{Charged, TaskAddress, is_leader, read},
};

type Comm = [u8; COMM_BYTES];

/// What an insertion answers where there is an entry already.
const EEXIST: i32 = -17;

/// `sched_wakeup_new(task)`: runs as the parent, before the child can run. Threads are not processes.
#[inline(always)]
pub fn fork(context: &RawTracePointContext) -> Option<()> {
    let child: TaskAddress = context.arg(0);
    if !is_leader(child)? {
        return None;
    }
    let parent_key = current_key()?;
    let mut record = ProcessRecord {
        parent_start_ns: parent_key.start_ns,
        exit_ns: 0,
        parent_tgid: parent_key.tgid,
        uid: current_uid(),
        flags: ProcessRecord::LISTED,
        padding: 0,
        // A child starts with the name of the thread that forks it.
        comm: bpf_get_current_comm().unwrap_or_default(),
        exec_comm: leader_comm(current_task()).unwrap_or_default(),
    };
    if let Some(parent) = PROCESSES.get_ptr(parent_key) {
        // SAFETY: map memory; a concurrent exec can tear the name, which that exec's own record then mends.
        unsafe {
            record.exec_comm = (*parent).exec_comm;
            record.flags = (*parent).flags;
        }
    }
    insert(key(child)?, &record);
    Some(())
}

/// `sched_process_exec`: runs as the process that has become the new program.
#[inline(always)]
pub fn exec(_context: &RawTracePointContext) -> Option<()> {
    let key = current_key()?;
    let comm: Comm = bpf_get_current_comm().unwrap_or_default();
    let uid = current_uid();
    if let Some(record) = PROCESSES.get_ptr_mut(key) {
        // SAFETY: map memory; only the process itself execs, so nobody else writes these fields now.
        let record = unsafe { &mut *record };
        if (record.comm, record.exec_comm, record.uid, record.flags) != (comm, comm, uid, 0) {
            record.comm = comm;
            record.exec_comm = comm;
            record.uid = uid;
            record.flags = 0;
            changed(key);
        }
        return Some(());
    }
    // Not listed yet, or its fork found the map full.
    let mut record = describe(current_task())?;
    record.exec_comm = comm;
    record.flags = 0;
    insert(key, &record);
    changed(key);
    Some(())
}

/// One task of the iterator: processes that are older than the hooks.
#[inline(always)]
pub fn list(task: TaskAddress) -> Option<()> {
    if is_leader(task)? && live_threads(task)? != 0 {
        insert(key(task)?, &describe(task)?);
    }
    Some(())
}

/// A process as its task shows it, where its fork was not seen.
#[inline(always)]
fn describe(task: TaskAddress) -> Option<ProcessRecord> {
    let parent = Charged::from_address(read(task, offset!(task_real_parent))?)?;
    let cred: u64 = read(task, offset!(task_cred))?;
    let comm = leader_comm(task)?;
    Some(ProcessRecord {
        parent_start_ns: parent.start_ns,
        exit_ns: 0,
        parent_tgid: parent.tgid,
        uid: read(cred, offset!(cred_uid))?,
        flags: ProcessRecord::LISTED,
        padding: 0,
        comm,
        exec_comm: comm,
    })
}

/// `task_rename(task, comm)`: the name of the leader is the name of the process.
#[inline(always)]
pub fn rename(context: &RawTracePointContext) -> Option<()> {
    let task: TaskAddress = context.arg(0);
    if !is_leader(task)? {
        return None;
    }
    let key = key(task)?;
    let record = PROCESSES.get_ptr_mut(key)?;
    let mut comm: Comm = [0; COMM_BYTES];
    // SAFETY: the helper checks the address, and always terminates what it copies.
    unsafe { bpf_probe_read_kernel_str_bytes(context.arg(1), &mut comm) }.ok()?;
    // SAFETY: map memory.
    let record = unsafe { &mut *record };
    if record.comm != comm {
        record.comm = comm;
        changed(key);
    }
    Some(())
}

/// `sched_process_exit(task)`: the process is gone when its last thread goes, which need not be the leader.
#[inline(always)]
pub fn exit(context: &RawTracePointContext) -> Option<()> {
    let task: TaskAddress = context.arg(0);
    if live_threads(task)? != 0 {
        return None;
    }
    let key = key(task)?;
    let record = PROCESSES.get_ptr_mut(key)?;
    // SAFETY: map memory; only the last thread comes here.
    let record = unsafe { &mut *record };
    if record.exit_ns == 0 {
        // SAFETY: no arguments.
        record.exit_ns = unsafe { bpf_ktime_get_ns() };
        record.uid = current_uid();
        changed(key);
    }
    Some(())
}

/// Tells user space, which looks entries up that it has not seen, and those that have changed. A new entry is not told:
/// nobody has seen it. Of the programs that do the same for one event, the first that runs does this.
#[inline(always)]
fn changed(key: ProcessKey) {
    // Nobody waits for it: the ring is read once per interval.
    if CHANGES.output::<ProcessKey>(&key, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        count(Counter::ChangesLost);
    }
}

#[inline(always)]
fn insert(key: ProcessKey, record: &ProcessRecord) {
    match PROCESSES.insert(key, record, u64::from(BPF_NOEXIST)) {
        Ok(()) => count(Counter::ProcessesInserted),
        // Forked while the tasks were listed: what fork wrote is better than what the list shows.
        Err(EEXIST) => {}
        Err(_) => count(Counter::ProcessesFull),
    }
}

#[inline(always)]
fn key(task: TaskAddress) -> Option<ProcessKey> {
    let Charged { tgid, start_ns } = Charged::from_address(task)?;
    Some(ProcessKey {
        start_ns,
        tgid,
        padding: 0,
    })
}

#[inline(always)]
fn current_task() -> TaskAddress {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
fn current_key() -> Option<ProcessKey> {
    key(current_task())
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn current_uid() -> u32 {
    // The lower half is the real uid, seen from the initial user namespace.
    bpf_get_current_uid_gid() as u32
}

/// Threads of a task's process that have not exited.
#[inline(always)]
fn live_threads(task: TaskAddress) -> Option<u32> {
    let signal: u64 = read(task, offset!(task_signal))?;
    read(signal, offset!(signal_live))
}

/// Name of a task's process, not of the task.
#[inline(always)]
fn leader_comm(task: TaskAddress) -> Option<Comm> {
    let leader: u64 = read(task, offset!(task_group_leader))?;
    read(leader, offset!(task_comm))
}
