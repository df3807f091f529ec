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
        for variable in ["DLPM_PROMTOOL", "DLPM_PROMETHEUS", "DLPM_OPENMETRICS_PYTHON"] {
            if std::env::var_os(variable).is_none() {
                return $crate::kernel::skip(&format!("{variable} names no program; `cargo xtask test` sets it"));
            }
        }
    };
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

/// A real Prometheus that scrapes one target every second, and evaluates the rules of `contrib` as often.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it, and waits until it answers.
    pub fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}, {}]\nscrape_configs:\n\
             - {{job_name: dlpm, static_configs: [{{targets: ['{target}']}}]}}\n",
            contrib("prometheus/dlpm-rules.yml").display(),
            contrib("prometheus/dlpm-alerts.yml").display(),
        );
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        // Free for a moment: nobody else on this machine takes ports of loopback by chance.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program("DLPM_PROMETHEUS").unwrap())
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            child,
            address,
            _folder: folder,
        };
        wait_for("Prometheus", || prometheus.get("/-/ready"));
        prometheus
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut answer = ureq::get(format!("http://{}{path}", self.address)).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    /// The series that a query returns now.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Value> {
        let url = format!("http://{}/api/v1/query", self.address);
        let mut answer = match ureq::get(url).query("query", query).call() {
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

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
