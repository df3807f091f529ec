//! Two intervals in a row as one: what would have been seen without the border between them.

use super::{CpuInterval, GpuProcess, GpuReading, Interval, Usage, ZoneReading};

impl Interval {
    /// This interval and the next one, as one. It has the number of the first.
    ///
    /// Amounts are added up: time, energy, SM time, interrupts. What tells a state (memory, power, names) is that of the
    /// end. `None` where one interval could not say what two can: one of them does not follow the other, a CPU was
    /// offline at the border, a zone or a GPU is known in one of them only, or a pid on a GPU is not the same process in
    /// both.
    pub fn followed_by(&self, next: &Self) -> Option<Self> {
        if next.begin_ns != self.end_ns || next.seq <= self.seq || next.events != self.events {
            return None;
        }
        for (pid, owner) in &next.gpu_owners {
            if self.gpu_owners.get(pid).is_some_and(|before| before.0 != owner.0) {
                return None;
            }
        }
        let mut merged = Self {
            seq: self.seq,
            begin_ns: self.begin_ns,
            energy_skew_ns: self.energy_skew_ns.max(next.energy_skew_ns),
            interrupts: self
                .interrupts
                .and_then(|before| Some(before.saturating_add(next.interrupts?))),
            cpus: cpus(&self.cpus, &next.cpus)?,
            zones: paired(&self.zones, &next.zones, zone)?,
            gpus: paired(&self.gpus, &next.gpus, gpu)?,
            usage: usage(&self.usage, &next.usage),
            machine_memory: next.machine_memory.or(self.machine_memory),
            ..next.clone()
        };
        for (process, known) in &self.processes {
            merged.processes.entry(*process).or_insert_with(|| known.clone());
        }
        for (process, tenant) in &self.process_tenants {
            merged.process_tenants.entry(*process).or_insert_with(|| tenant.clone());
        }
        for (id, path) in &self.cgroups {
            merged.cgroups.entry(*id).or_insert_with(|| path.clone());
        }
        for (path, tenant) in &self.tenants {
            merged.tenants.entry(path.clone()).or_insert_with(|| tenant.clone());
        }
        for (pid, owner) in &self.gpu_owners {
            merged.gpu_owners.entry(*pid).or_insert(*owner);
        }
        Some(merged)
    }
}

/// Each of `before` with its successor, where both lists are of the same things.
fn paired<T>(before: &[T], next: &[T], merge: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    if before.len() != next.len() {
        return None;
    }
    before
        .iter()
        .zip(next)
        .map(|(before, next)| merge(before, next))
        .collect()
}

fn cpus(before: &[CpuInterval], next: &[CpuInterval]) -> Option<Vec<CpuInterval>> {
    let mut cpus = before.to_vec();
    for next in next {
        let Some(cpu) = cpus.iter_mut().find(|cpu| cpu.cpu == next.cpu) else {
            cpus.push(*next);
            continue;
        };
        if cpu.end_ns != next.begin_ns || (cpu.package, cpu.core) != (next.package, next.core) {
            return None;
        }
        *cpu = CpuInterval {
            begin_ns: cpu.begin_ns,
            busy_ns: cpu.busy_ns.saturating_add(next.busy_ns),
            idle_ns: cpu.idle_ns.saturating_add(next.idle_ns),
            lost_ns: cpu.lost_ns.saturating_add(next.lost_ns),
            switches: cpu.switches.saturating_add(next.switches),
            counts: (cpu.counts.zip(next.counts)).map(|(counts, next)| counts.followed_by(&next)),
            ..*next
        };
    }
    cpus.sort_unstable_by_key(|cpu| cpu.cpu);
    Some(cpus)
}

fn zone(before: &ZoneReading, next: &ZoneReading) -> Option<ZoneReading> {
    let is_same = before.zone == next.zone
        && before.kind == next.kind
        && before.package == next.package
        && before.source == next.source;
    is_same.then_some(())?;
    Some(ZoneReading {
        energy_uj: energy(&before.energy_uj, &next.energy_uj)?,
        ..next.clone()
    })
}

/// What both counted, or why neither did.
fn energy(before: &Result<u64, String>, next: &Result<u64, String>) -> Option<Result<u64, String>> {
    match (before, next) {
        (Ok(before), Ok(next)) => Some(Ok(before.checked_add(*next)?)),
        (Err(_), Err(reason)) => Some(Err(reason.clone())),
        _ => None,
    }
}

fn gpu(before: &GpuReading, next: &GpuReading) -> Option<GpuReading> {
    let is_same = before.uuid == next.uuid
        && before.source == next.source
        && before.usage == next.usage
        && before.inside == next.inside
        && before.mig == next.mig
        && before.sm_time.is_ok() == next.sm_time.is_ok()
        && before.lists.is_ok() == next.lists.is_ok();
    is_same.then_some(())?;
    let mut merged = GpuReading {
        energy_uj: energy(&before.energy_uj, &next.energy_uj)?,
        dropped_samples: before.dropped_samples.saturating_add(next.dropped_samples),
        ..next.clone()
    };
    let untold = before.notes.iter().filter(|note| !next.notes.contains(note));
    merged.notes.extend(untold.cloned());
    for process in &before.processes {
        match merged.processes.iter_mut().find(|merged| merged.pid == process.pid) {
            Some(merged) => add_process(merged, process),
            None => merged.processes.push(process.clone()),
        }
    }
    merged.processes.sort_unstable_by_key(|process| process.pid);
    Some(merged)
}

fn add_process(sum: &mut GpuProcess, before: &GpuProcess) {
    sum.sm_percent_us = sum.sm_percent_us.saturating_add(before.sm_percent_us);
    sum.mem_percent_us = match (sum.mem_percent_us, before.mem_percent_us) {
        (Some(sum), Some(before)) => Some(sum.saturating_add(before)),
        (sum, before) => sum.or(before),
    };
    sum.memory_bytes = sum.memory_bytes.or(before.memory_bytes);
    for instance in &before.instances {
        if !sum.instances.contains(instance) {
            sum.instances.push(instance.clone());
        }
    }
}

/// Each process, cgroup and CPU once.
fn usage(before: &[Usage], next: &[Usage]) -> Vec<Usage> {
    let mut usage = [before, next].concat();
    let key = |usage: &Usage| (usage.process, usage.cgroup_id, usage.cpu);
    usage.sort_unstable_by_key(key);
    usage.dedup_by(|next, sum| {
        let is_same = key(next) == key(sum);
        if is_same {
            sum.ns = sum.ns.saturating_add(next.ns);
            // As attribution has it: not more than the time itself, in each of them.
            sum.shared_ns = sum.shared_ns.saturating_add(next.shared_ns);
            sum.counts.add(&next.counts);
        }
        is_same
    });
    usage
}
