//! A headless Chromium, driven over its DevTools protocol: pages are opened, asked, and looked at.
//!
//! A machine without one skips, loudly. Nothing but the page's own address is ever asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::parts;

/// A running browser with one page; dropping it ends it.
pub struct Browser {
    child: Child,
    profile: PathBuf,
    socket: WebSocket<TcpStream>,
    session: String,
    number: u64,
    complaints: Vec<String>,
}

impl Browser {
    /// An empty page, or `None` where there is no Chromium.
    pub fn open() -> Option<Self> {
        let program = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file())
        });
        let Some(program) = program else {
            eprintln!("SKIPPED: chromium is not installed");
            return None;
        };
        let profile = parts::scratch();
        let mut command = Command::new(program);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.display()));
        command
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("chromium starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let url =
            lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.expect("chromium says where it listens");
        // What else it says must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let host = url.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = tungstenite::client(url.as_str(), stream).expect("a handshake");
        let mut browser = Self {
            child,
            profile,
            socket,
            session: String::new(),
            number: 0,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Goes to an address.
    pub fn go(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// The value of an expression in the page.
    pub fn ask(&mut self, expression: &str) -> Value {
        self.try_ask(expression).unwrap_or_else(|fault| panic!("{expression}: {fault}"))
    }

    fn try_ask(&mut self, expression: &str) -> Result<Value, Value> {
        let question =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", question);
        match answer["exceptionDetails"].is_null() {
            true => Ok(answer["result"]["value"].clone()),
            false => Err(answer["exceptionDetails"].clone()),
        }
    }

    /// The text of the element with this id.
    pub fn text(&mut self, id: &str) -> String {
        let text = self.ask(&format!("document.getElementById('{id}')?.textContent ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true; while the page is not there yet it is not.
    pub fn until(&mut self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.try_ask(&format!("Boolean({expression})")) != Ok(Value::Bool(true)) {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}: {expression}");
            // A pause within the page: asked again and again it would have no time to draw.
            self.ask("new Promise((done) => setTimeout(done, 50))");
        }
    }

    /// Makes the window so wide, and the system's colours dark or light.
    pub fn shape(&mut self, width: u32, is_dark: bool) {
        let screen =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", screen);
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key });
            if key == "Tab" {
                event["windowsVirtualKeyCode"] = json!(9);
            }
            if key == "Enter" {
                event["windowsVirtualKeyCode"] = json!(13);
                event["text"] = json!(if kind == "keyDown" { "\r" } else { "" });
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Writes the page, all of its length, as a PNG into the directory that `BALANCER_SCREENSHOTS` names, if it does.
    pub fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("BALANCER_SCREENSHOTS") else { return };
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip =
            json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let whole = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.call("Page.captureScreenshot", whole);
        let text = answer["data"].as_str().expect("a picture").to_owned();
        let mut decoder = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(File::create(PathBuf::from(directory).join(name)).expect("a file"))
            .spawn()
            .expect("base64 runs");
        decoder.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
        assert!(decoder.wait().expect("it ends").success());
    }

    /// Everything the console called an error, and every exception.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Forgets what it complained of.
    pub fn forget_complaints(&mut self) {
        self.complaints.clear();
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut call = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(call.to_string())).expect("chromium listens");
        loop {
            let message = match self.socket.read() {
                Ok(message) => message,
                // A read with a timeout is not taken up again by itself when the process was stopped meanwhile.
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {
                    continue;
                }
                Err(error) => panic!("{method}: {error}"),
            };
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let is_complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error",
            Some("Log.entryAdded") => parameters["entry"]["level"] == "error",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is asked first, so that its helpers end, too; it may have ended already.
        let close = json!({ "id": 0, "method": "Browser.close" }).to_string();
        let _ = self.socket.send(Message::text(close));
        let has_ended = || self.child.try_wait().is_ok_and(|status| status.is_some());
        super::wait::happens(Duration::from_secs(5), has_ended);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
];
const PATIENCE: Duration = Duration::from_secs(20);
