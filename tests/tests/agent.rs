//! The agent on the real kernel: what it counts adds up to the meter, over ends, kills and restarts.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use dlpm_tests::{
    agent::{ByDevice, Container, Kept, agent, begin, energy_of, finished, folder, wait_for, wait_for_intervals},
    cgroup::Cgroup,
    command::Dlpm,
    log::number,
    powercap::{Powercap, node},
    require_dlpm, tenant_program,
};

fn start(above: &Cgroup, number: u32) -> Container {
    Container::start(tenant_program!(), above, number)
}

#[test]
fn tenants_and_all_that_is_nobodys_are_the_meter_over_kills_and_restarts() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let above = Cgroup::create("agent");
    let stays = start(&above, 1);
    let mut running = agent(&tree, folder.path()).start();
    let begin_uj = begin(&mut running, folder.path());
    let mut ended = Vec::new();
    for number in 2..6 {
        let short = start(&above, number);
        wait_for_intervals(&mut running, folder.path(), 2);
        ended.push(short.end());
    }
    // Killed while one lives that is gone when the next agent starts.
    let short = start(&above, 6);
    wait_for(&mut running, folder.path(), "the newest tenant", |kept| {
        kept.tenants
            .get(&short.node)
            .is_some_and(|used| used.values().sum::<u64>() > 0)
    });
    running.killed();
    let at_kill = Kept::read(folder.path()).unwrap();
    at_kill.adds_up();
    thread::sleep(Duration::from_millis(300));
    ended.push(short.end());

    let mut running = agent(&tree, folder.path()).start();
    running.wait_for_message("the counters go on");
    let resumed = wait_for(&mut running, folder.path(), "an interval", |kept| {
        kept.intervals() > at_kill.intervals()
    });
    resumed.adds_up();
    for (tenant, used) in &at_kill.tenants {
        for (device, energy_uj) in used {
            assert!(resumed.tenants[tenant][device] >= *energy_uj, "{tenant} {device} fell");
        }
    }
    // 300 ms of 98 W at least.
    assert!(
        resumed.row_uj("unobserved") > 20_000_000,
        "{}",
        resumed.row_uj("unobserved")
    );
    let short = start(&above, 7);
    wait_for_intervals(&mut running, folder.path(), 3);
    ended.push(short.end());
    running.end_with(libc::SIGTERM).exited(0);

    let mut running = agent(&tree, folder.path()).start();
    let end = wait_for(&mut running, folder.path(), "all ends", |kept| {
        ended.iter().all(|node| kept.ended.contains(node))
    });
    assert!(!end.ended.contains(&stays.node) && end.tenants[&stays.node].values().sum::<u64>() > 0);
    running.end_with(libc::SIGTERM).exited(0);

    let end = Kept::read(folder.path()).unwrap();
    end.adds_up();
    // What the zones counted since the first interval began, by their own counters.
    for (zone, begin_uj) in &begin_uj {
        assert_eq!(end.zones[zone], end.counters[zone] - begin_uj, "{zone}");
    }
    // Every tenant that ended has one line, and it has all that it used.
    let mut lines: BTreeMap<String, Vec<ByDevice>> = BTreeMap::new();
    for line in finished(folder.path()) {
        let tenant = line["tenant"].as_str().unwrap().to_owned();
        lines.entry(tenant).or_default().push(energy_of(&line));
    }
    for node in &ended {
        let lines = &lines[node];
        assert_eq!(lines.len(), 1, "{node}");
        for (device, energy_uj) in &end.tenants[node] {
            assert_eq!(lines[0][device], *energy_uj, "{node} {device}");
        }
        assert!(lines[0].values().sum::<u64>() > 0, "{node}");
    }
    let numbers: Vec<u64> = finished(folder.path())
        .iter()
        .map(|line| number(&line["number"]))
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn tenants_beyond_the_cap_are_counted_together() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let above = Cgroup::create("agent-cap");
    let mut running = agent(&tree, folder.path()).args(["--max-tenants", "1"]).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let _late: Vec<Container> = (1..4).map(|number| start(&above, number)).collect();
    let kept = wait_for(&mut running, folder.path(), "energy of others", |kept| {
        kept.row_uj("others") > 0 && number(&kept.newest["refused_count"]) >= 3
    });
    kept.adds_up();
    assert_eq!(kept.tenants.len(), 1);
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn the_agent_holds_the_rights_that_it_needs() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let kept = dlpm_tests::agent::KEPT_CAPABILITIES;
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            let bits = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
            assert_eq!(bits & !kept, 0, "{status}");
        }
        threads += 1;
    }
    assert!(threads > 2, "{threads}");
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn one_agent_at_a_time_uses_a_folder_of_roots() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 1);
    let second = agent(&tree, folder.path()).run().exited(1);
    assert!(second.stderr.contains("another dlpm agent uses"), "{}", second.stderr);
    running.end_with(libc::SIGTERM).exited(0);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let open = agent(&tree, folder.path()).run().exited(1);
    assert!(
        open.stderr.contains("can be written by others than root"),
        "{}",
        open.stderr
    );
}

#[test]
fn a_state_of_another_start_of_the_machine_ends_its_tenants() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let above = Cgroup::create("agent-boot");
    let container = start(&above, 1);
    let mut running = agent(&tree, folder.path()).start();
    wait_for(&mut running, folder.path(), "its energy", |kept| {
        kept.tenants
            .get(&container.node)
            .is_some_and(|used| used.values().sum::<u64>() > 0)
    });
    running.killed();
    let last = Kept::read(folder.path()).unwrap();
    let state = folder.path().join("state");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&state).unwrap();
    fs::write(
        &state,
        text.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000"),
    )
    .unwrap();
    let mut running = agent(&tree, folder.path()).start();
    running.wait_for_message("the machine was started again");
    running.wait_until("new counters", || {
        fs::read_to_string(&state).is_ok_and(|text| text.contains(boot_id.trim()))
    });
    let anew = Kept::read(folder.path()).unwrap();
    running.end_with(libc::SIGTERM).exited(0);
    assert_eq!(anew.row_uj("unobserved"), 0);
    assert!(anew.intervals() < 5, "{}", anew.intervals());
    let lines = finished(folder.path());
    let line = lines
        .iter()
        .find(|line| line["tenant"] == container.node.as_str())
        .unwrap();
    assert_eq!(energy_of(line), last.tenants[&container.node]);
    assert_eq!(line["boot_id"], "00000000-0000-0000-0000-000000000000");
    // Once, however often it starts.
    let before = lines.len();
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    running.end_with(libc::SIGTERM).exited(0);
    let of_then = finished(folder.path())
        .into_iter()
        .filter(|line| line["boot_id"] != boot_id.trim());
    assert_eq!(of_then.count(), before);
}

#[test]
fn what_is_configured_is_checked_and_read_again() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let config = folder.path().join("agent.toml");
    let with = |text: &str| {
        fs::write(&config, text).unwrap();
        agent(&tree, folder.path()).arg("--config").arg(&config)
    };
    let checked = with("max_tenants = 7\n").arg("--check").run().exited(0);
    assert!(
        checked.stderr.contains("the configuration can be used"),
        "{}",
        checked.stderr
    );
    let wrong = with("max_tenant = 7\n").arg("--check").run().exited(1);
    assert!(wrong.stderr.contains("is `max_tenants` meant?"), "{}", wrong.stderr);
    let mut running = with("max_tenants = 7\n").start();
    wait_for_intervals(&mut running, folder.path(), 1);
    fs::write(&config, "max_tenants = 8\nfinished_size = \"10M\"\n").unwrap();
    running.signal(libc::SIGHUP);
    running.wait_for_message("these changes need a restart: finished_size");
    fs::write(&config, "max_tenants = what\n").unwrap();
    running.signal(libc::SIGHUP);
    running.wait_for_message("nothing was reloaded");
    wait_for_intervals(&mut running, folder.path(), 1);
    running.end_with(libc::SIGTERM).exited(0);
    let unprivileged = Dlpm::new(["agent"])
        .as_user(dlpm_tests::command::NOBODY)
        .run()
        .exited(1);
    assert!(unprivileged.stderr.contains("root"), "{}", unprivileged.stderr);
}

#[test]
fn a_full_disk_loses_nothing() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let disk = dlpm_tests::disk::SmallDisk::mount(4096);
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let above = Cgroup::create("agent-disk");
    let mut running = agent(&tree, disk.path()).start();
    wait_for_intervals(&mut running, disk.path(), 2);
    let before = Kept::read(disk.path()).unwrap();
    disk.fill();
    let short = start(&above, 1);
    running.wait_for_message("cannot be written");
    thread::sleep(Duration::from_millis(500));
    let node = short.end();
    disk.make_room();
    running.wait_for_message("can be written again");
    let after = wait_for(&mut running, disk.path(), "the end", |kept| kept.ended.contains(&node));
    after.adds_up();
    assert!(after.intervals() > before.intervals());
    running.end_with(libc::SIGTERM).exited(0);
    let lines = finished(disk.path());
    let line = lines.iter().find(|line| line["tenant"] == node.as_str()).unwrap();
    assert_eq!(energy_of(line), after.tenants[&node]);
}

#[test]
fn a_container_that_lives_for_a_third_of_a_second_has_its_name() {
    require_dlpm!();
    let (folder, tree, rootfs) = (folder(), Powercap::start(node()), folder());
    let above = Cgroup::create("agent-name");
    let mut running = agent(&tree, folder.path()).arg("--rootfs").arg(rootfs.path()).start();
    wait_for_intervals(&mut running, folder.path(), 1);
    let id = Container::id(1);
    let config = rootfs.path().join("var/lib/docker/containers").join(&id);
    fs::create_dir_all(&config).unwrap();
    // A name that controls a terminal, and is long.
    let name = format!("web\u{1b}[31m{}", "x".repeat(10_000));
    let text = serde_json::json!({ "Name": format!("/{name}"), "Config": { "Image": "busybox" } });
    fs::write(config.join("config.v2.json"), text.to_string()).unwrap();
    let container = start(&above, 1);
    thread::sleep(Duration::from_millis(300));
    let node = container.end();
    fs::remove_dir_all(rootfs.path().join("var")).unwrap();
    running.wait_until("its line", || {
        finished(folder.path())
            .iter()
            .any(|line| line["tenant"] == node.as_str())
    });
    running.end_with(libc::SIGTERM).exited(0);
    let lines = finished(folder.path());
    let line = lines.iter().find(|line| line["tenant"] == node.as_str()).unwrap();
    let name = line["labels"]["container_name"].as_str().unwrap();
    assert!(
        name.starts_with("web") && name.len() <= 200 && !name.contains('\u{1b}'),
        "{name}"
    );
    assert_eq!(line["labels"]["image"], "busybox");
}
