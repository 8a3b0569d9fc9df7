//! A real browser without a window, driven as a user drives it: Chromium by its `chromedriver`, over WebDriver.
//!
//! `cargo xtask setup` installs both. WebDriver is JSON over HTTP on the loopback interface: what tests need of it is written here, and
//! costs no dependency. The profile is new and nothing of the browser's own traffic leaves the machine. Both processes end with their
//! [`Browser`].

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::http;

/// Far more than the start needs.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// In front of the port on which the driver listens.
const READY: &str = "started successfully on port ";

/// By which WebDriver names elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A key that has no character, as WebDriver writes it.
pub const ENTER: &str = "\u{e007}";

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: TempDir,
    /// The driver may still write.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Starts a browser whose page is this large, in pixels.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start(width: u32, height: u32) -> Result<Self> {
        let profile = tempfile::tempdir().context("cannot make a directory for the browser")?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // The page shows times of the day.
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start chromedriver; run `cargo xtask setup`, which installs it")?;
        let output = driver.stdout.take().context("chromedriver has no output")?;
        let mut lines = BufReader::new(output).lines();
        let port = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, port)) = line.split_once(READY) {
                    return Ok(port.trim_end_matches('.').parse::<u16>()?);
                }
            }
            bail!("chromedriver ended before it listened")
        };
        let port =
            tokio::time::timeout(READY_WITHIN, port).await.context("chromedriver does not start")??;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new(), profile, _output: lines };
        let options = browser.options(width, height);
        let created = browser.call("POST", "/session", Some(options)).await?;
        let session = created["sessionId"].as_str().context("chromedriver named no session")?;
        browser.session = format!("/session/{session}");
        Ok(browser)
    }

    fn options(&self, width: u32, height: u32) -> Value {
        let arguments = [
            "--headless".to_string(),
            "--no-sandbox".to_string(),
            "--disable-gpu".to_string(),
            "--disable-quic".to_string(),
            "--disable-dev-shm-usage".to_string(),
            "--no-first-run".to_string(),
            "--disable-background-networking".to_string(),
            "--disable-component-update".to_string(),
            "--disable-sync".to_string(),
            format!("--user-data-dir={}", self.profile.path().display()),
            format!("--window-size={width},{height}"),
        ];
        let capabilities = json!({
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        });
        json!({ "capabilities": { "alwaysMatch": capabilities } })
    }

    /// Goes to an address and waits until its page is there.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.of_session("POST", "/url", Some(json!({ "url": url }))).await.map(drop)
    }

    /// Runs the body of a function in the page and returns what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub async fn run(&self, script: &str, arguments: Value) -> Result<Value> {
        self.of_session("POST", "/execute/sync", Some(json!({ "script": script, "args": arguments }))).await
    }

    /// The text of the first element that a selector of CSS finds, as it is shown; nothing if there is none.
    ///
    /// # Errors
    /// When the page does not answer.
    pub async fn text(&self, selector: &str) -> Result<Option<String>> {
        let script = "return document.querySelector(arguments[0])?.innerText ?? null";
        Ok(self.run(script, json!([selector])).await?.as_str().map(str::to_string))
    }

    /// Clicks on an element where it is, as a mouse does: one that is covered or not enabled is an error.
    ///
    /// # Errors
    /// When there is none.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector).await?;
        self.of_session("POST", &format!("/element/{element}/click"), Some(json!({}))).await.map(drop)
    }

    /// Types into an element; into a field for files the path of one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn write(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector).await?;
        self.of_session("POST", &format!("/element/{element}/value"), Some(json!({ "text": text })))
            .await
            .map(drop)
    }

    /// Presses keys, one after the other, wherever the focus is.
    ///
    /// # Errors
    /// When the page does not answer.
    pub async fn press(&self, keys: &str) -> Result<()> {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.of_session("POST", "/actions", Some(json!({ "actions": [keyboard] }))).await.map(drop)
    }

    /// What the page and the browser have written to the console since the last call, as `LEVEL text`.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn console(&self) -> Result<Vec<String>> {
        let entries = self.of_session("POST", "/se/log", Some(json!({ "type": "browser" }))).await?;
        let line = |entry: &Value| {
            format!("{} {}", entry["level"].as_str().unwrap_or("?"), entry["message"].as_str().unwrap_or("?"))
        };
        Ok(entries.as_array().context("no list of lines")?.iter().map(line).collect())
    }

    /// Makes the window this large, in pixels.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        self.of_session("POST", "/window/rect", Some(json!({ "width": width, "height": height })))
            .await
            .map(drop)
    }

    /// Writes a picture of what is shown into a file, as PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn screenshot(&self, file: &Path) -> Result<()> {
        let picture = self.of_session("GET", "/screenshot", None).await?;
        let picture = picture.as_str().context("no picture")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture)?;
        tokio::fs::write(file, bytes).await.with_context(|| format!("cannot write {}", file.display()))
    }

    async fn find(&self, selector: &str) -> Result<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.of_session("POST", "/element", Some(wanted)).await?;
        Ok(found[ELEMENT].as_str().context("an element without a name")?.to_string())
    }

    async fn of_session(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        self.call(method, &format!("{}{path}", self.session), body).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut answer = http::request(&self.driver_url(), method, path, body.as_bytes()).await?.json()?;
        if let Some(error) = answer["value"]["error"].as_str() {
            let message = answer["value"]["message"].as_str().unwrap_or_default();
            bail!("{error}: {}", message.lines().next().unwrap_or_default());
        }
        Ok(answer["value"].take())
    }

    fn driver_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser; it is killed behind that. A browser that does not end in time is left to the driver's end.
        let close = || -> std::io::Result<()> {
            let mut stream = BlockingStream::connect_timeout(&self.address, CLOSE_WITHIN)?;
            stream.set_read_timeout(Some(CLOSE_WITHIN))?;
            write!(
                stream,
                "DELETE {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                self.session, self.address
            )?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        };
        if !self.session.is_empty()
            && let Err(error) = close()
        {
            eprintln!("the browser was not closed: {error}");
        }
        let _ = self.driver.start_kill();
    }
}
