//! Prometheus of Debian scrapes the agent, as the documents say.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    metered::STATE,
    shell::{sh, wait_for},
};
use crate::agent::{energy_of, finished as lines_in};

/// What Prometheus answers: labels and value of each series.
pub fn query(query: &str) -> Vec<(Value, f64)> {
    let text = sh(&format!(
        "curl -sfG localhost:9090/api/v1/query --data-urlencode 'query={query}'"
    ));
    let answer: Value = serde_json::from_str(&text).unwrap();
    let series = answer["data"]["result"].as_array().unwrap().iter();
    series
        .map(|one| {
            (
                one["metric"].clone(),
                one["value"][1].as_str().unwrap().parse().unwrap(),
            )
        })
        .collect()
}

/// With the configuration, rules and alerts of the package.
pub fn starts() {
    sh(
        "sed -i '/^scrape_configs/d' /etc/prometheus/prometheus.yml && cat /usr/share/dlpm/prometheus/scrape.yml >> \
        /etc/prometheus/prometheus.yml",
    );
    sh("cp /usr/share/dlpm/prometheus/dlpm-rules.yml /usr/share/dlpm/prometheus/dlpm-alerts.yml /etc/prometheus/");
    sh("promtool check config /etc/prometheus/prometheus.yml");
    sh("systemctl start prometheus");
    wait_for("a scrape", || {
        let ready = super::shell::attempt("curl -sf localhost:9090/-/ready").0;
        (ready && query("up{job=\"dlpm\"}").iter().any(|(_, up)| *up > 0.5)).then_some(())
    });
}

/// The largest value of a series is what the tenant used, to the microjoule; and everyone has what the node counted.
pub fn sums() {
    let mut used: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in lines_in(Path::new(STATE)) {
        for (device, energy_uj) in energy_of(&line) {
            let tenant = line["tenant"].as_str().unwrap().to_owned();
            *used.entry((tenant, device)).or_default() += energy_uj;
        }
    }
    assert!(!used.is_empty());
    // Those that have ended stay until each scraper has fetched them twice.
    let query_of_all = "max by (kind, tenant, device) (max_over_time(dlpm_tenant_energy_joules_total[2h]))";
    let mut missing = Vec::new();
    wait_for("Prometheus to have everything that ended", || {
        let found = query(query_of_all);
        let found: BTreeMap<(String, String), u64> = found
            .iter()
            .map(|(labels, joules)| {
                let text = |name: &str| labels[name].as_str().unwrap();
                let tenant = format!("{}:{}", text("kind"), text("tenant"));
                ((tenant, text("device").to_owned()), micro(*joules))
            })
            .collect();
        missing = used
            .iter()
            // A unit that runs again has more.
            .filter(|(key, uj)| **uj > 0 && found.get(*key).is_none_or(|found| found < *uj))
            .map(|(key, uj)| (key.clone(), *uj, found.get(key).copied()))
            .collect();
        missing.is_empty().then_some(())
    });
    let difference = query(
        "sum by (device) (dlpm_tenant_energy_joules_total) + on (device) sum by (device) (dlpm_row_energy_joules_total) - on \
         (device) sum by (device) (dlpm_node_energy_joules_total)",
    );
    assert!(!difference.is_empty());
    for (labels, joules) in difference {
        // Prometheus adds floating-point numbers.
        assert!(joules.abs() < 1e-6, "{labels}: {joules}");
    }
    let firing = query("ALERTS{alertstate=\"firing\"}");
    println!("  {} devices and tenants compared; alerts: {firing:?}", used.len());
}

fn micro(joules: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "joules of a test"
    )]
    let uj = (joules * 1e6).round() as u64;
    uj
}
