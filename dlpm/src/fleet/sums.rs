//! Sums over nodes by whose work it was. Pure, in whole numbers, and in memory that grows with the rows of the result alone.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    attribution::ledger::Ledger,
    tenants::{Kind, Label, Tenant},
    totals::{Amount, Share},
};

/// Rows of a table that are told apart at most.
pub const MOST_ROWS: usize = 100_000;

/// Rows that are left when there were too many.
const ROWS_KEPT: usize = 90_000;

/// What makes a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The machine.
    Node,
    /// The job, on all of its nodes.
    Job,
    /// The user.
    User,
    /// The account of Slurm.
    Account,
    /// The tenant.
    Tenant,
    /// The unit of systemd.
    Unit,
}

impl By {
    /// What is shown where nothing else is asked for.
    pub const USUAL: [Self; 4] = [Self::Node, Self::Job, Self::User, Self::Account];

    /// The word for a row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Job => "job",
            Self::User => "user",
            Self::Account => "account",
            Self::Tenant => "tenant",
            Self::Unit => "unit",
        }
    }

    fn key(self, whose: &Whose<'_>) -> Key {
        let tenant = whose.tenant;
        let label = |label: Label| tenant.and_then(|tenant| tenant.label(label)).map(Arc::from);
        // The innermost: a job in a job's container is its own.
        let innermost = |is: fn(Kind) -> bool| tenant.and_then(|tenant| tenant.nodes().rfind(|node| is(node.kind)));
        let mut cluster = None;
        let name = match self {
            Self::Node => Some(whose.node.clone()),
            Self::Tenant => tenant.map(|tenant| tenant.node.to_string().into()),
            Self::Job => innermost(Kind::is_job).map(|node| {
                cluster = label(Label::Cluster);
                node.to_string().into()
            }),
            Self::Unit => innermost(Kind::is_unit).map(|node| node.id.clone()),
            Self::Account => label(Label::Account),
            Self::User => label(Label::User).or_else(|| match innermost(|kind| kind == Kind::User) {
                Some(node) => Some(node.id.clone()),
                None => whose.uid.map(|uid| uid.to_string().into()),
            }),
        };
        Key { name, cluster }
    }
}

/// What a row is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `None`: what is in no job, say.
    pub name: Option<Arc<str>>,
    /// Of a job, where it is known.
    pub cluster: Option<Arc<str>>,
}

/// Whose something is.
#[derive(Clone, Debug)]
pub struct Whose<'a> {
    /// The machine.
    pub node: Arc<str>,
    /// The tenant, where it is known.
    pub tenant: Option<&'a Tenant>,
    /// The real user of a process, where it is known.
    pub uid: Option<u32>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was used.
    pub amount: Amount,
    /// Lines of tenants that have ended.
    pub lives: u64,
    /// Numbers of nodes, in order: [`Fleet::node`] has their names.
    pub nodes: Vec<u32>,
    /// When the first of it began, ns since 1970.
    pub begin_unix_ns: i64,
    /// When the last of it ended.
    pub end_unix_ns: i64,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            amount: Amount::default(),
            lives: 0,
            nodes: Vec::new(),
            begin_unix_ns: i64::MAX,
            end_unix_ns: i64::MIN,
        }
    }
}

impl Line {
    fn add(&mut self, other: &Self) {
        self.amount.add(other.amount);
        self.lives = self.lives.saturating_add(other.lives);
        for node in &other.nodes {
            if let Err(at) = self.nodes.binary_search(node) {
                self.nodes.insert(at, *node);
            }
        }
        self.begin_unix_ns = self.begin_unix_ns.min(other.begin_unix_ns);
        self.end_unix_ns = self.end_unix_ns.max(other.end_unix_ns);
    }
}

/// The rows of one table.
#[derive(Clone, Debug)]
pub struct Sums {
    /// What makes them.
    pub by: By,
    /// The rows.
    pub rows: HashMap<Key, Line>,
    /// Rows that are no longer told apart.
    pub folded: u64,
    /// Their sum.
    pub smaller: Amount,
    most: usize,
    kept: usize,
}

impl Sums {
    fn new(by: By) -> Self {
        Self {
            by,
            rows: HashMap::new(),
            folded: 0,
            smaller: Amount::default(),
            most: MOST_ROWS,
            kept: ROWS_KEPT,
        }
    }

    fn add(&mut self, key: Key, line: &Line) {
        self.rows.entry(key).or_default().add(line);
        if self.rows.len() > self.most {
            let mut rows: Vec<_> = self.rows.drain().collect();
            rows.sort_by_key(|(_, line)| Reverse((line.amount.energy_uj, line.amount.cpu_ns)));
            for (_, line) in rows.split_off(self.kept) {
                self.folded += 1;
                self.smaller.add(line.amount);
            }
            self.rows = rows.into_iter().collect();
        }
    }

    /// A job's lines without a cluster are of the one cluster that has such a job. With two such clusters, nobody knows.
    fn settle_clusters(&mut self) {
        let mut clusters: HashMap<Arc<str>, Option<Arc<str>>> = HashMap::new();
        for key in self.rows.keys() {
            if let (Some(name), Some(cluster)) = (&key.name, &key.cluster) {
                let only = clusters.entry(name.clone()).or_insert_with(|| Some(cluster.clone()));
                if only.as_ref() != Some(cluster) {
                    *only = None;
                }
            }
        }
        for (name, cluster) in clusters {
            let key = |cluster| Key {
                name: Some(name.clone()),
                cluster,
            };
            if let Some(cluster) = cluster
                && let Some(line) = self.rows.remove(&key(None))
            {
                self.rows.entry(key(Some(cluster))).or_default().add(&line);
            }
        }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The tables.
    pub tables: Vec<Sums>,
    /// What no process has, of logs.
    pub fixed: BTreeMap<Share, Amount>,
    /// What the meters and CPUs of logs counted, and all lines. It is not made of the rows, and equals their sum.
    pub total: Amount,
    /// Lines of tenants that have ended.
    pub lives: u64,
    /// Intervals of logs.
    pub intervals: u64,
    /// Whether any energy was made from watts that an operator gave.
    pub is_estimate: bool,
    /// When the first began, and the last ended, ns since 1970.
    pub span_unix_ns: Option<(i64, i64)>,
    nodes: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Fleet {
    /// Nothing so far.
    pub fn by(tables: &[By]) -> Self {
        Self {
            tables: tables.iter().map(|by| Sums::new(*by)).collect(),
            fixed: BTreeMap::new(),
            total: Amount::default(),
            lives: 0,
            intervals: 0,
            is_estimate: false,
            span_unix_ns: None,
            nodes: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// Names of all nodes.
    pub fn nodes(&self) -> &[Arc<str>] {
        &self.nodes
    }

    /// The name of a node.
    pub fn node(&self, number: u32) -> &str {
        usize::try_from(number)
            .ok()
            .and_then(|at| self.nodes.get(at))
            .map_or("", |name| name)
    }

    fn number(&mut self, node: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node.clone());
        self.numbers.insert(node.clone(), number);
        number
    }

    fn see(&mut self, begin_unix_ns: i64, end_unix_ns: i64) {
        let (begin, end) = self.span_unix_ns.unwrap_or((i64::MAX, i64::MIN));
        self.span_unix_ns = Some((begin.min(begin_unix_ns), end.max(end_unix_ns)));
    }

    /// Adds the life of a tenant.
    pub fn add_life(&mut self, whose: &Whose<'_>, amount: Amount, begin_unix_ns: i64, end_unix_ns: i64) {
        self.lives += 1;
        self.total.add(amount);
        self.see(begin_unix_ns, end_unix_ns);
        let line = Line {
            amount,
            lives: 1,
            nodes: vec![self.number(&whose.node)],
            begin_unix_ns,
            end_unix_ns,
        };
        for sums in &mut self.tables {
            sums.add(sums.by.key(whose), &line);
        }
    }

    /// Adds an interval of a log.
    pub fn add_interval(&mut self, node: &Arc<str>, ledger: &Ledger) {
        self.intervals += 1;
        let length_ns = i64::try_from(ledger.length_ns()).unwrap_or(i64::MAX);
        let begin_unix_ns = ledger.end_unix_ns.saturating_sub(length_ns);
        self.see(begin_unix_ns, ledger.end_unix_ns);
        self.total.add(Amount::counted_in(ledger));
        let number = self.number(node);
        for row in &ledger.rows {
            let line = Line {
                amount: Amount::of(row, ledger),
                lives: 0,
                nodes: vec![number],
                begin_unix_ns,
                end_unix_ns: ledger.end_unix_ns,
            };
            let share = Share::of(&row.key);
            let whose = Whose {
                node: node.clone(),
                tenant: row.tenant.as_deref(),
                uid: row.shown.as_ref().and_then(|shown| shown.uid),
            };
            if share != Share::Listed {
                self.fixed.entry(share).or_default().add(line.amount);
            }
            for sums in &mut self.tables {
                // A node is all that it used.
                if share == Share::Listed || sums.by == By::Node {
                    sums.add(sums.by.key(&whose), &line);
                }
            }
        }
    }

    /// What all rows of a table lack of the total: CPU time in ns and energy in µJ. 0, or a log was changed.
    pub fn difference(&self, sums: &Sums) -> (i128, i128) {
        let fixed = self.fixed.values().filter(|_| sums.by != By::Node);
        let rows = sums.rows.values().map(|line| &line.amount).chain([&sums.smaller]);
        let left = |of: fn(&Amount) -> u128| {
            let whole = |amount: &Amount| i128::try_from(of(amount)).unwrap_or(i128::MAX);
            let parts = rows.clone().chain(fixed.clone());
            parts.fold(whole(&self.total), |left, amount| left.saturating_sub(whole(amount)))
        };
        (left(|amount| amount.cpu_ns), left(|amount| amount.energy_uj))
    }

    /// After the last line.
    pub fn end(&mut self) {
        for sums in self.tables.iter_mut().filter(|sums| sums.by == By::Job) {
            sums.settle_clusters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sinks::testing::{all_zones, ledger},
        tenants::Node,
    };

    fn tenant(word: &str, labels: &[(Label, &str)]) -> Tenant {
        let mut tenant = Tenant::from(Node::from_word(word).unwrap());
        tenant.labels = labels.iter().map(|(label, value)| (*label, (*value).into())).collect();
        tenant
    }

    fn add(fleet: &mut Fleet, node: &str, tenant: &Tenant, uj: u64) {
        let whose = Whose {
            node: node.into(),
            tenant: Some(tenant),
            uid: None,
        };
        fleet.add_life(
            &whose,
            Amount::of_devices(uj * 2, [("package-0", uj), ("dram-0", 1)]),
            5,
            9,
        );
    }

    fn rows(fleet: &Fleet) -> Vec<(String, String, u128, usize)> {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("-").to_owned();
        let rows = fleet.tables[0].rows.iter();
        let mut rows: Vec<_> = rows
            .map(|(key, line)| {
                (
                    text(&key.name),
                    text(&key.cluster),
                    line.amount.energy_uj,
                    line.nodes.len(),
                )
            })
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_job_of_several_nodes_is_one_row_for_each_cluster() {
        let mut fleet = Fleet::by(&[By::Job]);
        let (of_a, of_b) = ([(Label::Cluster, "a")], [(Label::Cluster, "b")]);
        add(&mut fleet, "n1", &tenant("slurm:7", &of_a), 10);
        add(&mut fleet, "n2", &tenant("slurm:7", &[]), 20);
        add(&mut fleet, "n2", &tenant("slurm:7", &of_a), 30);
        add(&mut fleet, "n1", &tenant("slurm:8", &of_a), 1);
        add(&mut fleet, "m1", &tenant("slurm:8", &of_b), 2);
        add(&mut fleet, "m2", &tenant("slurm:8", &[]), 4);
        add(&mut fleet, "m2", &tenant("unit:a.service", &[]), 8);
        fleet.end();
        let row = |name: &str, cluster: &str, uj, nodes| (name.to_owned(), cluster.to_owned(), uj, nodes);
        // Whose the third 8 is, nobody knows.
        let expected = [
            row("-", "-", 9, 1),
            row("slurm:7", "a", 63, 2),
            row("slurm:8", "-", 5, 1),
            row("slurm:8", "a", 2, 1),
            row("slurm:8", "b", 3, 1),
        ];
        assert_eq!(rows(&fleet), expected);
        assert_eq!((fleet.total.energy_uj, fleet.lives, fleet.nodes().len()), (82, 7, 4));
    }

    #[test]
    fn too_many_rows_are_added_up_and_nothing_is_lost() {
        let mut fleet = Fleet::by(&[By::Tenant]);
        (fleet.tables[0].most, fleet.tables[0].kept) = (10, 5);
        for number in 0..1000 {
            add(&mut fleet, "n", &tenant(&format!("docker:{number}"), &[]), number);
        }
        let sums = &fleet.tables[0];
        assert!(sums.rows.len() <= 10, "{}", sums.rows.len());
        let rows: u128 = sums.rows.values().map(|line| line.amount.energy_uj).sum();
        assert_eq!(rows + sums.smaller.energy_uj, fleet.total.energy_uj);
        assert_eq!(fleet.total.energy_uj, 999 * 500 + 1000);
        assert!(sums.folded >= 990, "{}", sums.folded);
    }

    #[test]
    fn rows_and_what_is_nobodys_are_the_meter() {
        let mut fleet = Fleet::by(&[By::Node, By::User, By::Unit]);
        let ledgers = [ledger(0, all_zones()), ledger(1, all_zones())];
        for (node, ledger) in ["n1", "n2"].into_iter().zip(&ledgers) {
            fleet.add_interval(&node.into(), ledger);
        }
        let sum = |by: usize| {
            let mut sum = Amount::default();
            fleet.tables[by].rows.values().for_each(|line| sum.add(line.amount));
            (sum.cpu_ns, sum.energy_uj)
        };
        let mut fixed = Amount::default();
        fleet.fixed.values().for_each(|amount| fixed.add(*amount));
        let total = (fleet.total.cpu_ns, fleet.total.energy_uj);
        assert!(total.1 > 0 && fixed.energy_uj > 0);
        assert_eq!(sum(0), total, "a node has all that it used");
        for sums in &fleet.tables {
            assert_eq!(fleet.difference(sums), (0, 0));
        }
        for by in [1, 2] {
            assert_eq!((sum(by).0 + fixed.cpu_ns, sum(by).1 + fixed.energy_uj), total);
        }
    }
}
