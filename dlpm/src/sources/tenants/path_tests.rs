use proptest::prelude::*;

use super::*;
use crate::printable::is_printable;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// Where root made all of it; `ID` and `POD` stand for ids.
fn of(path: &str) -> Tenant {
    at(path, 64)
}

fn at(path: &str, by_root: usize) -> Tenant {
    tenant_of(&path.replace("ID", ID).replace("OTHER", OTHER), by_root)
}

fn named(path: &str) -> String {
    of(path).to_string().replace(ID, "ID").replace(OTHER, "OTHER")
}

fn chain(path: &str) -> String {
    let nodes: Vec<String> = of(path).nodes().map(ToString::to_string).collect();
    nodes.join(" ").replace(ID, "ID").replace(OTHER, "OTHER")
}

/// As they were seen on Debian 12 with Slurm 22.05, Podman 4.3, containerd 1.6, Docker 20.10 and systemd 252.
#[test]
fn paths_of_a_real_node() {
    for (path, tenant) in [
        ("/system.slice/slurmd.service", "unit:slurmd.service"),
        (
            "/system.slice/node1_slurmstepd.scope/system",
            "unit:node1_slurmstepd.scope",
        ),
        ("/system.slice/node1_slurmstepd.scope/job_1/step_batch/slurm", "slurm:1"),
        (
            "/system.slice/node1_slurmstepd.scope/job_1/step_batch/user/task_0",
            "slurm:1",
        ),
        (
            "/system.slice/node1_slurmstepd.scope/job_1/step_extern/user/task_special",
            "slurm:1",
        ),
        (
            "/system.slice/node2_slurmstepd.scope/job_12/step_0/user/task_1",
            "slurm:12",
        ),
        ("/machine.slice/libpod-ID.scope/container", "podman:ID"),
        ("/machine.slice/libpod-ID.scope", "podman:ID"),
        ("/machine.slice/libpod-conmon-ID.scope", "unit:libpod-conmon-ID.scope"),
        (
            "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope/container",
            "podman:ID",
        ),
        ("/system.slice/node-test.service/libpod-payload-ID", "podman:ID"),
        ("/system.slice/node-test.service/runtime", "unit:node-test.service"),
        ("/teams/ml/libpod-ID", "podman:ID"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "podman:1000/ID",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-289.scope",
            "user_unit:1000/podman-289.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OTHER.slice/libpod-ID.scope/container",
            "podman:1000/ID",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice/\
             cri-containerd-ID.scope",
            "kubernetes:ID",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice/\
             cri-containerd-ctr2.scope",
            "kubernetes:ctr2",
        ),
        ("/system.slice/containerd.service", "unit:containerd.service"),
        ("/system.slice/docker-ID.scope", "docker:ID"),
        ("/team.slice/team-ml.slice/docker-ID.scope", "docker:ID"),
        ("/system.slice/trans-svc.service", "unit:trans-svc.service"),
        (
            "/system.slice/run-r38a11f815c304b95b8f23582c329f874.scope",
            "unit:run-r38a11f815c304b95b8f23582c329f874.scope",
        ),
        (
            r"/team.slice/team-ml.slice/we\x2dird@a:b_c.service",
            r"unit:we\x2dird@a:b_c.service",
        ),
        (
            r"/system.slice/system-tmpl.slice/tmpl@a-b\x20c\x2dd.service",
            r"unit:tmpl@a-b\x20c\x2dd.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ubench.service",
            "user_unit:1000/ubench.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/uscope.scope",
            "user_unit:1000/uscope.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "user_unit:1000/init.scope",
        ),
        ("/user.slice/user-1001.slice/session-c2.scope", "session:c2"),
        ("/user.slice/user-1001.slice/session-3.scope", "session:3"),
        ("/init.scope", "unit:init.scope"),
    ] {
        assert_eq!(named(path), tenant, "{path}");
    }
}

#[test]
fn paths_from_the_sources_of_others() {
    for (path, tenant) in [
        (
            "/system.slice/slurmstepd.scope/job_7/step_interactive/user/task_0",
            "slurm:7",
        ),
        (
            "/system.slice/slurmstepd.scope/s0AB1CD2EF3GH4/step_0/user/task_0",
            "slurm:s0AB1CD2EF3GH4",
        ),
        ("/slurm/uid_1000/job_7/step_0/task_0", "slurm:7"),
        ("/slurm_node1/uid_1000/job_7/step_batch", "slurm:7"),
        ("/oar/alice_b_4711", "oar:4711"),
        ("/oar.slice/oar-u1000.slice/oar-u1000-j4711.slice/x.scope", "oar:4711"),
        ("/pbs_jobs.service/jobid/12.server", "pbs:12.server"),
        ("/pbs_jobs.service/jobs/12.server", "pbs:12.server"),
        ("/torque/12.server", "pbs:12.server"),
        (
            "/system.slice/htcondor/condor_var_lib_condor_execute_slot1_2@node",
            "htcondor:condor_var_lib_condor_execute_slot1_2@node",
        ),
        (
            "/kubepods/burstable/pod11111111-2222-3333-4444-555555555555/ID",
            "kubernetes:ID",
        ),
        ("/kubepods/pod11111111-2222-3333-4444-555555555555/ID", "kubernetes:ID"),
        (
            "/kubepods/pod0123456789abcdef0123456789abcdef",
            "pod:0123456789abcdef0123456789abcdef",
        ),
        (
            "/system.slice/kubepods-pod11111111_2222.slice:cri-containerd:ID",
            "kubernetes:ID",
        ),
        ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", "kubernetes:ID"),
        ("/kubepods.slice/kubepods-pod1.slice/crio-conmon-ID.scope", "pod:1"),
        ("/machine.slice/crio-ID.scope", "crio:ID"),
        ("/system.slice/nerdctl-ID.scope", "containerd:ID"),
        ("/docker/ID", "docker:ID"),
        ("/teams/ID", "docker:ID"),
        ("/lxc.payload.web", "lxc:web"),
        ("/lxc/100/ns/system.slice/a.service", "lxc:100"),
        ("/lxc.monitor.web", "cgroup:/lxc.monitor.web"),
        (
            r"/machine.slice/machine-qemu\x2d3\x2dvm\x2done.scope/libvirt/emulator",
            "libvirt:vm-one",
        ),
        ("/machine/qemu-3-vm.libvirt-qemu", "libvirt:vm"),
        (r"/machine.slice/machine-deb\x2dtest.scope", "machine:deb-test"),
        // What a slash would do: another's.
        (r"/machine.slice/machine-1000-a\x2fb.scope", r"machine:1000-a\x2fb"),
        (
            "/machine.slice/systemd-nspawn@deb.service/payload/init.scope",
            "machine:deb",
        ),
        ("/", "root:/"),
        ("/teams", "cgroup:/teams"),
        ("/teams/ml/a", "cgroup:/teams/ml/a"),
        ("/team.slice/team-ml.slice", "slice:team-ml.slice"),
        ("cgroup:77", "unknown:unknown"),
        ("/../a", "unknown:unknown"),
        ("/a/../system.slice/docker-ID.scope", "unknown:unknown"),
        ("", "unknown:unknown"),
    ] {
        assert_eq!(named(path), tenant, "{path}");
    }
}

#[test]
fn what_is_above_adds_labels() {
    let step = "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0";
    assert_eq!(chain(&format!("{step}/libpod-ID")), "slurm:7 podman:ID");
    assert_eq!(of(&format!("{step}/libpod-ID")).label(Label::SlurmJobId), Some("7"));
    let pod = of("/kubepods.slice/kubepods-pod11_22.slice/crio-ID.scope");
    assert_eq!(pod.label(Label::PodUid), Some("11-22"));
    assert_eq!(of("/system.slice/a.service").label(Label::Unit), Some("a.service"));
    let user = of("/user.slice/user-1000.slice/session-3.scope");
    assert_eq!(user.label(Label::User), Some("1000"));
    assert_eq!(
        chain("/system.slice/a.service/libpod-payload-ID"),
        "unit:a.service podman:ID"
    );
}

/// What a user makes below directories of their own never has the id of anything else.
#[test]
fn lookalikes_are_their_makers() {
    let manager = "/user.slice/user-1000.slice/user@1000.service";
    for (path, by_root, tenant) in [
        (format!("{manager}/slurmstepd.scope/job_1/step_0"), 3, "slurm:1000/1"),
        (format!("{manager}/app.slice/docker-ID.scope"), 3, "docker:1000/ID"),
        (
            format!("{manager}/system.slice/nginx.service"),
            3,
            "user_unit:1000/nginx.service",
        ),
        (format!("{manager}/kubepods/pod11/ID"), 3, "kubernetes:1000/ID"),
        (
            format!("{manager}/user.slice/user-1001.slice/session-3.scope"),
            3,
            "user_unit:1000/session-3.scope",
        ),
        (format!("{manager}/lxc.payload.web"), 3, "lxc:1000/web"),
        (format!("{manager}/job_1"), 3, "user:1000"),
        (
            "/user.slice/user-1000.slice/session-3.scope/lxc.payload.web".to_owned(),
            3,
            "lxc:1000/web",
        ),
        // Whoever is root in a container makes what they like in it.
        (
            "/system.slice/docker-ID.scope/system.slice/docker-OTHER.scope".to_owned(),
            9,
            "docker:docker:ID/OTHER",
        ),
        (
            "/system.slice/docker-ID.scope/system.slice/nginx.service".to_owned(),
            9,
            "docker:ID",
        ),
        ("/docker/ID/slurmstepd.scope/job_1".to_owned(), 9, "slurm:docker:ID/1"),
        // A service or a directory that was handed to a user.
        (
            "/system.slice/own.service/docker-ID.scope".to_owned(),
            2,
            "docker:/system.slice/own.service/ID",
        ),
        (
            "/system.slice/own.service/nginx.service".to_owned(),
            2,
            "unit:own.service",
        ),
        ("/teams/ml/libpod-ID".to_owned(), 2, "podman:/teams/ml/ID"),
        ("/teams/ml/system.slice/nginx.service".to_owned(), 2, "cgroup:/teams/ml"),
        ("/teams/ml/slurm/uid_0/job_1".to_owned(), 2, "slurm:/teams/ml/1"),
        (
            "/teams/ml/user.slice/user-1001.slice/session-1.scope".to_owned(),
            2,
            "cgroup:/teams/ml",
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope".to_owned(),
            1,
            "slice:user.slice",
        ),
    ] {
        let found = at(&path, by_root).to_string().replace(ID, "ID").replace(OTHER, "OTHER");
        assert_eq!(found, tenant, "{path}");
    }
    // Names that only begin or end like one.
    for path in [
        "/system.slice/docker-ID0.scope",
        "/job_1",
        "/system.slice/xslurmstepd.scope/job_1",
        "/system.slice/slurmstepd.scope/job_01",
        "/system.slice/slurmstepd.scope/job_+1",
        "/system.slice/slurmstepd.scope/job_99999999999",
        "/slurm/uid_x/job_1",
        "/kubepodsx/pod11/x",
        "/machine.slice/machine-.scope",
        "/lxc.payload.",
    ] {
        assert!(
            !of(path)
                .nodes()
                .any(|node| node.kind.is_job() || node.kind.is_container()),
            "{path}"
        );
    }
}

#[test]
fn hostile_names_are_shown_and_bounded() {
    let long = "x".repeat(10_000);
    for path in [
        format!("/system.slice/{long}.service"),
        format!("/lxc.payload.{long}"),
        format!("/{long}"),
        format!("/user.slice/user-1.slice/user@1.service/{long}.scope"),
        "/system.slice/\u{1b}[2J\n\u{202e}.service".to_owned(),
        "/a".repeat(5_000),
    ] {
        let tenant = of(&path);
        let texts = tenant
            .nodes()
            .map(|node| node.id.clone())
            .chain(tenant.labels.values().cloned());
        for text in texts {
            assert!(text.len() <= 200 && text.chars().all(is_printable), "{text}");
        }
        assert!(tenant.nodes().count() <= DEEPEST);
    }
    // Two long names are two tenants.
    assert_ne!(of(&format!("/{long}1")), of(&format!("/{long}2")));
}

/// Pieces that mean something, and others.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "system.slice",
        "user.slice",
        "user-1000.slice",
        "user@1000.service",
        "session-1.scope",
        "slurmstepd.scope",
        "job_1",
        "slurm",
        "uid_1",
        "kubepods",
        "pod11",
        "lxc",
        "x.service",
        "..",
        "oar",
        "a_1",
        "machine.slice",
        "pbs_jobs.service",
        "jobid",
        "htcondor",
        "condor_x",
        "machine-.scope",
        ".service",
        "kubepods-pod.slice:a:b",
    ];
    prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        Just(format!("docker-{ID}.scope")),
        Just(ID.to_owned()),
        ".{0,20}",
    ]
}

#[test]
fn the_highest_directory_of_a_tenant() {
    let docker = format!("/system.slice/docker-{ID}.scope");
    let inside = format!("{docker}/init/deep");
    let in_job = format!("/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/docker-{ID}.scope");
    for (path, by_root, top) in [
        ("/system.slice/web.service", 2, Some("/system.slice/web.service")),
        (
            "/system.slice/web.service/workers/1",
            2,
            Some("/system.slice/web.service"),
        ),
        ("/system.slice", 1, Some("/system.slice")),
        (&docker, 2, Some(&*docker)),
        (&inside, 3, Some(&docker)),
        (
            "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
            6,
            Some("/system.slice/slurmstepd.scope/job_7"),
        ),
        (&in_job, 7, Some(&*in_job)),
        ("/slurm/uid_0/job_7/step_0", 4, Some("/slurm/uid_0/job_7")),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope/x",
            3,
            Some("/user.slice/user-1000.slice/user@1000.service/init.scope"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service",
            3,
            Some("/user.slice/user-1000.slice"),
        ),
        ("/teams/ml/run/1", 2, Some("/teams/ml")),
        ("/teams/ml/run/1", 4, Some("/teams/ml/run/1")),
        ("/", 0, None),
        ("cgroup:7", 0, None),
    ] {
        assert_eq!(top_of(path, by_root), top, "{path}");
    }
}

proptest! {
    #[test]
    fn the_highest_directory_is_the_tenants(parts in prop::collection::vec(piece(), 1..9), by_root in 0..10usize) {
        let path = format!("/{}", parts.join("/"));
        if let Some(top) = top_of(&path, by_root) {
            prop_assert!(path.starts_with(top) && top.len() > 1, "{top} of {path}");
        }
    }

    #[test]
    fn any_path_has_a_tenant_that_is_bounded_and_the_same_again(
        parts in prop::collection::vec(piece(), 0..12), by_root in 0..14usize
    ) {
        let path = format!("/{}", parts.join("/"));
        let tenant = tenant_of(&path, by_root);
        prop_assert_eq!(&tenant, &tenant_of(&path, by_root));
        for node in tenant.nodes() {
            prop_assert!(!node.id.is_empty() && node.id.len() <= 200 && node.id.chars().all(is_printable));
        }
    }

    /// Below a directory of a user's there is nothing whose id another place could have.
    #[test]
    fn below_a_users_directory_every_id_says_whose_it_is(parts in prop::collection::vec(piece(), 0..8)) {
        for (prefix, by_root, owner) in [
            ("/user.slice/user-1000.slice/user@1000.service", 3, "1000"),
            ("/teams/ml", 2, "/teams/ml"),
        ] {
            let tenant = tenant_of(&format!("{prefix}/{}", parts.join("/")), by_root);
            for node in tenant.nodes().filter(|node| node.kind != Kind::Unknown) {
                let own = node.id.strip_prefix(owner);
                prop_assert!(own.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{}", node);
            }
        }
    }

    /// Text that is not a path at all.
    #[test]
    fn any_text(path in ".{0,300}", by_root in 0..70usize) {
        tenant_of(&path, by_root);
    }
}
