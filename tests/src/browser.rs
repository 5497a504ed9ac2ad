//! A real browser behind one small interface: Chromium by the DevTools protocol, Firefox by
//! WebDriver BiDi. Headless; each test gets what a browser just installed would be.

mod console;
mod downloads;
mod input;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::authority;
use crate::lab::{Forward, Lab};
use crate::ready::until_it_says;
use crate::{LOOK_AGAIN, PATIENCE};

use console::Console;
pub use input::Key;

/// No processes in reserve and no animations: more than a small machine has room for.
const FIREFOX_PREFERENCES: &str = "user_pref('dom.ipc.processPrelaunch.enabled', false);\n\
    user_pref('ui.prefersReducedMotion', 1);\n\
    user_pref('network.dns.localDomains', 'home.portway.test,conn.home.portway.test,app.home.portway.test');\n";

/// A WebSocket that failed makes no later one to that host wait.
const FIREFOX_FORGIVES: &str = "user_pref('network.websocket.delay-failed-reconnects', false);\n";

/// Names below `portway.test` are this machine's, in Firefox those of the cluster `home` and its `app`.
const CHROMIUM_NAMES: &str = "--host-resolver-rules=MAP *.portway.test 127.0.0.1";

const CHROMIUM_FEATURES: &str =
    "--disable-features=SpareRendererForSitePerProcess,PreloadTopChromeWebUI";

/// Which browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's `chromium`.
    Chromium,
    /// Debian's `firefox-esr`.
    Firefox,
}

/// A tab that is not the current one.
#[derive(Debug)]
pub struct Tab(String);

/// A running browser; one of its tabs is the current one. Ends when dropped.
pub struct Browser {
    kind: Kind,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What keeps this test's storage apart: Chromium's browser context; nothing in Firefox.
    context: String,
    /// Session of the tab (Chromium) or its browsing context (Firefox).
    tab: String,
    console: Console,
    _process: Child,
    profile: TempDir,
    /// Reads the browser's standard error: one that nobody reads would stop it sooner or later.
    _drain: JoinSet<()>,
    /// The way to it, if it is on a host of a lab.
    _forward: Option<Forward>,
}

impl Browser {
    /// Starts a browser, with one empty tab.
    ///
    /// # Errors
    /// If it is not installed or does not speak its protocol.
    pub async fn launch(kind: Kind) -> anyhow::Result<Self> {
        Self::launch_at(kind, None, "").await
    }

    /// The same, for many WebSockets that fail: Firefox lets the next one to their host wait for long.
    ///
    /// # Errors
    /// If it is not installed or does not speak its protocol.
    pub async fn launch_forgiving(kind: Kind) -> anyhow::Result<Self> {
        Self::launch_at(kind, None, FIREFOX_FORGIVES).await
    }

    /// The same on a host of a lab, trusting the lab's authority.
    ///
    /// # Errors
    /// If it is not installed or does not speak its protocol.
    pub async fn launch_on(kind: Kind, lab: &Lab, host: &str) -> anyhow::Result<Self> {
        Self::launch_at(kind, Some((lab, host)), "").await
    }

    async fn launch_at(
        kind: Kind,
        place: Option<(&Lab, &str)>,
        firefox_preferences: &str,
    ) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        if kind == Kind::Firefox {
            let mut preferences = downloads::firefox_preferences(profile.path());
            preferences += FIREFOX_PREFERENCES;
            preferences += firefox_preferences;
            std::fs::write(profile.path().join("user.js"), preferences)?;
        }
        let database = profile.path().join(match kind {
            Kind::Chromium => ".pki/nssdb",
            Kind::Firefox => "",
        });
        let authority = match place {
            Some((lab, _)) => lab.authority(),
            None => authority::certificate()?,
        };
        authority::trust(&database, &authority)?;
        let start = |program: &str| match place {
            Some((lab, host)) => lab.on(host, program),
            None => Command::new(program),
        };
        let mut process = command(kind, profile.path(), start)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {kind:?}: run `cargo xtask test` once"))?;
        let mut drain = JoinSet::new();
        let ready = endpoint(&mut process, &mut drain);
        let address = tokio::time::timeout(PATIENCE, ready).await??;
        let address = match kind {
            Kind::Chromium => address,
            Kind::Firefox => format!("{address}/session"),
        };
        let port = port(&address)?;
        let forward = match place {
            Some((lab, host)) => Some(lab.forward(host, port).await?),
            None => None,
        };
        let reached = forward
            .as_ref()
            .map_or(([127, 0, 0, 1], port).into(), |way| way.address);
        // It is called by its own name, whichever way leads to it.
        let stream = MaybeTlsStream::Plain(TcpStream::connect(reached).await?);
        let (socket, _response) = tokio_tungstenite::client_async(address, stream).await?;
        let mut browser = Self {
            kind,
            socket,
            context: String::new(),
            tab: String::new(),
            console: Console::default(),
            _process: process,
            profile,
            _drain: drain,
            _forward: forward,
        };
        if kind == Kind::Firefox {
            let params = json!({"capabilities": {}});
            browser.call("session.new", params).await?;
        }
        browser.open_first_tab().await?;
        Ok(browser)
    }

    /// Closes all tabs, forgets all that was stored and saved, and opens an empty tab. `false`: this
    /// browser must be launched anew for that.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn start_afresh(&mut self) -> anyhow::Result<bool> {
        match self.kind {
            Kind::Chromium => self.open_first_tab().await.map(|()| true),
            // It has user contexts, but with those a second window was not served reliably.
            Kind::Firefox => Ok(false),
        }
    }

    async fn open_first_tab(&mut self) -> anyhow::Result<()> {
        self.tab.clear();
        if self.kind == Kind::Chromium {
            let before = std::mem::take(&mut self.context);
            if !before.is_empty() {
                let params = json!({"browserContextId": before});
                self.call("Target.disposeBrowserContext", params).await?;
            }
            let made = self.call("Target.createBrowserContext", json!({})).await?;
            self.context = text(&made["browserContextId"]);
        }
        self.accept_downloads().await?;
        self.console = Console::default();
        self.tab = self.new_tab().await?;
        self.watch_console().await
    }

    /// Runs a script in every page and frame before its own, from now on.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn run_first(&mut self, script: &str) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => {
                let params = json!({"source": script});
                self.call("Page.addScriptToEvaluateOnNewDocument", params)
                    .await?
            }
            Kind::Firefox => {
                let params = json!({"functionDeclaration": format!("() => {script}")});
                self.call("script.addPreloadScript", params).await?
            }
        };
        Ok(())
    }

    /// Which browser this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Navigates the tab.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => {
                // The same address with another fragment is no navigation: leave it first.
                self.call("Page.navigate", json!({"url": "about:blank"}))
                    .await?;
                self.call("Page.navigate", json!({"url": url})).await?;
            }
            Kind::Firefox => {
                let context = self.tab.clone();
                for url in ["about:blank", url] {
                    let params = json!({"context": context, "url": url, "wait": "none"});
                    self.call("browsingContext.navigate", params).await?;
                }
            }
        }
        Ok(())
    }

    /// Reloads the tab.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn reload(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => self.call("Page.reload", json!({})).await?,
            Kind::Firefox => {
                let context = self.tab.clone();
                let params = json!({"context": context, "wait": "none"});
                self.call("browsingContext.reload", params).await?
            }
        };
        Ok(())
    }

    /// From now on, peer connections of the tab's pages use relays only, and these over `udp` or `tcp`
    /// only, as if a firewall let nothing else through.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn allow_relays_only(&mut self, transport: &str) -> anyhow::Result<()> {
        let script = format!(
            "(() => {{ const Direct = window.RTCPeerConnection; \
               const isMeant = (url) => /^turns?:/.test(url) && \
                 (url.split('transport=')[1] ?? 'udp') === '{transport}'; \
               window.RTCPeerConnection = class extends Direct {{ \
                 constructor(config) {{ \
                   const iceServers = config.iceServers.map((server) => \
                     ({{ ...server, urls: [server.urls].flat().filter(isMeant) }})); \
                   super({{ iceServers: iceServers.filter((server) => server.urls.length), \
                     iceTransportPolicy: 'relay' }}); }} }}; }})()"
        );
        self.run_first(&script).await
    }

    /// Stops all service workers, as a browser does when it wants their memory.
    ///
    /// # Errors
    /// In Firefox, which has no command for it.
    pub async fn stop_service_workers(&mut self) -> anyhow::Result<()> {
        self.call("ServiceWorker.enable", json!({})).await?;
        self.call("ServiceWorker.stopAllWorkers", json!({})).await?;
        Ok(())
    }

    /// Bytes that the tab's scripts hold, after a garbage collection; `None` in Firefox, which does not
    /// tell.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn heap_size(&mut self) -> anyhow::Result<Option<u64>> {
        if self.kind == Kind::Firefox {
            return Ok(None);
        }
        self.call("HeapProfiler.collectGarbage", json!({})).await?;
        let usage = self.call("Runtime.getHeapUsage", json!({})).await?;
        let sizes = ["usedSize", "embedderHeapUsedSize", "backingStorageSize"];
        let bytes: f64 = sizes.iter().filter_map(|size| usage[size].as_f64()).sum();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size in memory"
        )]
        let bytes = bytes as u64;
        Ok(Some(bytes))
    }

    /// Evaluates an expression in the tab; a promise is awaited, the result comes as JSON.
    ///
    /// # Errors
    /// What the expression throws.
    pub async fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let wrapped = format!("(async () => JSON.stringify((await ({expression})) ?? null))()");
        let text = match self.kind {
            Kind::Chromium => {
                let params =
                    json!({"expression": wrapped, "awaitPromise": true, "returnByValue": true});
                let result = self.call("Runtime.evaluate", params).await?;
                if let Some(details) = result.get("exceptionDetails") {
                    return Err(self.threw(expression, &details["exception"]["description"]));
                }
                result["result"]["value"].clone()
            }
            Kind::Firefox => {
                let params = json!({
                    "expression": wrapped, "awaitPromise": true,
                    "target": {"context": self.tab.clone()},
                });
                let result = self.call("script.evaluate", params).await?;
                if result["type"] != "success" {
                    return Err(self.threw(expression, &result["exceptionDetails"]["text"]));
                }
                result["result"]["value"].clone()
            }
        };
        let text = text
            .as_str()
            .ok_or_else(|| anyhow!("{expression}: no result"))?;
        Ok(serde_json::from_str(text)?)
    }

    fn threw(&self, expression: &str, exception: &Value) -> anyhow::Error {
        let console = self.console.text();
        anyhow!("{expression} threw {exception}; its console:\n{console}")
    }

    /// Waits until an expression is truthy, and returns it. Errors count as "not yet": the page may
    /// be navigating.
    ///
    /// # Errors
    /// If it is not within `patience`; says what the page shows.
    pub async fn wait_for(
        &mut self,
        expression: &str,
        patience: Duration,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            let last = self.eval(expression).await;
            if let Ok(value) = &last
                && is_truthy(value)
            {
                return last;
            }
            if Instant::now() > deadline {
                let shown = self
                    .eval("document.body.innerText.slice(0, 2000)")
                    .await
                    .unwrap_or_default();
                let picture = std::env::temp_dir().join(format!("portway-{:?}.png", self.kind));
                let picture = match self.screenshot(&picture).await {
                    Ok(_) => format!("picture: {}", picture.display()),
                    Err(error) => format!("no picture: {error}"),
                };
                bail!(
                    "{:?}: waited in vain for {expression} (last: {last:?}); the page shows: {shown}\n{picture}\nits console:\n{}",
                    self.kind,
                    self.console.text()
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Saves what the tab shows as PNG, and returns its size in bytes.
    ///
    /// # Errors
    /// If the browser cannot, or the file cannot be written.
    pub async fn screenshot(&mut self, path: &Path) -> anyhow::Result<usize> {
        let result = match self.kind {
            Kind::Chromium => {
                self.call("Page.captureScreenshot", json!({"format": "png"}))
                    .await?
            }
            Kind::Firefox => {
                let context = self.tab.clone();
                self.call(
                    "browsingContext.captureScreenshot",
                    json!({"context": context}),
                )
                .await?
            }
        };
        let png = decode_base64(result["data"].as_str().unwrap_or_default())?;
        std::fs::write(path, &png)?;
        Ok(png.len())
    }

    /// Opens another tab of the same profile; what follows concerns it. Returns the one before.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn another_tab(&mut self) -> anyhow::Result<Tab> {
        let before = std::mem::take(&mut self.tab);
        self.tab = self.new_tab().await?;
        self.watch_console().await?;
        Ok(Tab(before))
    }

    /// What follows concerns this tab. Returns the one before.
    pub fn switch_to(&mut self, tab: Tab) -> Tab {
        Tab(std::mem::replace(&mut self.tab, tab.0))
    }

    async fn new_tab(&mut self) -> anyhow::Result<String> {
        match self.kind {
            Kind::Chromium => {
                let params = json!({"url": "about:blank", "browserContextId": self.context});
                let target = self.call("Target.createTarget", params).await?;
                let params = json!({"targetId": target["targetId"], "flatten": true});
                let attached = self.call("Target.attachToTarget", params).await?;
                self.tab = text(&attached["sessionId"]);
                self.call("Page.enable", json!({})).await?;
                Ok(self.tab.clone())
            }
            Kind::Firefox => {
                // The window that a headless Firefox starts with never has the focus.
                let params = json!({"type": "window"});
                let window = self.call("browsingContext.create", params).await?;
                Ok(text(&window["context"]))
            }
        }
    }

    /// One command and its answer; events in between are passed over.
    async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut command = json!({"id": id, "method": method, "params": params});
        if self.kind == Kind::Chromium && !self.tab.is_empty() {
            command["sessionId"] = json!(self.tab);
        }
        self.socket.send(Message::text(command.to_string())).await?;
        let answer = tokio::time::timeout(PATIENCE * 5, self.answer(id))
            .await
            .with_context(|| format!("{method}: no answer"))??;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error} {}", answer["message"]);
        }
        Ok(answer["result"].clone())
    }

    async fn answer(&mut self, id: u64) -> anyhow::Result<Value> {
        while let Some(message) = self.socket.next().await {
            if let Message::Text(text) = message? {
                let value: Value = serde_json::from_str(&text)?;
                if value["id"] == id {
                    return Ok(value);
                }
                self.console.take(&value);
            }
        }
        bail!("the browser closed the connection")
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn command(kind: Kind, profile: &Path, start: impl FnOnce(&str) -> Command) -> Command {
    match kind {
        Kind::Chromium => {
            let mut command = start("chromium");
            command.args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--force-prefers-reduced-motion",
                CHROMIUM_FEATURES,
                CHROMIUM_NAMES,
                "--remote-debugging-port=0",
                "--window-size=1200,800",
            ]);
            command.arg(format!("--user-data-dir={}", profile.display()));
            command.env("HOME", profile);
            command
        }
        Kind::Firefox => {
            let mut command = start("firefox-esr");
            command.args([
                "--headless",
                "--no-remote",
                "--remote-debugging-port",
                "0",
                "--profile",
            ]);
            command.arg(profile);
            command.env("HOME", profile);
            command
        }
    }
}

/// The WebSocket address that a browser prints when it is ready.
async fn endpoint(process: &mut Child, drain: &mut JoinSet<()>) -> anyhow::Result<String> {
    const MARKER: &str = "listening on ";
    let log = process.stderr.take().context("stderr is piped")?;
    let line = until_it_says(MARKER, "the browser", log, drain).await?;
    let (_, address) = line.split_once(MARKER).context("the marker")?;
    Ok(address.trim().to_owned())
}

/// The port in a WebSocket's address.
fn port(address: &str) -> anyhow::Result<u16> {
    let port = address.split([':', '/']).nth(4);
    Ok(port.context("an address with a port")?.parse()?)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// Base64 (RFC 4648 §4), as both protocols send pictures.
fn decode_base64(text: &str) -> anyhow::Result<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = ALPHABET
            .iter()
            .position(|other| *other == byte)
            .ok_or_else(|| anyhow!("not base64"))?;
        buffer = buffer << 6 | u32::try_from(digit)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(buffer >> bits & 0xff)?);
        }
    }
    Ok(bytes)
}
