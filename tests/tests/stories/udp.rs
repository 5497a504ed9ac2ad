//! Services that speak UDP. Datagrams may be lost by right: who asks here asks again, as a DNS client does.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use portway_tests::client::{Connected, LinkFile};
use portway_tests::dns::NameServer;
use portway_tests::portway::{Portway, State};
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_name_server_is_asked),
    native!(datagrams_keep_their_boundaries),
    native!(many_addresses_speak_at_once),
    native!(a_service_that_comes_late_is_found),
    native!(who_may_only_read_pages_sends_nothing),
    native!(who_is_wrong_about_the_service_is_told),
];

/// Addresses at once: more than a session has flows.
const ADDRESSES: usize = 300;

/// Largest datagram that is not cut up, and the first that no datagram may have.
const MTU: usize = 1155;
const TOO_LARGE: usize = 16 * 1024;

/// Wrong use.
const USAGE: i32 = 2;

/// A node that offers `app` there.
struct Stage {
    portway: Portway,
    link: LinkFile,
    _state: State,
}

impl Stage {
    async fn set(target: &str) -> anyhow::Result<Self> {
        let state = State::new()?;
        let expose = format!("app={target}");
        let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
        Ok(Self {
            link: LinkFile::new(&portway.link("app"))?,
            portway,
            _state: state,
        })
    }

    async fn connect(&self) -> anyhow::Result<Connected> {
        Connected::start_logging(&self.link, &["--udp"], Stdio::inherit()).await
    }
}

/// Says back whatever it hears. Ends when dropped.
struct Echo {
    target: String,
    _task: JoinSet<()>,
}

impl Echo {
    async fn start() -> anyhow::Result<Self> {
        Self::on(UdpSocket::bind("127.0.0.1:0").await?)
    }

    fn on(socket: UdpSocket) -> anyhow::Result<Self> {
        let target = format!("udp://{}", socket.local_addr()?);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok((len, source)) = socket.recv_from(&mut buffer).await {
                // It may be lost as any other.
                drop(socket.send_to(&buffer[..len], source).await);
            }
        });
        Ok(Self {
            target,
            _task: task,
        })
    }
}

/// A socket of somebody who uses the service.
async fn dial(local: &Connected) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(local.listen()).await?;
    Ok(socket)
}

/// Asks until it is answered by the same datagram. Late answers to other ones are passed over.
async fn ask(socket: &UdpSocket, question: &[u8]) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let asking = async {
        loop {
            socket.send(question).await?;
            let answer = tokio::time::timeout(20 * LOOK_AGAIN, socket.recv(&mut buffer));
            if let Ok(len) = answer.await
                && buffer[..len?] == *question
            {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("no answer to {} bytes", question.len()))?
}

/// Ends it, and returns what it has counted.
async fn counted(mut local: Connected) -> anyhow::Result<Value> {
    local.interrupt().await?;
    local.event("datagrams").await
}

fn count(counted: &Value, name: &str) -> u64 {
    let value = counted.pointer(name).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{counted} has no {name}"))
}

async fn a_name_server_is_asked() -> anyhow::Result<()> {
    let server = NameServer::start("nas.lab", "192.0.2.7").await?;
    let stage = Stage::set(&format!("udp://{}", server.address)).await?;
    let local = stage.connect().await?;
    assert_eq!(local.ready["kind"], "udp");
    assert_eq!(local.ready["mtu"], MTU);
    let (_, port) = local.listen().rsplit_once(':').context("a port")?;
    for _ in 0..3 {
        let mut dig = Command::new("dig");
        dig.args(["@127.0.0.1", "-p", port, "+short", "+tries=60", "nas.lab"]);
        let said = tokio::time::timeout(PATIENCE, dig.output()).await??;
        assert_eq!(said.stdout, b"192.0.2.7\n", "{said:?}");
    }
    let sessions = stage.portway.ask(&["sessions"]).await?;
    let at_node = &sessions["sessions"][0]["datagrams"];
    assert!(count(at_node, "/received") >= 3, "{sessions}");
    let counted = counted(local).await?;
    assert!(count(&counted, "/sent") >= 3, "{counted}");
    assert!(count(&counted, "/received") >= 3, "{counted}");
    Ok(())
}

async fn datagrams_keep_their_boundaries() -> anyhow::Result<()> {
    let echo = Echo::start().await?;
    let stage = Stage::set(&echo.target).await?;
    let local = stage.connect().await?;
    let socket = dial(&local).await?;
    for len in [0, 1, MTU, MTU + 1, 9000, TOO_LARGE - 5] {
        let question: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        ask(&socket, &question).await?;
    }
    socket.send(&[7; TOO_LARGE]).await?;
    // Who asks after it is answered after it was dropped.
    ask(&socket, b"still there?").await?;
    let sessions = stage.portway.ask(&["sessions"]).await?;
    let counted = counted(local).await?;
    assert_eq!(count(&counted, "/dropped/too_large"), 1, "{counted}");
    // Only the first is in such a hurry that it goes with the request.
    for end in [&sessions["sessions"][0]["datagrams"], &counted] {
        assert!(count(end, "/sent") > count(end, "/on_stream"), "{end}");
    }
    Ok(())
}

async fn many_addresses_speak_at_once() -> anyhow::Result<()> {
    let echo = Echo::start().await?;
    let stage = Stage::set(&echo.target).await?;
    let local = stage.connect().await?;
    let mut asking = JoinSet::new();
    for at in 0..ADDRESSES {
        let socket = dial(&local).await?;
        asking.spawn(async move {
            for round in 0..3 {
                ask(&socket, format!("{at} in round {round}").as_bytes()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    Ok(())
}

async fn a_service_that_comes_late_is_found() -> anyhow::Result<()> {
    // Nobody else gets the port while its socket is there.
    let reserved = UdpSocket::bind("127.0.0.1:0").await?;
    let address = reserved.local_addr()?;
    drop(reserved);
    let stage = Stage::set(&format!("udp://{address}")).await?;
    let local = stage.connect().await?;
    let socket = dial(&local).await?;
    let refused = async {
        loop {
            socket.send(b"anybody?").await?;
            let sessions = stage.portway.ask(&["sessions"]).await?;
            if count(&sessions["sessions"][0]["datagrams"], "/dropped/refused") > 0 {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await??;
    let _echo = Echo::on(UdpSocket::bind(address).await?)?;
    ask(&socket, b"and now?").await
}

async fn who_may_only_read_pages_sends_nothing() -> anyhow::Result<()> {
    let service = UdpSocket::bind("127.0.0.1:0").await?;
    let stage = Stage::set(&format!("udp://{}", service.local_addr()?)).await?;
    for terms in [["--methods", "GET"], ["--path", "/*"]] {
        let share = [&["share", "app"], &terms[..]].concat();
        let shared = stage.portway.ask(&share).await?;
        let link = LinkFile::new(shared["link"].as_str().unwrap_or_default())?;
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let file = std::fs::File::create(&log)?;
        let local = Connected::start_logging(&link, &["--udp"], file).await?;
        let socket = dial(&local).await?;
        let refused = async {
            while !std::fs::read_to_string(&log)?.contains("PERMISSION_DENIED") {
                socket.send(b"let me in").await?;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, refused).await??;
        assert_eq!(count(&counted(local).await?, "/received"), 0);
    }
    let heard = service.try_recv(&mut [0; 16]);
    let nothing = heard.map_err(|error| error.kind());
    assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
    Ok(())
}

async fn who_is_wrong_about_the_service_is_told() -> anyhow::Result<()> {
    for (target, args, reason) in [
        ("udp://127.0.0.1:9", &["-L", "0"][..], "SERVICE_IS_UDP"),
        ("udp://127.0.0.1:9", &["--stdio"], "SERVICE_IS_UDP"),
        (
            "tcp://127.0.0.1:9",
            &["-L", "0", "--udp"],
            "SERVICE_NOT_UDP",
        ),
        (
            "http://127.0.0.1:9",
            &["-L", "0", "--udp"],
            "SERVICE_NOT_UDP",
        ),
    ] {
        let stage = Stage::set(target).await?;
        let said = stage.link.connect(args).await?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(error.contains(reason), "{target} {args:?}: {error}");
        assert_eq!(said.status.code(), Some(USAGE), "{target} {args:?}");
    }
    Ok(())
}
