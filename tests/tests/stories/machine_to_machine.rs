//! Nodes of a cluster open each other's services by their own keys, and several services at once.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::{Portway, State, binary};
use portway_tests::process::signal;
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::machines_join::{Owner, join};
use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_node_opens_what_is_shared_with_it),
    native!(a_node_shares_with_the_one_that_has_the_cluster_key),
    native!(a_node_that_was_forgotten_is_shut_out),
    native!(several_services_are_local_at_once),
    native!(a_proxy_leads_to_services_of_the_cluster_only),
    native!(a_program_with_the_library_in_it_is_a_node),
    native!(who_connects_to_a_node_is_served_elsewhere),
    native!(who_mistakes_the_direction_is_told),
];

/// Denied.
const DENIED: i32 = 77;

/// Wrong use.
const USAGE: i32 = 2;

/// Connections at once: more than wait to be served.
const AT_ONCE: usize = 60;

/// What is said.
const WORDS: &[u8] = b"the same, please";

/// A cluster of two: the owner's machine, and the office.
struct Cluster {
    owner: Owner,
    office: State,
    upstream: Upstream,
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// The owner's machine offers `web`, `echo`, and `hello`, which says [`WORDS`].
    async fn of_two() -> anyhow::Result<Self> {
        let upstream = Upstream::start().await?;
        let (target, mut tasks) = echo().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let hello = format!("tcp://{}", listener.local_addr()?);
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.write_all(WORDS).await);
            }
        });
        let services = [
            ("web", upstream.target()),
            ("echo", target),
            ("hello", hello),
        ];
        let owner = Owner::offering(&services).await?;
        let office = State::new()?;
        let token = owner.join_token(&[]).await?;
        join(&office, &token, &["--node", "office"]).await?;
        Ok(Self {
            owner,
            office,
            upstream,
            _tasks: tasks,
        })
    }

    async fn share(&self, service: &str) -> anyhow::Result<String> {
        share(&self.owner.portway, service, "office").await
    }

    /// What the office hears that is refused.
    async fn refusal(&self, service: &str) -> anyhow::Result<String> {
        let refused = self.office.ask(&["ping", service, "--count", "1"]).await;
        Ok(refused.err().context("it was not refused")?.to_string())
    }
}

async fn share(gateway: &Portway, service: &str, node: &str) -> anyhow::Result<String> {
    let shared = gateway.ask(&["share", service, "--to-node", node]).await?;
    ensure!(shared["link"].is_null(), "there is nothing to be stolen");
    ensure!(shared["node"] == node);
    Ok(shared["id"].as_str().context("an id")?.to_owned())
}

/// A service that says what it hears, and its target.
async fn echo() -> anyhow::Result<(String, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("tcp://{}", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            serving.spawn(async move {
                let (mut read, mut write) = stream.split();
                // Whoever has gone hears nothing.
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    Ok((target, tasks))
}

/// Says something and hears it again.
async fn assert_echo(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    stream.write_all(WORDS).await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await??;
    ensure!(heard == WORDS, "heard {heard:?}");
    Ok(())
}

async fn a_node_opens_what_is_shared_with_it() -> anyhow::Result<()> {
    let cluster = Cluster::of_two().await?;
    let refusal = cluster.refusal("echo").await?;
    assert!(
        refusal.contains("PERMISSION_DENIED") && refusal.contains("--to-node"),
        "{refusal}"
    );
    let grant = cluster.share("echo").await?;
    // One service is not all of them.
    let refusal = cluster.refusal("web").await?;
    assert!(refusal.contains("PERMISSION_DENIED"), "{refusal}");

    let local = Connected::of_node(&cluster.office, &["echo", "-L", "0"], "ready").await?;
    assert_echo(TcpStream::connect(local.listen()).await?).await?;
    let sessions = cluster.owner.portway.ask(&["sessions"]).await?;
    assert_eq!(sessions["sessions"][0]["user"], "node:office");
    assert_eq!(sessions["sessions"][0]["grant"], grant.as_str());

    let revoked = cluster
        .owner
        .portway
        .ask(&["links", "revoke", &grant])
        .await?;
    assert_eq!(revoked["sessions"], 1);
    assert_eq!(local.ended().await?.code(), Some(DENIED));
    assert_eq!(cluster.upstream.requests().len(), 0);
    Ok(())
}

async fn a_node_shares_with_the_one_that_has_the_cluster_key() -> anyhow::Result<()> {
    let cluster = Cluster::of_two().await?;
    let (target, _echo) = echo().await?;
    let expose = format!("theirs={target}");
    let gateway = Portway::start(&cluster.office, &["gateway", "--expose", &expose]).await?;
    let owner = cluster.owner.portway.ready["node"]
        .as_str()
        .context("a name")?;
    let unknown = gateway
        .ask(&["share", "theirs", "--to-node", "nobody"])
        .await;
    let unknown = unknown.err().context("there is no such node")?.to_string();
    assert!(unknown.contains("no node `nobody`"), "{unknown}");
    share(&gateway, "theirs", owner).await?;
    let state = &cluster.owner.state;
    let local = Connected::of_node(state, &["theirs", "-L", "0"], "ready").await?;
    assert_eq!(local.ready["node"], "office");
    assert_echo(TcpStream::connect(local.listen()).await?).await
}

async fn a_node_that_was_forgotten_is_shut_out() -> anyhow::Result<()> {
    let cluster = Cluster::of_two().await?;
    cluster.share("echo").await?;
    let local = Connected::of_node(&cluster.office, &["echo", "-L", "0"], "ready").await?;
    assert_echo(TcpStream::connect(local.listen()).await?).await?;
    cluster
        .owner
        .portway
        .ask(&["nodes", "forget", "office"])
        .await?;
    assert_eq!(local.ended().await?.code(), Some(DENIED));
    let refusal = cluster.refusal("echo").await?;
    assert!(refusal.contains("PERMISSION_DENIED"), "{refusal}");
    let links = cluster.owner.portway.ask(&["links"]).await?;
    let links = links["links"].as_array().context("a list")?;
    assert!(
        links.iter().all(|it| it["user"] != "node:office"),
        "{links:?}"
    );
    Ok(())
}

async fn several_services_are_local_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::of_two().await?;
    let [web, echo] = ["web", "echo"].map(|it| LinkFile::new(&cluster.owner.portway.link(it)));
    let (web, echo) = (web?, echo?);
    let device = State::new()?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("echo.sock").display().to_string();
    let at = format!("{socket}=echo");
    let (web, echo) = (web.path(), echo.path());
    let links = ["--link-file", &web, "--link-file", &echo];
    let args = [links, ["-L", "0=web", "-L", &at]].concat();
    let mut local = Connected::of_node(&device, &args, "ready").await?;
    let second = local.event("ready").await?;
    for ready in [&local.ready, &second] {
        let listen = ready["listen"].as_str().context("an address")?;
        match ready["service"].as_str().context("a service")? {
            "web" => assert!(page(listen).await?.starts_with("HTTP/1.1 200")),
            "echo" => {
                assert_eq!(listen, socket);
                assert_echo(UnixStream::connect(listen).await?).await?;
            }
            other => anyhow::bail!("another service: {other}"),
        }
    }
    assert!(local.terminate().await?.success());
    assert!(
        !std::fs::exists(&socket)?,
        "the socket is gone with its process"
    );

    // What no link opens is said before anything is connected.
    let wrong = ["connect", "other", "--link-file", &web, "-L", "0"];
    let refusal = device.ask(&wrong).await.err().context("no link opens it")?;
    assert!(refusal.to_string().contains("they open web"), "{refusal}");
    Ok(())
}

/// The head of a local page.
async fn page(listen: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(listen).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn a_proxy_leads_to_services_of_the_cluster_only() -> anyhow::Result<()> {
    let cluster = Cluster::of_two().await?;
    for service in ["web", "hello"] {
        cluster.share(service).await?;
    }
    let local = Connected::of_node(&cluster.office, &["--socks", "0"], "proxy").await?;
    assert_eq!(local.ready["cluster"], "home");
    let proxy = format!("socks5h://{}", local.listen());
    let got = curl(&proxy, "http://web.home/").await?;
    ensure!(got.status.success(), "{got:?}");
    let got = curl(&proxy, "http://WEB.home:8080/").await?;
    ensure!(got.status.success(), "any port will do: {got:?}");
    assert_eq!(cluster.upstream.requests(), ["GET /", "GET /"]);
    let said = curl(&proxy, "telnet://hello.home:1").await?;
    assert_eq!(said.stdout, WORDS);
    // RFC 1928 §6: 2 is not allowed, 4 is no way to the host.
    for (url, reply) in [
        ("http://other.home/", "(2)"),
        ("http://web.work/", "(4)"),
        ("http://enrol.home/", "(4)"),
        (&cluster.upstream.target(), "(4)"),
    ] {
        let refused = curl(&proxy, url).await?;
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains(reply), "{url}: {error}");
    }
    assert_eq!(cluster.upstream.requests().len(), 2);
    Ok(())
}

async fn curl(proxy: &str, url: &str) -> anyhow::Result<std::process::Output> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-x", proxy, url])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(tokio::time::timeout(PATIENCE, curl.output()).await??)
}

/// `examples/embed-rust`, as its README has it.
async fn a_program_with_the_library_in_it_is_a_node() -> anyhow::Result<()> {
    let owner = Owner::offering(&[]).await?;
    let (one, two) = (State::new()?, State::new()?);
    for (state, name) in [(&one, "one"), (&two, "two")] {
        let token = owner.join_token(&[]).await?;
        join(state, &token, &["--node", name]).await?;
    }
    let mut serving = embedded(&["serve"], &one, "two").spawn()?;
    let stdout = serving.stdout.take().context("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    let ready = ready.context("it has ended")?;
    assert!(ready.contains("two may open it"), "{ready}");

    let asked = embedded(&["ask"], &two, "anybody there?").output();
    let asked = tokio::time::timeout(PATIENCE, asked).await??;
    assert_eq!(
        String::from_utf8_lossy(&asked.stdout),
        "ANYBODY THERE?\n",
        "{asked:?}"
    );
    let services = owner.portway.ask(&["nodes"]).await?;
    let is_one = |it: &&serde_json::Value| it["node"] == "one" && it["status"] == "online";
    assert!(
        services["nodes"]
            .as_array()
            .context("a list")?
            .iter()
            .any(|it| is_one(&it))
    );

    // A directory is one node's at a time.
    let again = embedded(&["serve"], &one, "two").output();
    let again = tokio::time::timeout(PATIENCE, again).await??;
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        error.contains("another process uses the state directory"),
        "{error}"
    );

    signal(&serving, "INT").await?;
    let status = tokio::time::timeout(PATIENCE, serving.wait()).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

fn embedded(command: &[&str], state: &State, argument: &str) -> Command {
    let mut program = Command::new(binary().with_file_name("embed-rust"));
    program
        .args(command)
        .arg(state.path())
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    program
}

/// A link to `hook`, where the node takes connections for whoever serves them, and its address.
pub(crate) async fn hook() -> anyhow::Result<(Owner, LinkFile, String)> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = free.local_addr()?.to_string();
    drop(free);
    let owner = Owner::offering(&[("hook", format!("listen://{address}"))]).await?;
    let link = LinkFile::new(&owner.portway.link("hook"))?;
    Ok((owner, link, address))
}

async fn who_connects_to_a_node_is_served_elsewhere() -> anyhow::Result<()> {
    let (_owner, link, address) = hook().await?;
    assert!(TcpStream::connect(&address).await.is_err(), "nobody serves");
    let (target, _echo) = echo().await?;
    let (_, port) = target.rsplit_once(':').context("a port")?;
    let device = State::new()?;
    let args = ["--link-file", &link.path(), "-R", port];
    let serving = Connected::of_node(&device, &args, "reverse").await?;
    assert_eq!(serving.ready["kind"], "listen");
    let mut asking = JoinSet::new();
    for _ in 0..AT_ONCE {
        // It is bound when the first wait has reached the node.
        let stream = connected(&address).await?;
        asking.spawn(assert_echo(stream));
    }
    while let Some(answered) = asking.join_next().await {
        answered??;
    }
    // What the program cuts off is reset.
    let mut last = connected(&address).await?;
    last.write_all(WORDS).await?;
    let mut heard = vec![0; WORDS.len()];
    last.read_exact(&mut heard).await?;
    assert!(serving.terminate().await?.success());
    let cut = tokio::time::timeout(PATIENCE, last.read(&mut heard)).await?;
    assert!(cut.is_err(), "{cut:?}");
    closed(&address).await
}

/// Waits for somebody who serves.
pub(crate) async fn connected(address: &str) -> anyhow::Result<TcpStream> {
    let connecting = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_refused) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, connecting).await?)
}

/// Waits until nobody serves any more.
async fn closed(address: &str) -> anyhow::Result<()> {
    let closing = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, closing).await?)
}

async fn who_mistakes_the_direction_is_told() -> anyhow::Result<()> {
    let (owner, link, _address) = hook().await?;
    let refused = link.connect(&["-L", "0"]).await?;
    assert_eq!(refused.status.code(), Some(USAGE));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("SERVICE_LISTENS"), "{error}");
    let (target, _echo) = echo().await?;
    let expose = format!("echo={target}");
    let exposed = owner.portway.ask(&["expose", &expose]).await?;
    let link = LinkFile::new(exposed["link"].as_str().context("a link")?)?;
    let refused = link.connect(&["-R", "9"]).await?;
    assert_eq!(refused.status.code(), Some(USAGE));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("SERVICE_NOT_LISTENING"), "{error}");
    Ok(())
}
