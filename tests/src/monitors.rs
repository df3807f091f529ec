//! Prometheus and its friends, as `cargo xtask test` finds or fetches them.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::web::wait_for;

/// The program that a variable names.
pub fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Leaves the test, visibly, where these programs are not named.
#[macro_export]
macro_rules! require_monitors {
    () => {
        for variable in [
            "DLPM_PROMTOOL",
            "DLPM_PROMETHEUS",
            "DLPM_VICTORIA_METRICS",
            "DLPM_OPENMETRICS_PYTHON",
        ] {
            if std::env::var_os(variable).is_none() {
                return $crate::kernel::skip(&format!("{variable} names no program; `cargo xtask test` sets it"));
            }
        }
    };
}

fn scrape(target: SocketAddr) -> String {
    format!("scrape_configs:\n- {{job_name: dlpm, static_configs: [{{targets: ['{target}']}}]}}\n")
}

/// What `contrib` holds.
pub fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(name)
}

/// Runs a program with this as its input; what it prints. It has to succeed.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{command:?}: {said:?}");
    said.concat()
}

/// `promtool` with these arguments.
pub fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("DLPM_PROMTOOL").unwrap());
    command.args(arguments);
    command
}

/// A real server that scrapes one target, killed when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Monitor {
    /// Prometheus, which scrapes every so many seconds and evaluates the rules of `contrib` as often; waits until it
    /// answers.
    pub fn prometheus(target: SocketAddr, seconds: u64) -> Self {
        let config = format!(
            "global: {{scrape_interval: {seconds}s, evaluation_interval: {seconds}s}}\nrule_files: [{}, {}]\n{}",
            contrib("prometheus/dlpm-rules.yml").display(),
            contrib("prometheus/dlpm-alerts.yml").display(),
            scrape(target),
        );
        Self::start("DLPM_PROMETHEUS", &config, "/-/ready", |config, data, address| {
            vec![
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
            ]
        })
    }

    /// VictoriaMetrics, which scrapes every so many seconds and shows what it has at once; waits until it answers.
    pub fn victoria_metrics(target: SocketAddr, seconds: u64) -> Self {
        let config = format!("global: {{scrape_interval: {seconds}s}}\n{}", scrape(target));
        Self::start("DLPM_VICTORIA_METRICS", &config, "/health", |config, data, address| {
            vec![
                format!("-promscrape.config={config}"),
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
                "-search.latencyOffset=0s".to_owned(),
                "-search.disableCache".to_owned(),
            ]
        })
    }

    fn start(
        variable: &str,
        config: &str,
        ready: &str,
        arguments: impl FnOnce(&str, &str, SocketAddr) -> Vec<String>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scrape.yml");
        fs::write(&path, config).unwrap();
        // Free for a moment: nobody else on this machine takes ports of loopback by chance.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = folder.path().join("data");
        let child = Command::new(program(variable).unwrap())
            .args(arguments(path.to_str().unwrap(), data.to_str().unwrap(), address))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let monitor = Self {
            child,
            address,
            _folder: folder,
        };
        wait_for(variable, || monitor.get(ready));
        monitor
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: no memory is involved; the child has not been waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), signal) }, 0);
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut answer = ureq::get(format!("http://{}{path}", self.address)).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    /// The series that a query returns now.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Value> {
        self.ask(query, &[])
    }

    /// The series that it returned at a time, in seconds since 1970.
    #[track_caller]
    pub fn query_at(&self, query: &str, time: &str) -> Vec<Value> {
        self.ask(query, &[("time", time)])
    }

    #[track_caller]
    fn ask(&self, query: &str, more: &[(&str, &str)]) -> Vec<Value> {
        let url = format!("http://{}/api/v1/query", self.address);
        let asked = ureq::get(url).query("query", query).query_pairs(more.iter().copied());
        let mut answer = match asked.call() {
            Ok(answer) => answer,
            Err(error) => panic!("{query}: {error}"),
        };
        let answer: Value = answer.body_mut().read_json().unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// What its API says at a path.
    pub fn api(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).unwrap()).unwrap()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
