//! A headless Chromium, driven through its DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>) over
//! two pipes: what a person sees and does, with real events of mouse and keyboard.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Beyond this a page has hung; the slowest step takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where browsers with this protocol are, the first that is there being taken.
const PROGRAMS: [&str; 6] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

const FLAGS: [&str; 11] = [
    "--headless",
    "--remote-debugging-pipe",
    // Pages are files of this test; containers lack what the sandbox is made of.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en",
];

/// What Chromium says of an expression whose page is on its way out.
const PASSING: [&str; 3] = ["context was destroyed", "navigated", "Cannot find context"];

/// The program of `DIGRAP_CHROMIUM`, or else the first that is there; `setup/setup.sh` looks in the same places.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Joining an absolute path gives that path.
    let find = |name: &OsStr| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if let Some(program) = std::env::var_os("DIGRAP_CHROMIUM").filter(|program| !program.is_empty()) {
        return find(&program).unwrap_or_else(|| panic!("DIGRAP_CHROMIUM names no program: {}", program.display()));
    }
    PROGRAMS.iter().find_map(|name| find(name.as_ref())).unwrap_or_else(|| {
        panic!("there is no Chromium: `make setup-test` installs it on Debian; elsewhere install Chromium or Google Chrome, or set DIGRAP_CHROMIUM to it")
    })
}

/// One browser with one page. It ends with this value.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
    session: Option<String>,
    /// What the page has told since it was opened.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    /// Starts a browser with an empty page of this size in pixels.
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The protocol is on file descriptors 3 and 4; shells can give these to a program.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(program())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    continue;
                };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser =
            Self { process, commands, messages, last: 0, session: None, events: Vec::new(), _profile: profile };
        browser.attach();
        browser.resize(width, height);
        browser
    }

    fn attach(&mut self) {
        let targets = self.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = self.call("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The result of a command, or the error that Chromium answers with.
    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let waited = self.messages.recv_timeout(PATIENCE);
            let mut message = waited.unwrap_or_else(|error| panic!("Chromium does not answer {method}: {error}"));
            if message["id"] != json!(self.last) {
                self.events.push(message);
                continue;
            }
            return match message.get("error") {
                Some(error) => Err(error.clone()),
                None => Ok(message["result"].take()),
            };
        }
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the user prefers: `dark` or `light`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Opens a file, with what follows `#` in its address.
    pub fn open(&mut self, file: &Path, hash: &str) {
        let address = format!("file://{}{hash}", file.display());
        let opened = self.call("Page.navigate", json!({"url": address}));
        assert!(opened.get("errorText").is_none(), "{address}: {opened}");
        self.wait_for("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        self.try_value(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn try_value(&mut self, expression: &str) -> Result<Value, Value> {
        let how = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut found = self.try_call("Runtime.evaluate", how)?;
        match found.get("exceptionDetails") {
            Some(error) => Err(error.clone()),
            None => Ok(found["result"]["value"].take()),
        }
    }

    pub fn text(&mut self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Waits until an expression is true. While one page gives way to another, it has no value at all; what it throws is a
    /// mistake.
    pub fn wait_for(&mut self, expression: &str) {
        let start = Instant::now();
        loop {
            let found = self.try_value(expression);
            match &found {
                Ok(value) if *value == json!(true) => return,
                Ok(_) => {}
                Err(error) => {
                    let told = error["message"].as_str().unwrap_or_default();
                    assert!(PASSING.iter().any(|text| told.contains(text)), "{expression}: {error}");
                }
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {expression}: {found:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses and releases the mouse in the middle of an element.
    pub fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const found = document.querySelector({}); found.scrollIntoView({{ block: 'nearest' }}); \
             const box = found.getBoundingClientRect(); \
             return [box.left + box.width / 2, box.top + box.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses and releases a key, named as in `KeyboardEvent.key`.
    pub fn press(&mut self, key: &str) {
        let codes = HashMap::from([("Enter", 13), ("Escape", 27), ("ArrowUp", 38), ("ArrowDown", 40), ("Tab", 9)]);
        let mut event = json!({"key": key});
        match codes.get(key) {
            Some(code) => event["windowsVirtualKeyCode"] = json!(code),
            None => event["text"] = json!(key),
        }
        if key == "Enter" {
            event["text"] = json!("\r");
        }
        for kind in ["keyDown", "keyUp"] {
            event["type"] = json!(kind);
            self.call("Input.dispatchKeyEvent", event.clone());
        }
    }

    /// Types letter by letter into what has the focus.
    pub fn write(&mut self, text: &str) {
        for letter in text.chars() {
            self.press(&letter.to_string());
        }
    }

    /// Chooses an option of a `select` by its value, with the keys that step through the options.
    pub fn choose(&mut self, selector: &str, value: &str) {
        let select = format!("document.querySelector({})", json!(selector));
        let steps = self.value(&format!(
            "(() => {{ const select = {select}; select.focus(); \
             return [...select.options].findIndex((option) => option.value === {}) - select.selectedIndex; }})()",
            json!(value)
        ));
        let steps = steps.as_i64().unwrap();
        if cfg!(target_os = "macos") {
            // There these keys open a menu of the system, which no event of the protocol reaches.
            self.value(&format!(
                "(() => {{ {select}.value = {}; {select}.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()",
                json!(value)
            ));
        } else {
            (0..steps.abs()).for_each(|_| self.press(if steps > 0 { "ArrowDown" } else { "ArrowUp" }));
        }
        assert_eq!(self.text(&format!("{select}.value")), value, "{selector}");
    }

    pub fn back(&mut self) {
        self.value("history.back()");
    }

    /// Leaves a picture of the window in the folder that `SCREENSHOTS` names, for a look.
    pub fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else {
            return;
        };
        self.value("new Promise((shown) => setTimeout(shown, 300))");
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        std::fs::create_dir_all(&folder).unwrap();
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, base64(picture["data"].as_str().unwrap())).unwrap();
    }

    /// Nothing was written to the console, nothing thrown, nothing asked for but files of this folder.
    pub fn assert_quiet(&mut self, folder: &Path) {
        self.value("new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)))");
        let own = format!("file://{}/", folder.display());
        for event in &self.events {
            let about = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" => {
                    panic!("{event}")
                }
                "Network.requestWillBeSent" => {
                    let address = about["request"]["url"].as_str().unwrap();
                    assert!(address.starts_with(&own) || address.starts_with("data:"), "{address}");
                }
                "Network.loadingFailed" => assert_eq!(about["canceled"], true, "{event}"),
                _ => {}
            }
        }
    }
}

/// The bytes of a base64 text.
pub fn base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let group = |letters: &[u8]| {
        let bits = letters.iter().fold(0_u32, |bits, letter| bits << 6 | u32::from(digit(*letter)));
        (bits << (6 * (4 - letters.len()))).to_be_bytes()[1..letters.len()].to_vec()
    };
    text.trim_end_matches('=').as_bytes().chunks(4).flat_map(group).collect()
}
