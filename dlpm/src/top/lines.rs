//! The lines that are listed: chosen, sorted, and as a tree.

use std::cmp::Ordering;

use super::{
    app::{App, Order, View},
    tally::{Entry, Key, Tally},
};

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name, with what draws the tree before it.
    pub name: String,
    /// Pid of a process.
    pub pid: Option<u32>,
    /// Of a tenant's line: which one.
    pub tenant: Option<Option<String>>,
    /// Its figures.
    pub entry: Entry,
}

impl App {
    /// What is listed now.
    pub fn lines(&self) -> Vec<Line> {
        let tally = self.shown();
        if self.tree && self.view == View::Processes && self.inside.is_none() {
            return self.tree_of(tally);
        }
        let mut lines: Vec<Line> = tally
            .entries
            .iter()
            .filter_map(|(key, entry)| self.line(key, entry))
            .collect();
        self.sort(&mut lines);
        lines
    }

    fn line(&self, key: &Key, entry: &Entry) -> Option<Line> {
        let is_listed = match (self.view, key) {
            (View::Processes, Key::Process(..)) => self.inside.as_ref().is_none_or(|inside| entry.tenant == *inside),
            (View::Tenants, Key::Tenant(_)) | (View::Users, Key::User(_)) | (View::Gpus, Key::Gpu(_)) => true,
            _ => false,
        };
        (is_listed && self.passes(entry)).then(|| line(key, entry))
    }

    fn passes(&self, entry: &Entry) -> bool {
        let filter = self.filter.to_lowercase();
        filter.is_empty()
            || entry.name.to_lowercase().contains(&filter)
            || entry
                .tenant
                .as_ref()
                .is_some_and(|tenant| tenant.to_lowercase().contains(&filter))
    }

    /// Tenants, each with its processes below it.
    fn tree_of(&self, tally: &Tally) -> Vec<Line> {
        let of = |is_wanted: &dyn Fn(&Key, &Entry) -> bool| {
            let entries = tally.entries.iter().filter(|(key, entry)| is_wanted(key, entry));
            let mut lines: Vec<Line> = entries.map(|(key, entry)| line(key, entry)).collect();
            self.sort(&mut lines);
            lines
        };
        let mut tree = Vec::new();
        for tenant in of(&|key, _| matches!(key, Key::Tenant(_))) {
            let node = tenant.tenant.clone().flatten();
            let mut processes =
                of(&|key, entry| matches!(key, Key::Process(..)) && entry.tenant == node && self.passes(entry));
            if processes.is_empty() && !self.passes(&tenant.entry) {
                continue;
            }
            let last = processes.len().saturating_sub(1);
            for (position, process) in processes.iter_mut().enumerate() {
                let branch = if position == last { "└ " } else { "├ " };
                process.name.insert_str(0, branch);
            }
            tree.push(tenant);
            tree.append(&mut processes);
        }
        tree
    }

    fn sort(&self, lines: &mut [Line]) {
        let by = |one: &Entry, other: &Entry| match self.order {
            Order::Power => other.now_uj.cmp(&one.now_uj),
            Order::Energy => other.energy_uj.cmp(&one.energy_uj),
            Order::Cpu => other.now_cpu_ns.cmp(&one.now_cpu_ns),
            Order::Gpu => other.now_gpu_uj.cmp(&one.now_gpu_uj),
            Order::Memory => other.memory_bytes.cmp(&one.memory_bytes),
            Order::Name => Ordering::Equal,
        };
        lines.sort_by(|one, other| {
            let order = by(&one.entry, &other.entry).then_with(|| one.name.cmp(&other.name));
            let order = if self.reverse { order.reverse() } else { order };
            order.then_with(|| one.pid.cmp(&other.pid))
        });
    }
}

fn line(key: &Key, entry: &Entry) -> Line {
    Line {
        name: entry.name.clone(),
        pid: match key {
            Key::Process(id, _) => Some(id.tgid),
            _ => None,
        },
        tenant: match key {
            Key::Tenant(tenant) => Some(tenant.clone()),
            _ => None,
        },
        entry: entry.clone(),
    }
}
