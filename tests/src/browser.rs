//! Headless Chromium, driven by the WebDriver protocol (W3C) through chromedriver.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// Longest time that one step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// No sandbox, since tests run as root; nothing that looks for a network.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// What the protocol calls the reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Leaves the test, visibly, where there is no browser. With `DLPM_REQUIRE_KERNEL=1` that is a failure.
#[macro_export]
macro_rules! require_browser {
    () => {
        match $crate::browser::Browser::start() {
            Some(browser) => browser,
            None => {
                return $crate::kernel::skip(
                    "DLPM_CHROMIUM and DLPM_CHROMEDRIVER name no browser; `cargo xtask test html` installs one",
                );
            }
        }
    };
}

/// A browser with one window; it ends when this is dropped.
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// Address of the session, once there is one.
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser that `cargo xtask test` found; `None` without one.
    pub fn start() -> Option<Self> {
        let chromium = env::var_os("DLPM_CHROMIUM")?;
        let chromedriver = env::var_os("DLPM_CHROMEDRIVER")?;
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = port(driver.stdout.take().unwrap());
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // Errors have a body that says what is wrong.
            .http_status_as_error(false)
            .build();
        let mut browser = Self {
            driver,
            agent: Agent::new_with_config(config),
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        arguments.push("--window-size=1200,900".to_owned());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium.to_str().unwrap(), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.post("", &capabilities);
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    /// Opens a file, and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, file: &Path) {
        let url = format!("file://{}", file.canonicalize().unwrap().display());
        self.post("/url", &json!({"url": url}));
    }

    /// What a function body returns in the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Clicks on the middle of the one element that a CSS selector finds first, as a user does: it scrolls there, and fails if
    /// something covers it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let element = found[ELEMENT].as_str().unwrap().to_owned();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Moves the pointer to a place in the window, in CSS pixels.
    #[track_caller]
    pub fn point_at(&self, x: i64, y: i64) {
        let moved = json!({"type": "pointerMove", "duration": 0, "x": x, "y": y, "origin": "viewport"});
        let mouse =
            json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [moved]});
        self.post("/actions", &json!({"actions": [mouse]}));
    }

    /// Presses and releases a key.
    #[track_caller]
    pub fn press(&self, key: char) {
        let key = key.to_string();
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// The page is looked at on a dark screen.
    #[track_caller]
    pub fn dark(&self) {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.post("/goog/cdp/execute", &command);
    }

    /// The window has this size, in CSS pixels.
    #[track_caller]
    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.post("/goog/cdp/execute", &command);
    }

    /// The page is laid out as on paper.
    #[track_caller]
    pub fn paper(&self) {
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"media": "print"}});
        self.post("/goog/cdp/execute", &command);
    }

    /// What the browser put into its console since the last time.
    #[track_caller]
    pub fn console(&self) -> Vec<Value> {
        self.post("/se/log", &json!({"type": "browser"}))
            .as_array()
            .unwrap()
            .clone()
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let mut response = self
            .agent
            .post(format!("{}{path}", self.session))
            .send_json(body)
            .unwrap();
        let answer: Value = response.body_mut().with_config().limit(64 << 20).read_json().unwrap();
        assert!(response.status().is_success(), "{path} {body}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that chromedriver chose, as it says it.
fn port(stdout: impl Read + Send + 'static) -> u16 {
    let mut lines = BufReader::new(stdout).lines();
    let port = lines
        .by_ref()
        .map(|line| line.unwrap())
        .find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        })
        .unwrap_or_else(|| panic!("chromedriver names no port"));
    // What it goes on to say has to go somewhere.
    thread::spawn(move || lines.for_each(drop));
    port
}
