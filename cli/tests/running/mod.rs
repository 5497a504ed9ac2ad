//! A relay that runs, and those who use it. Everything ends when dropped.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Of ephemeral credentials.
pub(crate) const SECRET: &str = "a-secret-of-the-tests";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at something that tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The binary under test, without anything of whoever runs the tests.
pub(crate) fn portway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    for name in [
        "PORTWAY_STATE",
        "PORTWAY_CONFIG",
        "PORTWAY_LOG",
        "PORTWAY_PASSPHRASE_FILE",
        "PORTWAY_RELAY_SECRET_FILE",
        "PORTWAY_TURN_USERNAME",
        "PORTWAY_TURN_PASSWORD_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

/// A running `portway relay` whose peers may be on loopback, with a state directory of its own.
pub(crate) struct Relay {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) home: Arc<TempDir>,
    /// The line that it printed when it was ready.
    pub(crate) ready: Value,
}

impl Relay {
    pub(crate) fn start(args: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("secret"), SECRET).unwrap();
        Self::start_in(Arc::new(home), args)
    }

    /// With these lines below `[relay]` in its configuration.
    pub(crate) fn configured(lines: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("secret"), SECRET).unwrap();
        let file = home.path().join("portway.toml");
        std::fs::write(
            &file,
            format!("[relay]\nlisten = [\"udp://127.0.0.1:0\"]\n{lines}"),
        )
        .unwrap();
        let file = file.display().to_string();
        Self::start_in(Arc::new(home), &["--config", &file])
    }

    /// In a directory that another one uses, too.
    pub(crate) fn start_in(home: Arc<TempDir>, args: &[&str]) -> Self {
        let mut process = portway()
            .args(["relay", "--json", "--allow-peer", "127.0.0.0/8"])
            .arg("--state")
            .arg(home.path().join("state"))
            .arg("--secret-file")
            .arg(home.path().join("secret"))
            .args(args)
            .env("XDG_CONFIG_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self {
            process,
            _stdout: stdout,
            home,
            ready,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// `portway relay …` for this one.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        let mut command = portway();
        command.arg("relay").args(args).arg("--state");
        command.arg(self.state()).output().unwrap()
    }

    /// The same, and it must succeed; what it prints for people.
    pub(crate) fn told(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for programs.
    pub(crate) fn ask(&self, args: &[&str]) -> Value {
        let told = self.told(&[args, &["--json"]].concat());
        serde_json::from_str(&told).unwrap()
    }

    /// Waits until its status is like this.
    pub(crate) fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.ask(&["status"]);
            if is_so(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it never came: {status}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// What Prometheus would read.
    pub(crate) fn scrape(&self) -> String {
        let url = self.ready["metrics"].as_str().unwrap();
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches("/metrics");
        let mut connection = TcpStream::connect(address).unwrap();
        write!(
            connection,
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Sends a signal and waits until it has ended.
    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.process.wait().unwrap()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not end: {}",
                self.log()
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Host and port of its first listener.
    fn address(&self) -> (String, String) {
        let url = self.ready["relay"][0].as_str().unwrap();
        let address = url.split(['?']).next().unwrap().trim_start_matches("turn:");
        let (host, port) = address.rsplit_once(':').unwrap();
        (host.to_owned(), port.to_owned())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Somebody who talks to itself through a relay until dropped: coturn's client.
pub(crate) struct Talker {
    process: Child,
    username: String,
    credential: String,
}

impl Talker {
    /// With ephemeral credentials, as an application would get them.
    pub(crate) fn start(relay: &Relay, user: &str) -> Self {
        let file = relay.home.path().join("secret").display().to_string();
        let made = relay.ask(&["credentials", "--secret-file", &file, "--user", user]);
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        let (username, credential) = (text("username"), text("credential"));
        let process = client(relay, &username, &credential, "1000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn's tools are installed by `cargo xtask test`");
        Self {
            process,
            username,
            credential,
        }
    }

    /// Comes again with the same credentials; what the client says.
    pub(crate) fn tries_again(&self, relay: &Relay) -> String {
        let output = client(relay, &self.username, &self.credential, "3").output();
        let output = output.unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

fn client(relay: &Relay, username: &str, credential: &str, messages: &str) -> Command {
    let (host, port) = relay.address();
    let mut client = Command::new("turnutils_uclient");
    client
        .args(["-y", "-s", "-c", "-m", "1"])
        .args(["-n", messages, "-u", username, "-w", credential])
        .args(["-p", &port, &host]);
    client
}

impl Drop for Talker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A TURN server that is not ours, whose peers may be on loopback.
pub(crate) struct Coturn {
    process: Child,
    home: TempDir,
    port: u16,
}

impl Coturn {
    pub(crate) const USERNAME: &str = "ann";
    pub(crate) const PASSWORD: &str = "a-password-of-the-tests";

    /// Starts it on a free port, and waits until it answers.
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("password"), Self::PASSWORD).unwrap();
        let file = |name: &str| home.path().join(name).display().to_string();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new("turnserver")
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech"])
            .args([
                "--listening-ip",
                "127.0.0.1",
                "--listening-port",
                &port.to_string(),
            ])
            .args(["--relay-ip", "127.0.0.1", "--allow-loopback-peers"])
            .args(["--realm", "tests.example"])
            .args(["--user", &format!("{}:{}", Self::USERNAME, Self::PASSWORD)])
            .args(["--log-file", &file("log"), "--pidfile", &file("pid")])
            .args(["--userdb", &file("users")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn is installed by `cargo xtask test`");
        let coturn = Self {
            process,
            home,
            port,
        };
        let begun = Instant::now();
        let url = format!("stun:127.0.0.1:{port}?transport=tcp");
        while !portway()
            .args(["-q", "relay", "test", &url])
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(begun.elapsed() < PATIENCE, "coturn does not become ready");
            std::thread::sleep(LOOK_AGAIN);
        }
        coturn
    }

    pub(crate) fn url(&self) -> String {
        format!("turn:127.0.0.1:{}", self.port)
    }

    pub(crate) fn password_file(&self) -> String {
        self.home.path().join("password").display().to_string()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
