//! What people are told to open a service with: a browser where one can, a command where none can.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use portway_tests::PATIENCE;
use portway_tests::client::Connected;
use portway_tests::portway::{Portway, Program, State, binary};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(what_is_printed_opens_the_service),
    native!(whoever_shares_is_told_the_same),
];

/// Services that no browser opens: name and target, the command for them, the event by which that tells that it is
/// done.
const COMMANDS: [(&str, &str, &str); 3] = [
    (
        "ssh=tcp://127.0.0.1:9",
        "portway connect ssh -L PORT --link-file ssh.link",
        "ready",
    ),
    (
        "dns=udp://127.0.0.1:9",
        "portway connect dns --udp -L PORT --link-file dns.link",
        "ready",
    ),
    (
        "hook=listen://127.0.0.1:11",
        "portway connect hook -R PORT --link-file hook.link",
        "reverse",
    ),
];

/// `portway up` as people see it. Killed when dropped.
struct Up {
    told: Vec<String>,
    _process: Child,
    _state: State,
}

impl Up {
    async fn start(services: &[&str]) -> anyhow::Result<Self> {
        let state = State::new()?;
        let mut command = Program::default().command();
        command
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(state.path());
        for service in services {
            command.args(["--expose", service]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut told = Vec::new();
        while !told.iter().any(|line: &String| line.contains("Ctrl-C")) {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
            told.push(line.context("it has ended")?);
        }
        Ok(Self {
            told,
            _process: process,
            _state: state,
        })
    }

    /// The link of a service.
    fn link(&self, service: &str) -> anyhow::Result<&str> {
        let links = self.told.iter().map(|line| line.trim());
        let begin = format!("http://{service}.");
        let link = { links }.find(|line| line.starts_with(&begin));
        link.context("no link is told")
    }

    fn tells(&self, text: &str) -> bool {
        self.told.iter().any(|line| line.contains(text))
    }
}

/// What a shell makes of what was told, where the links are.
fn shell(text: &str, links: &TempDir) -> anyhow::Result<Command> {
    let bin = binary();
    let bin = bin.parent().and_then(Path::to_str).context("a path")?;
    let path = std::env::var("PATH")?;
    let text = text.replace("PORT", "0");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec {text} --json --state device")])
        .env("PATH", format!("{bin}:{path}"))
        .current_dir(links.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn what_is_printed_opens_the_service() -> anyhow::Result<()> {
    let web = ["web=http://127.0.0.1:9", "bus=messages:"];
    let services = COMMANDS.map(|(service, ..)| service);
    let up = Up::start(&[&services[..], &web].concat()).await?;
    assert!(up.tells("web is open at") && up.tells("portway subscribe 'bus/*'"));
    assert_eq!(
        up.told
            .iter()
            .filter(|it| it.contains("is open at"))
            .count(),
        1
    );
    let links = tempfile::tempdir()?;
    for (service, command, event) in COMMANDS {
        let (name, _) = service.split_once('=').context("a name")?;
        assert!(up.tells(command), "{command}: {:?}", up.told);
        assert!(up.tells(&format!("{name} is no web page")));
        std::fs::write(links.path().join(format!("{name}.link")), up.link(name)?)?;
        let connected = Connected::by(shell(command, &links)?, event).await?;
        connected.terminate().await?;
    }
    Ok(())
}

async fn whoever_shares_is_told_the_same() -> anyhow::Result<()> {
    let state = State::new()?;
    let web = "web=http://127.0.0.1:9";
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", web]).await?;
    let said = async |args: &[&str]| {
        let mut command = Program::default().command();
        let output = command.args(args).arg("--state").arg(state.path()).output();
        let output = tokio::time::timeout(PATIENCE, output).await??;
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    for (service, command, _) in COMMANDS {
        let (name, _) = service.split_once('=').context("a name")?;
        let told = said(&["expose", service]).await?;
        assert!(told.contains(command), "{told}");
        let told = said(&["share", name]).await?;
        assert!(told.contains(command), "{told}");
        let told = portway.ask(&["expose", service]).await?;
        assert_eq!(
            format!(
                "{} --link-file {name}.link",
                told["command"].as_str().unwrap_or_default()
            ),
            command
        );
    }
    let told = said(&["share", "web"]).await?;
    assert!(!told.contains("portway connect"), "{told}");
    assert!(portway.ready["services"][0].get("command").is_none());
    Ok(())
}
