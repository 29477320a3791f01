//! A real Chromium without a window, driven by the W3C WebDriver protocol, which is JSON over HTTP: what a test needs of it is here, and no crate that does more of it would
//! leave the workspace's HTTP crates with the features that they have.

use crate::{Folder, free_port, on_path, skip, wait_until};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Keys that are no characters.
pub mod keys {
    #![allow(missing_docs, reason = "their names say it")]
    pub const TAB: char = '\u{E004}';
    pub const ENTER: char = '\u{E007}';
    pub const ESCAPE: char = '\u{E00C}';
}

/// A browser; ended with the value.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    /// Its profile.
    _folder: Folder,
}

impl Browser {
    /// Starts one. `None`: there is none here; the test is to return, it has been noted as skipped.
    pub fn start() -> Option<Self> {
        let (Some(driver), Some(chromium)) = (on_path(&["chromedriver"]), on_path(&["chromium", "chromium-headless-shell"])) else {
            skip("Chromium and its driver (chromium-driver)");
            return None;
        };
        let (port, folder) = (free_port(), Folder::new());
        let mut command = Command::new(driver);
        // What the browser leaves behind goes with the folder.
        command.arg(format!("--port={port}")).env("HOME", folder.path()).env("TMPDIR", folder.path());
        let driver = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the driver starts");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}"), agent, _folder: folder };
        wait_until("the browser's driver", PATIENCE, || browser.is_ready());
        let profile = browser._folder.at("profile");
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let options = json!({"binary": chromium, "args": arguments});
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let session = browser.post("/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        let id = session["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("http://127.0.0.1:{port}/session/{id}");
        Some(browser)
    }

    fn is_ready(&self) -> bool {
        let answer = self.agent.get(format!("{}/status", self.session)).call().ok();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string().ok()).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|status| status["value"]["ready"] == true)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = self.agent.post(format!("{}{path}", self.session)).send(body.to_string()).expect("the driver answers");
        // A screenshot is large.
        let text = answer.body_mut().with_config().limit(1 << 26).read_to_string().expect("the driver's answer");
        let mut said: Value = serde_json::from_str(&text).expect("the driver answers in JSON");
        assert!(answer.status().is_success(), "{path}: {}", said["value"]["message"]);
        said["value"].take()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// The size of the window, and whether its user prefers the dark.
    pub fn look(&self, width: u32, height: u32, dark: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}));
    }

    /// Opens an address, and waits until the page is there.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// What a script gives: `return document.title`.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script gives what is true, and gives it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, script: &str) -> Value {
        let start = Instant::now();
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) && value != "" && value != 0 {
                return value;
            }
            let text = || self.run("return document.body.innerText").as_str().map(str::to_owned).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}; the page says:\n{}", text());
            thread::sleep(PAUSE);
        }
    }

    /// Presses keys one after another, as a person does.
    pub fn press(&self, keys: impl IntoIterator<Item = char>) {
        let press = |key: char| [json!({"type": "keyDown", "value": key.to_string()}), json!({"type": "keyUp", "value": key.to_string()})];
        let actions: Vec<Value> = keys.into_iter().flat_map(press).collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// A picture of the whole page, as PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What the page's console has said since the last time that is an error: also what the page's policy has refused.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let severe = entries.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session.
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
