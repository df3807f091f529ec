//! What runs on the nodes. The cases themselves are in `tests/src/node`.

/// Machines that run at the same time, from their boot to their end.
#[derive(Debug)]
pub struct Boot {
    /// What it is about.
    pub about: &'static str,
    /// The nodes, each with its cases in their order; a case may build on those before it.
    pub nodes: &'static [(&'static str, &'static [&'static str])],
    /// Whether they have DuckDB.
    pub duckdb: bool,
    /// Whether they go on with the disks of the boot before.
    pub same_disk: bool,
    /// Whether they go down as a machine that is started again does, so that everything stops in its order.
    pub reboots: bool,
}

/// One node, and the same node after it was started again.
pub const NODE: [Boot; 2] = [
    Boot {
        about: "a node with Slurm, containers and Prometheus",
        nodes: &[(
            "node1",
            &[
                "boots",
                "package-installs",
                "units",
                "user-units",
                "sessions",
                "prometheus-starts",
                "slurm-starts",
                "slurm-documents",
                "slurm-jobs",
                "slurm-many",
                "podman",
                "podman-rootless",
                "containerd",
                "kubelet",
                "docker",
                "trace-without-root",
                "slurmd-is-killed",
                "containerd-restarts",
                "agent-restarts",
                "prometheus-sums",
                "sums",
            ],
        )],
        duckdb: false,
        same_disk: false,
        reboots: true,
    },
    Boot {
        about: "the same node after a reboot",
        nodes: &[("node1", &["reboots", "package-upgrades", "package-purges"])],
        duckdb: false,
        same_disk: true,
        reboots: false,
    },
];

/// Two nodes, whose sums are those of the cluster.
pub const PAIR: [Boot; 1] = [Boot {
    about: "two nodes under one Slurm and one Prometheus",
    nodes: &[
        (
            "node1",
            &[
                "boots",
                "package-installs",
                "pair-opens",
                "slurm-starts",
                "slurm-documents",
                "pair-prometheus",
                "pair-job",
                "pair-documents",
                "sums",
                "pair-releases",
            ],
        ),
        (
            "node2",
            &[
                "boots",
                "package-installs",
                "pair-opens",
                "pair-joins",
                "pair-waits",
                "sums",
            ],
        ),
    ],
    duckdb: true,
    same_disk: false,
    reboots: false,
}];
