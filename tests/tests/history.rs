//! The history of an agent on the real kernel: roll-ups by tenant that every command reads, and that add up to what the
//! finished tenants had.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use dlpm_tests::{
    agent::{ByDevice, agent, energy_of, finished, wait_for, wait_for_intervals},
    cgroup::Cgroup,
    command::Dlpm,
    log::number,
    powercap::{Powercap, node},
    require_dlpm,
    tenant::Tenant,
    tenant_program,
};
use serde_json::Value;

#[test]
fn the_history_has_what_each_tenant_used() {
    require_dlpm!();
    let (folder, tree) = (tempfile::tempdir().unwrap(), Powercap::start(node()));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let above = Cgroup::create("history");
    let mut running = agent(&tree, folder.path()).args(["--history-interval", "1s"]).start();
    wait_for_intervals(&mut running, folder.path(), 1);
    let mut ended = Vec::new();
    for number in [1, 2] {
        let id = format!("{number:064x}");
        let cgroup = above.create_inside(&format!("docker-{id}.scope"));
        let mut process = Some(Tenant::named(tenant_program!(), "tenant", None, None));
        cgroup.add(process.as_ref().unwrap().pid());
        wait_for_intervals(&mut running, folder.path(), 14);
        drop(process.take());
        cgroup.wait_until_empty();
        drop(cgroup);
        ended.push(format!("docker:{id}"));
    }
    wait_for(&mut running, folder.path(), "both ends", |kept| {
        ended.iter().all(|node| kept.ended.contains(node))
    });
    let history = folder.path().join("history");
    // What there is so far can be proved while the agent goes on.
    Dlpm::new(["verify"])
        .arg(&history)
        .run()
        .exited(0)
        .prints(&["still being written"]);
    running.end_with(libc::SIGTERM).exited(0);
    let verified = Dlpm::new(["verify"]).arg(&history).run().exited(0);
    assert!(verified.stdout.contains("roll-up"), "{}", verified.stdout);
    // Services of this machine may have ended meanwhile as well.
    let agrees = verified
        .stdout
        .lines()
        .find(|line| line.starts_with("finished.jsonl: "));
    assert!(
        agrees.is_some_and(|line| !line.starts_with("finished.jsonl: 0 ")),
        "{}",
        verified.stdout
    );
    let mut used: BTreeMap<String, ByDevice> = BTreeMap::new();
    let text = fs::read_to_string(history.join("power_metrics.json")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut rollups = 0;
    for line in lines.filter(|line| line["dlpm"]["rollup"].is_u64()) {
        rollups += 1;
        for row in line["dlpm"]["rows"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["row"] == "tenant")
        {
            let tenant = used.entry(row["tenant"].as_str().unwrap().to_owned()).or_default();
            for (device, energy_uj) in row["energy_uj"].as_object().unwrap() {
                *tenant.entry(device.clone()).or_default() += number(energy_uj);
            }
        }
    }
    assert!(rollups >= 2, "{text}");
    let finished = finished(folder.path());
    for node in &ended {
        let line = finished.iter().find(|line| line["tenant"] == node.as_str());
        let counted = energy_of(line.unwrap_or_else(|| unreachable!("{node} in {finished:?}")));
        assert!(counted.values().sum::<u64>() > 0, "{counted:?}");
        assert_eq!(used[node], counted, "{node}");
    }

    let report = Dlpm::new(["report", "--by", "tenant"]).arg(&history).run().exited(0);
    assert!(report.stdout.contains(&ended[0][..20]), "{}", report.stdout);
    let page = folder.path().join("page.html");
    Dlpm::new(["report", "--html"]).arg(&page).arg(&history).run().exited(0);
    let plot = folder.path().join("plot.svg");
    Dlpm::new(["plot", "--metric", "zone:package-0", "--output"])
        .arg(&plot)
        .arg(&history)
        .run()
        .exited(0);
    assert!(page.exists() && plot.exists());
}
