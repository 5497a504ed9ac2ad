//! Services that are no web pages: ssh, and whatever else speaks TCP.

use std::io;

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::sshd::Sshd;
use portway_tests::upstream::pattern;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::{APP, BOTH, NativeStory, native, story};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(ssh_and_scp_go_through),
    native!(each_direction_ends_by_itself),
    native!(a_service_on_a_unix_socket_is_reached),
    native!(what_is_cut_off_is_reset),
    native!(more_connections_than_streams_wait),
    native!(who_may_only_read_pages_opens_no_tunnel),
    native!(a_web_page_has_no_stream),
];

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_page_says_that_it_is_none)];

/// Size of files: many windows of every layer.
const FILE: usize = 32 * 1024 * 1024;

/// Connections at once: more than a session has streams.
const CONNECTIONS: usize = 600;

/// Wrong use, unavailable.
const USAGE: i32 = 2;
pub(crate) const UNAVAILABLE: i32 = 69;

/// A node that offers `app` there.
pub(crate) struct Stage {
    pub(crate) portway: Portway,
    pub(crate) link: LinkFile,
    _state: State,
}

impl Stage {
    pub(crate) async fn set(target: &str) -> anyhow::Result<Self> {
        let state = State::new()?;
        let expose = format!("app={target}");
        let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
        Ok(Self {
            link: LinkFile::new(&portway.link("app"))?,
            portway,
            _state: state,
        })
    }

    /// At a listener of the test.
    pub(crate) async fn before(listener: &TcpListener) -> anyhow::Result<Self> {
        Self::set(&format!("tcp://{}", listener.local_addr()?)).await
    }
}

async fn dial(local: &Connected) -> io::Result<TcpStream> {
    TcpStream::connect(local.listen()).await
}

async fn ssh_and_scp_go_through() -> anyhow::Result<()> {
    let sshd = Sshd::start().await?;
    let stage = Stage::set(&format!("tcp://{}", sshd.address)).await?;
    let proxy = format!("ProxyCommand={}", stage.link.proxy_command());
    let mut command = sshd.client("ssh");
    let said = command.args(["-o", &proxy, "lab", "echo $((6 * 7)); exit 3"]);
    let said = tokio::time::timeout(PATIENCE, said.output()).await??;
    assert_eq!(said.stdout, b"42\n", "{said:?}");
    assert_eq!(said.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");

    let folder = tempfile::tempdir()?;
    let [original, there, back] = ["original", "there", "back"].map(|it| folder.path().join(it));
    let content = pattern()[..].repeat(FILE / pattern().len() + 1);
    std::fs::write(&original, &content)?;
    let local = Connected::start(&stage.link).await?;
    let (_, port) = local.listen().rsplit_once(':').context("a port")?;
    let remote = format!("127.0.0.1:{}", there.display());
    for (from, to) in [
        (original.display().to_string(), remote.clone()),
        (remote, back.display().to_string()),
    ] {
        let mut scp = sshd.client("scp");
        let copied = scp.args(["-q", "-P", port, &from, &to]).status();
        let copied = tokio::time::timeout(PATIENCE, copied).await??;
        ensure!(copied.success(), "{from} → {to}: {copied}");
    }
    assert!(std::fs::read(&back)? == content, "another file came back");
    let pinged = ping(&stage.link, &["--count", "1"]).await?;
    let events: Vec<_> = pinged.lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(events, ["open", "ping", "summary"], "nothing was asked");
    Ok(())
}

/// Reads all, then says how much that was.
async fn count(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).await.is_ok() {
        // Whether anybody hears it is theirs to say.
        drop(stream.write_all(all.len().to_string().as_bytes()).await);
    }
}

async fn each_direction_ends_by_itself() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage::before(&listener).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count(stream).await;
        }
    });
    let local = Connected::start(&stage.link).await?;
    assert_eq!(local.ready["kind"], "tcp");
    let mut stream = dial(&local).await?;
    stream.write_all(&pattern()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    assert_eq!(answer, pattern().len().to_string());

    let said = stage.link.stdio(b"seven").await?;
    assert!(said.status.success(), "{said:?}");
    assert_eq!(said.stdout, b"5");
    Ok(())
}

async fn a_service_on_a_unix_socket_is_reached() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path)?;
    let stage = Stage::set(&format!("tcp+unix:{}", path.display())).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count(stream).await;
        }
    });
    let said = stage.link.stdio(b"unix").await?;
    assert_eq!(said.stdout, b"4", "{said:?}");
    Ok(())
}

/// Both ends of a connection through the tunnel, which have greeted each other.
pub(crate) async fn through(
    local: &Connected,
    listener: &TcpListener,
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut near = dial(local).await?;
    near.write_all(b"hello").await?;
    let mut heard = [0; 5];
    // Health checks come, too, and say nothing.
    let mut far = loop {
        let (mut far, _) = listener.accept().await?;
        if far.read_exact(&mut heard).await.is_ok() {
            break far;
        }
    };
    far.write_all(b"hello").await?;
    near.read_exact(&mut heard).await?;
    Ok((near, far))
}

/// Whoever reads here hears of a reset, and not of an end.
pub(crate) async fn assert_reset(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await?;
    let kind = read.map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionReset));
    Ok(())
}

async fn what_is_cut_off_is_reset() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage::before(&listener).await?;
    let local = Connected::start(&stage.link).await?;
    let (near, far) = through(&local, &listener).await?;
    far.set_zero_linger()?;
    drop(far);
    assert_reset(near).await?;

    let (near, far) = through(&local, &listener).await?;
    near.set_zero_linger()?;
    drop(near);
    assert_reset(far).await?;

    let mut heard = [0; 5];
    let cut_off = async {
        let (mut far, _) = listener.accept().await?;
        // A reset that comes sooner is a refusal.
        far.read_exact(&mut heard).await?;
        far.set_zero_linger()
    };
    let (said, cut_off) = tokio::join!(stage.link.stdio(b"hello"), cut_off);
    cut_off?;
    let error = String::from_utf8_lossy(&said?.stderr).into_owned();
    assert!(error.contains("BODY_TRUNCATED"), "{error}");

    // Who ends this end, and nobody is there any more.
    let (near, far) = through(&local, &listener).await?;
    local.terminate().await?;
    assert_reset(near).await?;
    assert_reset(far).await?;
    let local = Connected::start(&stage.link).await?;
    drop(listener);
    match dial(&local).await {
        Ok(stream) => assert_reset(stream).await?,
        // It can come so soon that connecting fails.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    let said = stage.link.stdio(b"").await?;
    assert_eq!(said.status.code(), Some(UNAVAILABLE));
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("UPSTREAM_REFUSED"), "{error}");
    Ok(())
}

async fn more_connections_than_streams_wait() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage::before(&listener).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            serving.spawn(count(stream));
        }
    });
    let local = Connected::start(&stage.link).await?;
    let mut asking = JoinSet::new();
    for length in 1..=CONNECTIONS {
        let mut stream = dial(&local).await?;
        asking.spawn(async move {
            stream.write_all(&vec![7; length]).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ensure!(answer == length.to_string(), "{answer} for {length}");
            Ok(())
        });
    }
    let answered = async {
        while let Some(outcome) = asking.join_next().await {
            outcome??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, answered).await?
}

async fn who_may_only_read_pages_opens_no_tunnel() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage::before(&listener).await?;
    for terms in [["--methods", "GET"], ["--path", "/*"]] {
        let share = [&["share", "app"], &terms[..]].concat();
        let shared = stage.portway.ask(&share).await?;
        let link = LinkFile::new(shared["link"].as_str().unwrap_or_default())?;
        let said = link.stdio(b"").await?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(error.contains("PERMISSION_DENIED"), "{error}");
    }
    Ok(())
}

async fn a_web_page_has_no_stream() -> anyhow::Result<()> {
    let stage = Stage::set("http://127.0.0.1:9").await?;
    let said = stage.link.stdio(b"").await?;
    assert_eq!(said.status.code(), Some(USAGE));
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("SERVICE_IS_HTTP"), "{error}");
    Ok(())
}

async fn a_page_says_that_it_is_none(browser: &mut Browser) -> anyhow::Result<()> {
    for target in ["tcp://127.0.0.1:9", "udp://127.0.0.1:9"] {
        let stage = Stage::set(target).await?;
        browser.open(&stage.portway.link("app")).await?;
        let said = format!("{APP}.document.body.innerText.includes('SERVICE_NOT_HTTP')");
        browser.wait_for(&said, PATIENCE).await?;
    }
    Ok(())
}
