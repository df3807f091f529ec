use super::*;
use tempfile::TempDir;

/// Any directory stands for a cgroup tree where only names matter.
fn tree(groups: &[&str]) -> (TempDir, CgroupTree) {
    let root = TempDir::new().unwrap();
    for group in groups {
        fs::create_dir_all(root.path().join(group)).unwrap();
    }
    fs::write(root.path().join("cgroup.procs"), "").unwrap();
    let tree = CgroupTree::at(root.path());
    (root, tree)
}

fn procfs(mountinfo: &str) -> TempDir {
    let procfs = TempDir::new().unwrap();
    fs::create_dir(procfs.path().join("self")).unwrap();
    fs::write(procfs.path().join("self/mountinfo"), mountinfo).unwrap();
    procfs
}

#[test]
fn names_and_paths() {
    let (root, tree) = tree(&["train.slice/job1", "web.slice/job2/deep", "a/train.slices"]);
    let absolute = format!("{}/web.slice/job2", root.path().display());
    for (wanted, expected) in [
        ("train.slice", "/train.slice"),
        ("/train.slice", "/train.slice"),
        ("/train.slice/", "/train.slice"),
        ("train.slice/job1", "/train.slice/job1"),
        ("job1", "/train.slice/job1"),
        ("job2/deep", "/web.slice/job2/deep"),
        ("./deep", "/web.slice/job2/deep"),
        (absolute.as_str(), "/web.slice/job2"),
        (&root.path().display().to_string(), "/"),
        ("/", "/"),
    ] {
        assert_eq!(tree.resolve(wanted).unwrap(), expected, "{wanted}");
    }
}

#[test]
fn unknown_names_bring_near_matches() {
    let (_root, tree) = tree(&["train.slice", "a/trian.slice", "web.slice", "database"]);
    let Err(CgroupError::Unknown { near, .. }) = tree.resolve("train.slic") else {
        panic!("found");
    };
    assert_eq!(near, ["/train.slice", "/a/trian.slice"]);
    let message = tree.resolve("train").unwrap_err().to_string();
    assert!(message.contains("Did you mean /train.slice"), "{message}");
    // A path is taken as it is: a name further down is only a suggestion.
    let message = tree.resolve("/trian.slice").unwrap_err().to_string();
    assert!(message.contains("/a/trian.slice"), "{message}");
    for wanted in ["", ".", "../etc", "/train.slice/..", "cgroup.procs", "zzz"] {
        assert!(
            matches!(tree.resolve(wanted), Err(CgroupError::Unknown { .. })),
            "{wanted}"
        );
    }
}

#[test]
fn at_most_five_near_matches_and_ten_candidates() {
    let many: Vec<String> = (0..12).map(|n| format!("tenant{n}/job")).collect();
    let (_root, tree) = tree(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let Err(CgroupError::Unknown { near, .. }) = tree.resolve("tenant") else {
        panic!("found");
    };
    assert_eq!(near.len(), 5);
    let error = tree.resolve("job").unwrap_err();
    let CgroupError::Ambiguous { candidates, count, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((candidates.len(), *count), (10, 12));
    assert!(error.to_string().contains("/tenant0/job, /tenant1/job"), "{error}");
}

#[test]
fn the_mount_that_shows_the_whole_tree_is_taken() {
    let procfs = procfs(
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
         33 31 0:38 /docker/1 /mnt/part rw - cgroup2 cgroup2 rw\n\
         34 31 0:38 / /sys/fs/cgroup/my\\040tree rw,relatime shared:9 - cgroup2 none rw,nsdelegate\n",
    );
    let tree = CgroupTree::find(procfs.path()).unwrap();
    assert_eq!(tree.mount_point(), Path::new("/sys/fs/cgroup/my tree"));
    assert_eq!(tree.mount_root(), "/");
}

#[test]
fn a_part_of_the_tree_is_better_than_nothing_and_says_so() {
    let procfs = procfs("33 31 0:38 /docker/1 /mnt/part rw - cgroup2 cgroup2 rw\n");
    let mut tree = CgroupTree::find(procfs.path()).unwrap();
    assert_eq!(tree.mount_root(), "/docker/1");
    for (id, path, expected) in [
        (u64::MAX, "/docker/1/a", Some("/a")),
        (u64::MAX - 1, "/docker/1", Some("/")),
        (u64::MAX - 2, "/docker/10", None),
    ] {
        tree.learn(id, path);
        assert_eq!(tree.path_of(id).as_deref(), expected, "{path}");
    }
}

#[test]
fn no_version_2_tells_how_to_mount_it() {
    let procfs = procfs("32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n");
    let error = CgroupTree::find(procfs.path()).unwrap_err();
    assert!(matches!(error, CgroupError::NoV2 { .. }));
    assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
    assert!(matches!(
        CgroupTree::find(&procfs.path().join("absent")),
        Err(CgroupError::Unreadable { .. })
    ));
}

#[test]
fn a_group_of_version_1_only_is_said_to_be_one() {
    let (v2, _) = tree(&["web.slice"]);
    let (v1, _) = tree(&["old/train.slice"]);
    let procfs = procfs(&format!(
        "32 31 0:29 / {} rw - cgroup cgroup rw,cpu\n33 31 0:38 / {} rw - cgroup2 cgroup2 rw\n",
        v1.path().display(),
        v2.path().display()
    ));
    let tree = CgroupTree::find(procfs.path()).unwrap();
    let absolute = format!("{}/old/train.slice", v1.path().display());
    for wanted in ["train.slice", "old/train.slice", "/old/train.slice", &absolute] {
        let error = tree.resolve(wanted).unwrap_err();
        let CgroupError::V1Only { found, .. } = &error else {
            panic!("{wanted}: {error}");
        };
        assert_eq!(*found, v1.path().join("old/train.slice"));
    }
    assert_eq!(tree.resolve("web.slice").unwrap(), "/web.slice");
}

#[test]
fn a_subtree_is_told_by_whole_names() {
    for (path, root, expected) in [
        ("/a", "/a", true),
        ("/a/b", "/a", true),
        ("/ab", "/a", false),
        ("/a", "/a/b", false),
        ("/a/b", "/", true),
        ("/", "/", true),
        ("/", "/a", false),
        ("/a/b", "/a/", true),
    ] {
        assert_eq!(inside(path, root), expected, "{path} in {root}");
    }
}

#[test]
fn ids_are_found_by_walking_where_handles_are_refused() {
    // A directory that is on no cgroup tree: the kernel refuses the handle.
    let (root, mut tree) = tree(&["a/b"]);
    let id = |group: &str| fs::metadata(root.path().join(group)).unwrap().ino();
    assert_eq!(tree.path_of(id("a/b")).as_deref(), Some("/a/b"));
    assert_eq!(tree.path_of(id("")).as_deref(), Some("/"));
    fs::create_dir(root.path().join("late")).unwrap();
    assert_eq!(tree.path_of(id("late")), None, "one walk an interval");
    tree.begin_interval();
    assert_eq!(tree.path_of(id("late")).as_deref(), Some("/late"));
}

#[test]
fn learned_paths_stay_while_they_are_used() {
    let (_root, mut tree) = tree(&[]);
    tree.learn(u64::MAX, "/gone");
    tree.learn(u64::MAX - 1, "/never asked for");
    tree.learn(u64::MAX, "/other");
    for _ in 0..2 * KEEP_INTERVALS {
        tree.begin_interval();
        assert_eq!(tree.path_of(u64::MAX).as_deref(), Some("/gone"));
    }
    assert_eq!(tree.cache.len(), 1);
    for _ in 0..=KEEP_INTERVALS {
        tree.begin_interval();
    }
    assert!(tree.cache.is_empty());
    assert_eq!(tree.path_of(u64::MAX), None);
}

#[test]
fn ids_of_the_real_tree() {
    let Ok(mut tree) = CgroupTree::find(Path::new("/proc")) else {
        eprintln!("skipped: no cgroup v2 tree is mounted");
        return;
    };
    let directory = tree.mount_point().join(format!("dlpm-test-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&directory) {
        eprintln!("skipped: {} cannot be created: {error}", directory.display());
        return;
    }
    let id = fs::metadata(&directory).unwrap().ino();
    let expected = format!("/dlpm-test-{}", std::process::id());
    let found = tree.by_handle(id);
    let resolved = tree.resolve(expected.trim_start_matches('/'));
    let held = tree.directory.as_ref().map(|mount| handle::open(mount, id));
    fs::remove_dir(&directory).unwrap();
    assert_eq!(resolved.unwrap(), expected);
    let Some(held) = held else {
        eprintln!("skipped: opening by handle needs CAP_DAC_READ_SEARCH");
        return;
    };
    assert_eq!(found.unwrap(), Some(expected));
    let path = handle::path_of_fd(&tree.fd_links, &held.unwrap()).unwrap();
    assert_eq!(path, directory, "the mark of a removed directory is taken off");
    let root = fs::metadata(tree.mount_point()).unwrap().ino();
    assert_eq!(tree.path_of(root).as_deref(), Some("/"));
    assert_eq!(tree.path_of(id), None, "gone, and never learned");
    assert_eq!(tree.walked_in, None, "a stale handle needs no walk");
}
