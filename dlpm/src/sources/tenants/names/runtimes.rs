//! What container runtimes and the kubelet write about a container.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::open::Base;
use crate::tenants::{Label, Labels, label};

/// Where containerd keeps the bundles of running containers.
const BUNDLES: [&str; 4] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
    "run/containerd/io.containerd.runtime.v1.linux",
    "run/k0s/containerd/io.containerd.runtime.v2.task",
];

/// Where CRI-O and Podman keep containers.
const STORAGES: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];

/// Texts by name, whatever else is there.
type Texts = BTreeMap<String, String>;

fn put(labels: &mut Labels, key: Label, value: Option<&str>) {
    if let Some(value) = value.and_then(label) {
        labels.insert(key, value.into());
    }
}

fn json<T: DeserializeOwned>(base: &Base, path: &str) -> Option<T> {
    serde_json::from_slice(&base.read(path).ok()?).ok()
}

/// `null` and values of another type are as good as nothing.
fn lenient<'de, D: Deserializer<'de>>(input: D) -> Result<Texts, D::Error> {
    let value = serde_json::Value::deserialize(input)?;
    let texts = value.as_object().into_iter().flatten();
    Ok(texts
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bundle {
    #[serde(deserialize_with = "lenient")]
    annotations: Texts,
}

/// A container of containerd in the namespace, as Kubernetes', `ctr`'s and nerdctl's are.
pub fn containerd(rootfs: &Path, namespace: &str, id: &str) -> Option<Labels> {
    BUNDLES.iter().find_map(|bundles| {
        let base = Base::of_root(&rootfs.join(bundles))?;
        let bundle: Bundle = json(&base, &format!("{namespace}/{id}/config.json"))?;
        Some(of_annotations(&bundle.annotations))
    })
}

/// Whether `ctr` made a container of that name.
pub fn is_ctr(rootfs: &Path, namespace: &str, name: &str) -> bool {
    BUNDLES
        .iter()
        .any(|bundles| rootfs.join(bundles).join(namespace).join(name).is_dir())
}

/// A container of CRI-O.
pub fn crio(rootfs: &Path, id: &str) -> Option<Labels> {
    STORAGES.iter().find_map(|storage| {
        let base = Base::of_root(&rootfs.join(storage))?;
        let folders = base.list(".");
        folders
            .iter()
            .filter(|name| name.ends_with("-containers"))
            .find_map(|folder| {
                let bundle: Bundle = json(&base, &format!("{folder}/{id}/userdata/config.json"))?;
                Some(of_annotations(&bundle.annotations))
            })
    })
}

/// The annotations of containerd's and CRI-O's plugins, and of nerdctl.
fn of_annotations(annotations: &Texts) -> Labels {
    let first = |keys: &[&str]| keys.iter().find_map(|key| annotations.get(*key)).map(String::as_str);
    let mut labels = Labels::new();
    let is_sandbox =
        first(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]) == Some("sandbox");
    put(
        &mut labels,
        Label::PodName,
        first(&[
            "io.kubernetes.cri.sandbox-name",
            "io.kubernetes.pod.name",
            "io.kubernetes.cri-o.KubeName",
        ]),
    );
    put(
        &mut labels,
        Label::PodNamespace,
        first(&[
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
            "io.kubernetes.cri-o.Namespace",
        ]),
    );
    let name = first(&[
        "io.kubernetes.cri.container-name",
        "io.kubernetes.container.name",
        "nerdctl/name",
    ]);
    put(
        &mut labels,
        Label::ContainerName,
        if is_sandbox { Some("POD") } else { name },
    );
    put(
        &mut labels,
        Label::Image,
        first(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
    );
    labels
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Config")]
    config: Option<DockerImage>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerImage {
    #[serde(rename = "Image")]
    image: Option<String>,
    #[serde(rename = "Labels", deserialize_with = "lenient")]
    labels: Texts,
}

/// A container of Docker, also one that Kubernetes made through it.
pub fn docker(rootfs: &Path, id: &str) -> Option<Labels> {
    let base = Base::of_root(&rootfs.join("var/lib/docker/containers"))?;
    let found: DockerConfig = json(&base, &format!("{id}/config.v2.json"))?;
    let config = found.config.unwrap_or_default();
    let text = |key: &str| config.labels.get(key).map(String::as_str);
    let mut labels = Labels::new();
    let in_pod = text("io.kubernetes.container.name");
    let name = found.name.as_deref().map(|name| name.trim_start_matches('/'));
    put(&mut labels, Label::ContainerName, in_pod.or(name));
    put(&mut labels, Label::Image, config.image.as_deref());
    put(&mut labels, Label::ComposeProject, text("com.docker.compose.project"));
    put(&mut labels, Label::ComposeService, text("com.docker.compose.service"));
    put(&mut labels, Label::PodName, text("io.kubernetes.pod.name"));
    put(&mut labels, Label::PodNamespace, text("io.kubernetes.pod.namespace"));
    Some(labels)
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    metadata: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "image-name")]
    image: Option<String>,
    name: Option<String>,
}

/// A container of root's Podman.
pub fn podman(rootfs: &Path, id: &str) -> Option<Labels> {
    stored(&Base::of_root(&rootfs.join("var/lib/containers/storage"))?, "", id)
}

/// A container of a user's Podman; `home` is the user's.
pub fn rootless_podman(home: &Path, uid: u32, id: &str) -> Option<Labels> {
    stored(&Base::of_user(home, uid)?, ".local/share/containers/storage/", id)
}

fn stored(base: &Base, storage: &str, id: &str) -> Option<Labels> {
    let folders = base.list(if storage.is_empty() { "." } else { storage });
    folders
        .iter()
        .filter(|name| name.ends_with("-containers"))
        .find_map(|folder| {
            ["containers.json", "volatile-containers.json"].iter().find_map(|list| {
                let all: Vec<Stored> = json(base, &format!("{storage}{folder}/{list}"))?;
                let found = all.into_iter().find(|container| container.id == id)?;
                let told = found
                    .metadata
                    .and_then(|text| serde_json::from_str::<Metadata>(&text).ok());
                let told = told.unwrap_or_default();
                let name = found.names.into_iter().flatten().next().or(told.name);
                let mut labels = Labels::new();
                put(&mut labels, Label::ContainerName, name.as_deref());
                put(&mut labels, Label::Image, told.image.as_deref());
                Some(labels)
            })
        })
}

/// A pod by its UID, from the folder of its logs: `NAMESPACE_POD_UID`.
pub fn pod(rootfs: &Path, uid: &str) -> Option<Labels> {
    let base = Base::of_root(&rootfs.join("var/log/pods"))?;
    let ending = format!("_{uid}");
    let folder = base.list(".").into_iter().find(|name| name.ends_with(&ending))?;
    // Names of Kubernetes hold no `_`.
    let (namespace, name) = folder.strip_suffix(&ending)?.split_once('_')?;
    let mut labels = Labels::new();
    put(&mut labels, Label::PodName, Some(name));
    put(&mut labels, Label::PodNamespace, Some(namespace));
    Some(labels)
}
