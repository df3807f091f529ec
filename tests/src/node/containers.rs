//! Containers of Podman, containerd, a kubelet and Docker.

use std::fs;

use super::{
    metered::{Wanted, cgroup_of, finished},
    shell::{sh, sh_as, wait_for},
};

/// An image with one program.
const IMAGE: &str = "/tmp/image.tar";

/// The root file system of the image, for runtimes that take a folder.
const ROOT: &str = "/opt/burn";

fn image() {
    sh(&format!(
        "mkdir -p {ROOT}/proc {ROOT}/sys {ROOT}/dev {ROOT}/etc && cp /t/dlpm-burn {ROOT}/burn"
    ));
    sh(&format!("tar -C {ROOT} -cf {IMAGE} . && chmod 644 {IMAGE}"));
}

/// Root's: with either runtime, in a pod, and in the unit that started it.
pub fn podman() {
    image();
    sh(&format!("podman import --quiet {IMAGE} localhost/burn:1"));
    let wanted = |name: &str, cgroup: &str| {
        let id = sh(&format!("podman inspect --format '{{{{.Id}}}}' {name}"));
        Wanted::new("podman", &id, cgroup.replace("ID", &id), 3000)
            .label("container_name", name)
            .label("image", "localhost/burn:1")
    };
    let run = |options: &str, name: &str| {
        sh(&format!(
            "podman run --detach --network none {options} --name {name} localhost/burn:1 /burn 3000"
        ));
    };
    run("", "web");
    run("--runtime runc", "other");
    run("--cgroups split", "split");
    sh("podman pod create --network none mypod");
    run("--pod mypod", "inside");
    let pod = sh("podman pod inspect --format '{{.ID}}' mypod");
    let all = [
        wanted("web", "/machine.slice/libpod-ID.scope"),
        wanted("other", "/machine.slice/libpod-ID.scope"),
        wanted("split", "/system.slice/node-test.service/libpod-payload-ID"),
        wanted(
            "inside",
            &format!("/machine.slice/machine-libpod_pod_{pod}.slice/libpod-ID.scope"),
        ),
    ];
    for container in &all {
        container.is_measured();
    }
    sh("podman rm --force --time 0 web other split && podman pod rm --force --time 0 mypod");
    for container in &all {
        finished(&container.node());
    }
}

/// A user's, whose names are in the user's home.
pub fn podman_rootless() {
    image();
    sh_as(
        "alice",
        1000,
        &format!("podman import --quiet {IMAGE} localhost/burn:1"),
    );
    sh_as(
        "alice",
        1000,
        "podman run --detach --network none --name mine localhost/burn:1 /burn 3000",
    );
    let id = sh_as("alice", 1000, "podman inspect --format '{{.Id}}' mine");
    let cgroup = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope");
    let container = Wanted::new("podman", format!("1000/{id}"), cgroup, 3000)
        .label("container_name", "mine")
        .label("user", "alice");
    container.is_measured();
    sh_as("alice", 1000, "podman rm --force --time 0 mine");
    finished(&container.node());
}

/// A task of `ctr` in containerd's own namespace.
pub fn burning_in_containerd(name: &str) -> Wanted {
    sh(&format!("ctr run --detach --rootfs {ROOT} {name} /burn 3000"));
    Wanted::new(
        "containerd",
        format!("default:{name}"),
        format!("/default/{name}"),
        3000,
    )
}

/// A container without anything above it.
pub fn containerd() {
    image();
    sh("systemctl start containerd");
    let container = burning_in_containerd("task");
    container.is_measured();
    sh("ctr task kill --signal KILL task; sleep 1; ctr container rm task");
    finished(&container.node());
}

/// A pod as a kubelet makes it, by the calls of its interface to runtimes.
pub fn kubelet() {
    // The image that holds a pod together, too.
    sh(&format!(
        "podman import --quiet --change 'CMD [\"/burn\",\"0\"]' {IMAGE} localhost/pause:1 && podman save --quiet --format \
         oci-archive --output /tmp/pause.tar localhost/pause:1"
    ));
    sh("ctr --namespace k8s.io images import --base-name localhost/pause /tmp/pause.tar");
    let started = sh("python3 /t/kubelet.py start");
    let id = started.lines().last().unwrap().trim();
    let cgroup = cgroup_of(&format!("cri-containerd-{id}.scope"));
    let container = Wanted::new("kubernetes", id, &cgroup, 3000)
        .label("pod_name", "trainer-0")
        .label("pod_namespace", "ml-team")
        .label("container_name", "worker")
        .label("pod_uid", "11111111-2222-3333-4444-555555555555");
    container.is_measured();
    sh("python3 /t/kubelet.py stop");
    let line = finished(&container.node());
    assert_eq!(line["labels"]["pod_name"], "trainer-0");
}

/// Docker starts only now: it takes half a minute of an emulated processor.
pub fn docker() {
    sh("systemctl start docker");
    wait_for("docker", || super::shell::attempt("docker version").0.then_some(()));
    sh(&format!("docker import {IMAGE} burn:1"));
    let id = sh("docker run --detach --network none --name dweb burn:1 /burn 3000 2>/dev/null");
    let id = id.lines().last().unwrap().trim();
    let container = Wanted::new("docker", id, format!("/system.slice/docker-{id}.scope"), 3000)
        .label("container_name", "dweb")
        .label("image", "burn:1");
    container.is_measured();
    sh("docker rm --force dweb");
    finished(&container.node());
    sh("systemctl stop docker docker.socket");
    fs::remove_file(IMAGE).unwrap();
}
