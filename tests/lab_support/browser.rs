//! A browser that tests drive: headless Chromium on a node of a lab, by the DevTools protocol over a WebSocket.
//!
//! Owns the process, the connection and the few calls that tests need. Never knows what a page should show.

use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel::lab::process::{self, Process};
use evenkeel::lab::topology::Lab;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

/// How long a busy machine may take.
pub const LONG: Duration = Duration::from_secs(90);

/// Whether there is a browser; says so when not, and panics instead under CI.
pub fn browser_is_possible() -> bool {
    if process::program("chromium").is_some() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs `chromium`, and CI skips nothing");
    eprintln!("SKIPPED: the status page needs a browser: there is no program `chromium`");
    false
}

/// The connection: a call at a time, each answered before the next; events in between are passed over.
struct Wire {
    socket: RefCell<WebSocket<TcpStream>>,
    last: Cell<u64>,
}

impl Wire {
    fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value, String> {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut request = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        let mut socket = self.socket.borrow_mut();
        socket.send(Message::text(request.to_string())).map_err(|error| format!("{method}: {error}"))?;
        loop {
            let message = socket.read().map_err(|error| format!("{method}: {error}"))?;
            let Message::Text(text) = message else { continue };
            let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{method}: {error}"))?;
            if answer["id"].as_u64() != Some(id) {
                continue;
            }
            return match answer.get("error") {
                Some(error) => Err(format!("{method}: {error}")),
                None => Ok(answer["result"].take()),
            };
        }
    }
}

/// The browser; it ends with this.
pub struct Chromium {
    process: Process,
    wire: Rc<Wire>,
}

impl Chromium {
    /// Starts one on a node, whose loopback is the browser's.
    pub fn start(lab: &Lab, node: &str) -> Chromium {
        let home = lab.path("chromium");
        let mut command = Command::new(process::program("chromium").expect("it is there"));
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]);
        command.args(["--window-size=1500,1000", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", home.display())).arg("about:blank").env("HOME", lab.directory());
        let process = lab.start(node, "chromium", &command).unwrap_or_else(|error| panic!("{error}"));
        // It writes its port and the path of its own end there.
        let start = Instant::now();
        let (port, path) = loop {
            let text = std::fs::read_to_string(home.join("DevToolsActivePort")).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n') {
                break (port.parse::<u16>().expect("a port"), path.trim().to_owned());
            }
            assert!(start.elapsed() < LONG, "chromium does not start: {}", process.last_words(20));
            thread::sleep(Duration::from_millis(50));
        };
        let stream =
            lab.node(node).unwrap().run(|| TcpStream::connect(("127.0.0.1", port))).unwrap().expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let (socket, _) = client(format!("ws://127.0.0.1:{port}{path}"), stream).expect("it is driven");
        Chromium { process, wire: Rc::new(Wire { socket: RefCell::new(socket), last: Cell::new(0) }) }
    }

    /// A new page in a context of its own, where `script` runs before all others; then it goes to `url`.
    pub fn open(&self, script: &str, url: &str) -> Tab {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let made = || -> Result<Tab, String> {
            let context = self.wire.call(None, "Target.createBrowserContext", json!({}))?;
            let blank = json!({ "url": "about:blank", "browserContextId": text(&context, "browserContextId") });
            let target = self.wire.call(None, "Target.createTarget", blank)?;
            let whole = json!({ "targetId": text(&target, "targetId"), "flatten": true });
            let session = text(&self.wire.call(None, "Target.attachToTarget", whole)?, "sessionId");
            let tab = Tab { wire: Rc::clone(&self.wire), session };
            tab.call("Page.enable", json!({}))?;
            tab.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }))?;
            Ok(tab)
        };
        let tab = made().unwrap_or_else(|error| panic!("a page: {error}"));
        // A browser may take a refused password for a page that cannot be had; what stands there is looked at next.
        let _ = tab.call("Page.navigate", json!({ "url": url }));
        tab
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.process.stop();
    }
}

/// What a page holds in memory.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Bytes of its scripts' objects.
    pub bytes: u64,
    /// Elements and texts, also those that are not shown.
    pub nodes: u64,
    /// Functions that wait for events.
    pub listeners: u64,
}

/// A page.
pub struct Tab {
    wire: Rc<Wire>,
    session: String,
}

impl Tab {
    fn call(&self, method: &str, parameters: Value) -> Result<Value, String> {
        self.wire.call(Some(&self.session), method, parameters)
    }

    /// What an expression gives; a promise is awaited.
    ///
    /// # Errors
    /// What was thrown, or why nothing was asked.
    pub fn evaluate(&self, expression: &str) -> Result<Value, String> {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut found = self.call("Runtime.evaluate", asked)?;
        match found.get("exceptionDetails") {
            Some(thrown) => Err(thrown.to_string()),
            None => Ok(found["result"]["value"].take()),
        }
    }

    /// The size of its window in points of a screen; narrow ones are a phone's.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size).unwrap_or_else(|error| panic!("a size: {error}"));
    }

    /// What it holds in memory, once what nobody needs any more is gone.
    pub fn weight(&self) -> Weight {
        let asked = || -> Result<Weight, String> {
            // What goes only with something else is gone the second time.
            for _ in 0..2 {
                self.call("HeapProfiler.collectGarbage", json!({}))?;
            }
            let (heap, counts) =
                (self.call("Runtime.getHeapUsage", json!({}))?, self.call("Memory.getDOMCounters", json!({}))?);
            let number = |from: &Value, key: &str| from[key].as_f64().ok_or(format!("no {key}")).map(|n| n as u64);
            Ok(Weight {
                bytes: number(&heap, "usedSize")?,
                nodes: number(&counts, "nodes")?,
                listeners: number(&counts, "jsEventListeners")?,
            })
        };
        asked().unwrap_or_else(|error| panic!("a weight: {error}"))
    }

    /// A picture of it, PNG.
    pub fn picture(&self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let shot = shot.unwrap_or_else(|error| panic!("a picture: {error}"));
        STANDARD.decode(shot["data"].as_str().unwrap_or_default()).expect("base64")
    }
}
