use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use serde_json::json;
use tempfile::TempDir;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const POD: &str = "11111111-2222-3333-4444-555555555555";

/// A file system with runtimes and users, a tree of cgroups, and processes.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for folder in ["root/etc", "proc/self", "cgroup"] {
            fs::create_dir_all(node.folder.path().join(folder)).unwrap();
        }
        fs::set_permissions(node.path("cgroup"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(node.path("proc/self/mountinfo"), "").unwrap();
        node.write(
            "root/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        );
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, contents: impl ToString) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents.to_string()).unwrap();
        path
    }

    fn start(&self) -> Tenants {
        let roots = Roots {
            rootfs: self.path("root"),
            procfs: self.path("proc"),
        };
        Tenants::start(roots, true, &CgroupTree::at(&self.path("cgroup")))
    }

    /// The tenant of a path once its names were looked for, as `kind:id` and labels in the order of their names.
    fn tenant(&self, path: &str) -> (String, Vec<(Label, String)>) {
        let mut tenants = self.start();
        let path = path.replace("ID", ID).replace("POD", &POD.replace('-', "_"));
        tenants.of_path(&path);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            tenants.settle();
            let tenant = tenants.of_path(&path);
            let is_final = tenants.names.is_none()
                || tenants.labels.contains_key(&tenant.node)
                || Request::of(&tenant, &tenants.mount, &path).is_none();
            if is_final || Instant::now() > until {
                let tenant = tenants.of_path(&path);
                let labels = tenant.labels.iter().map(|(label, value)| (*label, value.to_string()));
                return (tenant.to_string().replace(ID, "ID"), labels.collect());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn labels(&self, path: &str) -> Vec<(Label, String)> {
        self.tenant(path).1
    }
}

fn labels(pairs: &[(Label, &str)]) -> Vec<(Label, String)> {
    pairs
        .iter()
        .map(|(label, value)| (*label, (*value).to_owned()))
        .collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn names_of_docker() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    node.write(
        &format!("root/var/lib/docker/containers/{ID}/config.v2.json"),
        json!({"Name": "/web", "Config": {"Image": "nginx:1", "Labels": {
            "com.docker.compose.project": "shop", "com.docker.compose.service": "front", "other": "x"}}}),
    );
    let expected = labels(&[
        (Label::ContainerName, "web"),
        (Label::Image, "nginx:1"),
        (Label::ComposeProject, "shop"),
        (Label::ComposeService, "front"),
    ]);
    assert_eq!(
        node.tenant("/system.slice/docker-ID.scope"),
        ("docker:ID".to_owned(), expected)
    );
    // One of the same name in a container, or in a user's directory, is none of it.
    assert_eq!(node.labels(&format!("/docker/{OTHER}/docker-ID.scope")), []);
}

#[test]
fn names_of_pods_and_their_containers() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let scope = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD.slice/cri-containerd-ID.scope";
    let uid = (Label::PodUid, POD);
    assert_eq!(node.labels(scope), labels(&[uid]), "nothing is there");
    node.write(&format!("root/var/log/pods/ml-team_trainer-0_{POD}/worker/0.log"), "");
    let of_logs = labels(&[(Label::PodName, "trainer-0"), (Label::PodNamespace, "ml-team"), uid]);
    assert_eq!(node.labels(scope), of_logs);
    assert_eq!(
        node.tenant("/kubepods.slice/kubepods-podPOD.slice"),
        (format!("pod:{POD}"), of_logs)
    );
    let bundle = format!("root/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json");
    node.write(
        &bundle,
        json!({"annotations": {
            "io.kubernetes.cri.container-name": "worker", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": "pause:1", "io.kubernetes.cri.sandbox-name": "trainer-0",
            "io.kubernetes.cri.sandbox-namespace": "ml-team", "number": 7}}),
    );
    let expected = labels(&[
        (Label::ContainerName, "worker"),
        (Label::Image, "pause:1"),
        (Label::PodName, "trainer-0"),
        (Label::PodNamespace, "ml-team"),
        uid,
    ]);
    assert_eq!(node.tenant(scope), ("kubernetes:ID".to_owned(), expected));
    fs::remove_file(node.path(&bundle)).unwrap();
    node.write(
        &format!("root/run/containers/storage/overlay-containers/{ID}/userdata/config.json"),
        json!({"annotations": {"io.kubernetes.container.name": "worker", "io.kubernetes.pod.name": "p",
            "io.kubernetes.pod.namespace": "n", "io.kubernetes.cri-o.ImageName": "i"}}),
    );
    let of_crio = labels(&[
        (Label::ContainerName, "worker"),
        (Label::Image, "i"),
        (Label::PodName, "p"),
        (Label::PodNamespace, "n"),
        uid,
    ]);
    assert_eq!(
        node.labels("/kubepods.slice/kubepods-podPOD.slice/crio-ID.scope"),
        of_crio
    );
}

#[test]
fn names_of_podman_of_root_and_of_a_user() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let list = |name: &str| {
        json!([{"id": OTHER, "names": ["other"]}, {"id": ID, "names": [name],
            "metadata": json!({"image-name": "localhost/bb:1", "name": name}).to_string()}])
    };
    node.write(
        "root/var/lib/containers/storage/overlay-containers/containers.json",
        list("web-root"),
    );
    let storage = "root/home/alice/.local/share/containers/storage/vfs-containers";
    let own = node.write(&format!("{storage}/volatile-containers.json"), list("web"));
    let named = |name| labels(&[(Label::ContainerName, name), (Label::Image, "localhost/bb:1")]);
    assert_eq!(
        node.labels("/machine.slice/libpod-ID.scope/container"),
        named("web-root")
    );
    let path = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container";
    chown(&own, Some(1000), Some(1000)).unwrap();
    let (tenant, found) = node.tenant(path);
    assert_eq!(tenant, "podman:1000/ID");
    let alice = |more: Vec<(Label, String)>| {
        let mut all = more;
        all.push((Label::User, "alice".to_owned()));
        all
    };
    assert_eq!(found, alice(named("web")));
    // What a user may do with their files changes nothing but their own labels.
    chown(&own, Some(1001), None).unwrap();
    assert_eq!(node.labels(path), alice(Vec::new()));
    fs::remove_file(&own).unwrap();
    symlink(
        node.path("root/var/lib/containers/storage/overlay-containers/containers.json"),
        &own,
    )
    .unwrap();
    assert_eq!(node.labels(path), alice(Vec::new()));
}

#[test]
fn files_that_are_no_help() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let path = format!("root/var/lib/docker/containers/{ID}/config.v2.json");
    let scope = "/system.slice/docker-ID.scope";
    for contents in [
        "",
        "not JSON",
        "[]",
        "7",
        "{\"Name\": 7}",
        "{\"Config\": []}",
        "{\"Name\": \"/a\"",
    ] {
        node.write(&path, contents);
        assert_eq!(node.labels(scope), [], "{contents}");
    }
    fs::File::create(node.path(&path)).unwrap().set_len(1 << 34).unwrap();
    assert_eq!(node.labels(scope), []);
    fs::remove_file(node.path(&path)).unwrap();
    node.write("root/elsewhere", json!({"Name": "/stolen"}));
    symlink(node.path("root/elsewhere"), node.path(&path)).unwrap();
    assert_eq!(node.labels(scope), []);
    fs::remove_file(node.path(&path)).unwrap();
    // Long, and with what would move a terminal's cursor.
    node.write(
        &path,
        json!({"Name": format!("/\u{1b}[2J{}", "x".repeat(10_000)), "Config": {"Labels": null}}),
    );
    let found = node.labels(scope);
    let [(Label::ContainerName, name)] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(name.len() == 200 && name.starts_with("?[2Jxxx"), "{name}");
}

#[test]
fn ctr_is_known_by_its_bundle() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    fs::create_dir_all(node.path("cgroup/default/ctr1")).unwrap();
    assert_eq!(node.tenant("/default/ctr1").0, "cgroup:/default/ctr1");
    node.write(
        "root/run/containerd/io.containerd.runtime.v2.task/default/ctr1/config.json",
        json!({"annotations": null}),
    );
    assert_eq!(node.tenant("/default/ctr1").0, "containerd:default:ctr1");
    // Who owns the namespace's directory can make any name in it.
    chown(node.path("cgroup/default"), Some(1000), None).unwrap();
    assert_eq!(node.tenant("/default/ctr1").0, "cgroup:/default");
}

/// A process with this title, of this user, in this cgroup.
fn process(node: &Node, pid: u32, cgroup: &str, title: &str, uid: u32, environment: &str) {
    let folder = node.path(&format!("proc/{pid}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("cmdline"), title).unwrap();
    fs::write(folder.join("environ"), environment).unwrap();
    let own = Path::new("/proc/self");
    fs::write(folder.join("stat"), fs::read(own.join("stat")).unwrap()).unwrap();
    let status = fs::read_to_string(own.join("status")).unwrap();
    let owned = |line: &str| match line.starts_with("Uid:") {
        true => format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        false => format!("{line}\n"),
    };
    fs::write(folder.join("status"), status.lines().map(owned).collect::<String>()).unwrap();
    chown(&folder, Some(uid), None).unwrap();
    node.write(&format!("cgroup{cgroup}/cgroup.procs"), format!("{pid}\n"));
}

#[test]
fn slurm_jobs_by_number_sluid_title_and_environment() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let job = "/system.slice/node1_slurmstepd.scope/job_7";
    process(
        &node,
        70,
        &format!("{job}/step_batch/user/task_0"),
        "sh",
        1000,
        "SLURM_JOB_ID=1\0SLURM_JOB_NAME=train\0SLURM_JOB_PARTITION=main\0SLURM_CLUSTER_NAME=c1\0",
    );
    process(
        &node,
        71,
        &format!("{job}/step_0/user/task_0"),
        "x",
        1000,
        "SLURM_JOB_NAME=step\0",
    );
    let expected = labels(&[
        (Label::SlurmJobId, "7"),
        (Label::JobName, "train"),
        (Label::Partition, "main"),
        (Label::Cluster, "c1"),
        // Of the process, and not of what it says.
        (Label::User, "alice"),
    ]);
    // The environment says that it is another job's: nothing comes of it.
    assert_eq!(
        node.tenant(&format!("{job}/step_0/user/task_0")),
        ("slurm:7".to_owned(), expected)
    );

    let by_sluid = "/system.slice/slurmstepd.scope/s0AB1CD2EF3GH4";
    let task = format!("{by_sluid}/step_0/user/task_0");
    process(&node, 80, &task, "slurmstepd: [1.0]", 1000, "SLURM_JOB_ID=1\0");
    assert_eq!(node.tenant(&task).0, "slurm:s0AB1CD2EF3GH4");
    // A title that is not root's says nothing.
    process(
        &node,
        81,
        &format!("{by_sluid}/step_0/slurm"),
        "slurmstepd: [9.0]",
        1000,
        "",
    );
    assert_eq!(node.tenant(&task).0, "slurm:s0AB1CD2EF3GH4");
    process(
        &node,
        81,
        &format!("{by_sluid}/step_0/slurm"),
        "slurmstepd: [9.0]\0\0",
        0,
        "",
    );
    let (tenant, found) = node.tenant(&task);
    assert_eq!(tenant, "slurm:9");
    assert!(found.contains(&(Label::SlurmJobId, "9".to_owned())), "{found:?}");
}

#[test]
fn a_job_keeps_the_id_that_it_had_first() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let job = "/system.slice/slurmstepd.scope/s0AB1CD2EF3GH4";
    let mut tenants = node.start();
    // Its directories are made before its daemon has its title.
    tenants.created(job);
    tenants.created(&format!("{job}/step_0/slurm"));
    process(&node, 81, &format!("{job}/step_0/slurm"), "slurmstepd: [9.0]", 0, "");
    assert_eq!(tenants.of_path(&format!("{job}/step_0/slurm")).to_string(), "slurm:9");
    fs::remove_dir_all(node.path("proc/81")).unwrap();
    assert_eq!(
        tenants.of_path(&format!("{job}/step_1/user/task_0")).to_string(),
        "slurm:9"
    );
    // And one of which it was not known when its energy was first attributed.
    let other = "/system.slice/slurmstepd.scope/s1AB1CD2EF3GH4";
    let of_other = |tenants: &mut Tenants, step: &str| tenants.of_path(&format!("{other}/{step}/slurm")).to_string();
    assert_eq!(of_other(&mut tenants, "step_0"), "slurm:s1AB1CD2EF3GH4");
    process(&node, 82, &format!("{other}/step_1/slurm"), "slurmstepd: [10.1]", 0, "");
    assert_eq!(of_other(&mut tenants, "step_1"), "slurm:s1AB1CD2EF3GH4");
}

#[test]
fn users_have_names_and_what_is_gone_is_forgotten() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let session = "/user.slice/user-1000.slice/session-3.scope";
    assert_eq!(
        node.tenant(session),
        ("session:3".to_owned(), labels(&[(Label::User, "alice")]))
    );
    let nobody = "/user.slice/user-4711.slice/session-4.scope";
    assert_eq!(node.labels(nobody), labels(&[(Label::User, "4711")]));
    let mut tenants = node.start();
    for number in 0..1000 {
        tenants.of_path(&format!("/system.slice/run-{number}.service"));
    }
    for _ in 0..=KEEP_INTERVALS {
        tenants.begin_interval();
        tenants.of_path(session);
    }
    assert_eq!(tenants.by_path.len(), 1);
}
