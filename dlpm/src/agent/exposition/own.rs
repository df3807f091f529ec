//! What the agent says of itself: whether the sums match, whether it keeps up, and what it could not do.

use super::{
    super::facts::Snapshot,
    page::{Family, Page, Type, Value},
};

fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: None,
        kind: Type::Counter,
        help,
    }
}

/// A counter that goes on after a restart of the agent.
fn count(page: &mut Page, name: &'static str, help: &'static str, value: u64) {
    page.family(counter(name, help)).put(&[], Value::Count(value));
}

/// A counter that was 0 when this agent started.
fn count_since(started_unix_ns: i64, page: &mut Page, name: &'static str, help: &'static str, value: u64) {
    page.family(counter(name, help))
        .since(started_unix_ns)
        .put(&[], Value::Count(value));
}

fn gauge(page: &mut Page, name: &'static str, unit: Option<&'static str>, help: &'static str, value: Value) {
    let family = Family {
        name,
        unit,
        kind: Type::Gauge,
        help,
    };
    page.family(family).put(&[], value);
}

pub(super) fn agent(page: &mut Page, snapshot: &Snapshot, version: &str) {
    let (counters, facts, disk) = (&snapshot.counters, &snapshot.facts, &snapshot.disk);
    let started = facts.started_unix_ns;
    let info = Family {
        name: "dlpm_agent",
        unit: None,
        kind: Type::Info,
        help: "Version of dlpm, and what becomes of idle energy.",
    };
    let policy = facts.idle_policy.as_str();
    page.family(info)
        .put_with([("version", version), ("idle_policy", policy)], Value::Count(1));

    let mut series = page.family(Family {
        name: "dlpm_agent_energy_difference_joules",
        unit: Some("joules"),
        kind: Type::Gauge,
        help: "What the meters counted less what all tenants and rows have. Anything but 0 is an error of dlpm.",
    });
    for (index, device) in counters.devices.iter().enumerate() {
        let difference_uj = counters.difference_uj(index);
        series.put_with([("device", device.as_str())], Value::Micro(difference_uj));
    }
    let difference_ns = counters.difference_ns();
    let what = "Time of all CPUs less what all tenants and rows have. Anything but 0 is an error of dlpm.";
    let name = "dlpm_agent_cpu_difference_seconds";
    gauge(page, name, Some("seconds"), what, Value::Nano(difference_ns));

    let what = "Intervals that were measured.";
    count(page, "dlpm_agent_intervals", what, counters.intervals);
    let what = "Intervals in which the energy of tenants and rows was not what the meters counted.";
    count(
        page,
        "dlpm_agent_energy_law_broken_intervals",
        what,
        counters.energy_law_broken,
    );
    let what = "Intervals in which the time of a CPU did not add up.";
    count(
        page,
        "dlpm_agent_time_law_broken_intervals",
        what,
        counters.time_law_broken,
    );
    let what = "Intervals that were more than half longer than they were to be.";
    count_since(started, page, "dlpm_agent_late_intervals", what, facts.late_intervals);

    let seconds = Some("seconds");
    let what = "How long an interval is to be.";
    gauge(
        page,
        "dlpm_agent_interval_target_seconds",
        seconds,
        what,
        Value::nano(facts.interval_ns),
    );
    let what = "How long the newest interval was.";
    gauge(
        page,
        "dlpm_agent_interval_length_seconds",
        seconds,
        what,
        Value::nano(facts.length_ns),
    );
    let what = "How long it took to seal all CPUs at the end of the newest interval.";
    gauge(
        page,
        "dlpm_agent_seal_seconds",
        seconds,
        what,
        Value::nano(facts.seal_ns),
    );
    let what = "Unix time at the end of the newest interval.";
    let end = Value::Nano(counters.end_unix_ns.into());
    gauge(page, "dlpm_agent_interval_end_timestamp_seconds", seconds, what, end);
    let what = "Unix time at which the agent started.";
    let start = Value::Nano(started.into());
    gauge(page, "dlpm_agent_start_timestamp_seconds", seconds, what, start);

    let size = |number: usize| Value::Count(number.try_into().unwrap_or(u64::MAX));
    let what = "Tenants that have series now.";
    gauge(page, "dlpm_agent_tenants", None, what, size(counters.accounts.len()));
    let what = "Tenants that may have series at the same time.";
    gauge(page, "dlpm_agent_tenants_limit", None, what, size(facts.cap));
    let what = "Tenants that were counted in the row `others`, since the limit was reached when they came.";
    count(page, "dlpm_agent_tenants_refused", what, counters.refused_count);
    let what = "Tenants that have ended.";
    count(page, "dlpm_agent_tenants_finished", what, counters.finished_count);
    let what = "Intervals in which a user, account or namespace had no series of its own, since there were too many.";
    count(page, "dlpm_agent_groups_left_out", what, counters.groups_left_out);
    let what = "Who fetched this page in the last hour, or took it as a push.";
    gauge(page, "dlpm_agent_scrapers", None, what, size(facts.scrapers));

    let what = "Writes of the state that failed.";
    count_since(started, page, "dlpm_agent_state_write_errors", what, disk.state_errors);
    let what = "Writes of finished tenants that failed.";
    count_since(
        started,
        page,
        "dlpm_agent_finished_write_errors",
        what,
        disk.finished_errors,
    );
    let what = "Finished tenants that wait for the disk.";
    gauge(
        page,
        "dlpm_agent_finished_waiting",
        None,
        what,
        Value::Count(disk.waiting_lines),
    );
    let what = "Zones of which it is not known for sure what they counted while no agent was running.";
    gauge(
        page,
        "dlpm_agent_unobserved_unknown_zones",
        None,
        what,
        Value::Count(facts.unobserved_unknown),
    );
    let what = "Times that a process for the network died and was started again.";
    count_since(started, page, "dlpm_agent_web_restarts", what, facts.web_restarts);
    if let Some(pushes) = facts.pushes {
        let what = "Pushes of these counters that a collector of OTLP took.";
        count_since(started, page, "dlpm_agent_otlp_pushes", what, pushes.taken);
        let what = "Pushes that did not reach it, or that it did not take whole.";
        count_since(started, page, "dlpm_agent_otlp_push_failures", what, pushes.failed);
    }

    let what = "What the kernel side had no room for or missed since the agent started, by what it is.";
    let mut series = page.family(counter("dlpm_agent_dropped", what));
    series.since(started);
    for (what, dropped) in &facts.dropped {
        series.put_with([("what", *what)], Value::Count(*dropped));
    }
}
