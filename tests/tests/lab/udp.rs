//! Datagrams through `portway connect --udp`: the flow of an address goes on when its path dies, directly and
//! over a relay.
//!
//! Who asks is on the client's host, always from the same address, and asks again as long as it has to. The
//! service tells from which port it is asked: a flow that was begun anew has another.

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::lab::Lab;
use serde_json::Value;
use tokio::process::Command;

use crate::disturbance::{Networks, end, serving, undo};
use crate::results::Results;
use crate::scenario;
use crate::tunnel::Tunnel;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(datagrams_survive_their_path),
    scenario!(datagrams_survive_their_relay),
];

/// Answers each datagram with the port it came from.
const SERVICE: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('127.0.0.1',7007))
while True:
  _,source=s.recvfrom(100); s.sendto(str(source[1]).encode(),source)
";

/// Asks until it is answered.
const ASKER: &str = "import socket,sys
host,port=sys.argv[1].rsplit(':',1)
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('127.0.0.1',7070)); s.settimeout(0.1)
while True:
  s.sendto(b'?',(host,int(port)))
  try: print(s.recv(100).decode()); break
  except TimeoutError: pass
";

async fn datagrams_survive_their_path(_: &Results) -> anyhow::Result<()> {
    survive(Networks::Meeting, "direct").await
}

async fn datagrams_survive_their_relay(_: &Results) -> anyhow::Result<()> {
    survive(Networks::Relayed, "relayed").await
}

async fn survive(networks: Networks, path: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let service = folder.path().join("service.py");
    std::fs::write(&service, SERVICE)?;
    let run = format!("python3 {}", service.display());
    let spec = serving(networks, "echo = \"udp://127.0.0.1:7007\"", &run);
    let lab = Lab::describe(&spec).await?;
    let tunnel = Tunnel::open_to(&lab, "echo", &["--udp"]).await?;
    ensure!(tunnel.path == path, "its path is {}", tunnel.path);
    let first = ask(&lab, &tunnel).await?;
    for event in networks.events() {
        event.happen(&lab).await?;
        let next = ask(&lab, &tunnel).await;
        let next = next.with_context(|| format!("after a {}", event.name))?;
        ensure!(next == first, "a {} begins another flow", event.name);
        // In time, the new path has a channel for datagrams, and they do not go by the stream any more.
        let by_channel = async {
            let before = by_channel(&lab).await?;
            while by_channel(&lab).await? == before {
                ask(&lab, &tunnel).await?;
            }
            anyhow::Ok(())
        };
        let by_channel = tokio::time::timeout(PATIENCE, by_channel).await;
        by_channel.with_context(|| format!("no channel after a {}", event.name))??;
        undo(&lab).await?;
        ask(&lab, &tunnel).await?;
    }
    end(lab).await
}

/// How many datagrams the node has sent by the channel that sends nothing twice.
async fn by_channel(lab: &Lab) -> anyhow::Result<u64> {
    let said = Command::new(portway_tests::portway::binary())
        .args(["sessions", "--json", "--state"])
        .arg(lab.dir().join("nodes/n1/state"))
        .output()
        .await?;
    ensure!(said.status.success(), "{said:?}");
    let sessions: Value = serde_json::from_slice(&said.stdout)?;
    let datagrams = &sessions["sessions"][0]["datagrams"];
    let count = |name: &str| datagrams[name].as_u64();
    let (sent, on_stream) = count("sent").zip(count("on_stream")).context("no count")?;
    Ok(sent - on_stream)
}

/// Asks until the service answers from which port it was asked.
async fn ask(lab: &Lab, tunnel: &Tunnel) -> anyhow::Result<String> {
    let mut asker = lab.on("client", "python3");
    asker.args(["-c", ASKER, &tunnel.listen]);
    let asked = tokio::time::timeout(PATIENCE, asker.output()).await??;
    ensure!(asked.status.success(), "{asked:?}");
    Ok(String::from_utf8(asked.stdout)?)
}
