//! What either end of tunnels allows: how long they may be silent, and how many there may be.

use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::{Portway, State};
use portway_tests::{LOOK_AGAIN, PATIENCE};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

use crate::machine_to_machine::{connected, hook};
use crate::tunnels::{Stage, UNAVAILABLE, assert_reset, through};
use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_silent_connection_ends_at_its_client),
    native!(a_silent_connection_to_a_node_ends_at_who_serves_it),
    native!(a_silent_flow_gives_way_to_a_new_one),
    native!(a_node_says_how_many_connections_a_service_takes),
];

/// The shortest there is: it is waited for.
const IDLE: [&str; 2] = ["--idle-timeout", "1s"];

async fn a_silent_connection_ends_at_its_client() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage::before(&listener).await?;
    let log = NamedTempFile::new()?;
    let local = Connected::start_logging(&stage.link, &IDLE, log.reopen()?).await?;
    let (near, far) = through(&local, &listener).await?;
    assert_reset(near).await?;
    assert_reset(far).await?;
    local.terminate().await?;
    let told = std::fs::read_to_string(log.path())?;
    assert!(told.contains("nothing went either way for 1 s"), "{told}");

    // Its input has ended, and the service does not answer.
    let args = [&["--stdio"], &IDLE[..]].concat();
    let (said, accepted) = tokio::join!(stage.link.connect(&args), listener.accept());
    let (said, _far) = (said?, accepted?);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(told.contains("--idle-timeout"), "{told}");
    Ok(())
}

async fn a_silent_connection_to_a_node_ends_at_who_serves_it() -> anyhow::Result<()> {
    let (_owner, link, address) = hook().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port().to_string();
    let (device, file) = (State::new()?, link.path());
    let args = [&["--link-file", &file, "-R", &port], &IDLE[..]].concat();
    let _serving = Connected::of_node(&device, &args, "reverse").await?;
    let far = connected(&address).await?;
    let (near, _) = tokio::time::timeout(PATIENCE, listener.accept()).await??;
    assert_reset(near).await?;
    assert_reset(far).await
}

async fn a_silent_flow_gives_way_to_a_new_one() -> anyhow::Result<()> {
    let service = UdpSocket::bind("127.0.0.1:0").await?;
    let stage = Stage::set(&format!("udp://{}", service.local_addr()?)).await?;
    let args = [&["--udp", "-vv"], &IDLE[..]].concat();
    let log = NamedTempFile::new()?;
    let local = Connected::start_logging(&stage.link, &args, log.reopen()?).await?;
    let program = UdpSocket::bind("127.0.0.1:0").await?;
    program.connect(local.listen()).await?;
    let mut heard = [0; 16];
    program.send(b"one").await?;
    let (_, first) = tokio::time::timeout(PATIENCE, service.recv_from(&mut heard)).await??;
    let ended = async {
        while !std::fs::read_to_string(log.path())?.contains("nothing went either way for 1 s") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, ended).await??;
    // The service sees another port when the flow has ended, and there is a new one.
    program.send(b"two").await?;
    let (_, second) = tokio::time::timeout(PATIENCE, service.recv_from(&mut heard)).await??;
    assert_ne!(first, second);
    Ok(())
}

async fn a_node_says_how_many_connections_a_service_takes() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let state = State::new()?;
    let target = listener.local_addr()?;
    let file = format!("[limits]\nconnections = 1\n[services]\napp = \"tcp://{target}\"\n");
    let file = state.file("portway.toml", &file)?;
    let portway = Portway::up(&state, "127.0.0.1:0", &["--config", &file]).await?;
    let link = LinkFile::new(&portway.link("app"))?;
    let local = Connected::start(&link).await?;
    let (near, mut far) = through(&local, &listener).await?;

    // Another client, another session.
    let another = LinkFile::new(&portway.link("app"))?;
    let said = another.stdio(b"").await?;
    assert_eq!(said.status.code(), Some(UNAVAILABLE), "{said:?}");
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    let words = ["SERVICE_FULL", "allows no more connections"];
    assert!(words.iter().all(|words| told.contains(words)), "{told}");

    // With the first one goes what was in the way.
    drop(near);
    assert_eq!(far.read(&mut [0]).await?, 0);
    drop(far);
    let (_near, _far) = through(&local, &listener).await?;
    Ok(())
}
