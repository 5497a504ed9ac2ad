//! A download through `portway connect` goes on when its path dies, and ends with an error when its
//! node does.
//!
//! Who reads it is on the client's host, and measures by itself.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use portway_tests::PATIENCE;
use portway_tests::lab::Lab;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::disturbance::{BEGUN, COMPLETION, Event, Networks, end, random_file, undo};
use crate::results::{Recovery, Results};
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(a_download_survives_its_path_without_a_browser),
    scenario!(a_download_loses_its_relay_without_a_browser),
    scenario!(a_download_ends_with_its_node_without_a_browser),
];

/// A new session after a node's process is back (reliability bar: 5 s).
const CRASH_BAR: Duration = Duration::from_secs(5);

/// Downloads; says when it has so many bytes, and notes the longest time without one from then on.
const READER: &str = "import hashlib,json,socket,sys,time
host,port=sys.argv[1].rsplit(':',1)
begun,patience=int(sys.argv[2]),float(sys.argv[3])
told={'bytes':0,'gap':0}
def say(event): print(json.dumps({'event':event}),flush=True)
try:
  s=socket.create_connection((host,int(port)),patience)
  s.sendall(b'GET /data HTTP/1.1\\r\\nHost: '+sys.argv[1].encode()+b'\\r\\nConnection: close\\r\\n\\r\\n')
  head=b''
  while b'\\r\\n\\r\\n' not in head:
    more=s.recv(65536)
    if not more: raise EOFError('no answer')
    head+=more
  head,body=head.split(b'\\r\\n\\r\\n',1)
  lines=head.decode().split('\\r\\n')
  if lines[0].split()[1]!='200': raise ValueError(head.decode())
  length=next(int(l.split(':')[1]) for l in lines if l.lower().startswith('content-length:'))
  sha,last=hashlib.sha256(),None
  while True:
    now=time.monotonic()
    if last is not None: told['gap']=max(told['gap'],(now-last)*1000)
    if body: sha.update(body)
    if told['bytes']==0 and body: say('first')
    told['bytes']+=len(body)
    if last is None and told['bytes']>=begun: say('begun'); last=now
    elif last is not None: last=now
    if told['bytes']>=length: break
    body=s.recv(65536)
    if not body: raise EOFError('it ended early')
  told['sha']=sha.hexdigest()
except Exception as e:
  if last_seen:=locals().get('last'): told['gap']=max(told['gap'],(time.monotonic()-last_seen)*1000)
  told['error']=repr(e)
print(json.dumps(told),flush=True)";

async fn a_download_survives_its_path_without_a_browser(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Networks::Meeting).await
}

async fn a_download_loses_its_relay_without_a_browser(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Networks::Relayed).await
}

async fn recoveries(results: &Results, networks: Networks) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sha = random_file(&folder.path().join("data")).await?;
    let lab = networks.lab(folder.path()).await?;
    let mut whole = 0;
    for event in networks.events() {
        let outcome = match recover(&lab, event).await {
            Ok(outcome) => outcome,
            // It did not open: a red row.
            Err(error) => json!({"error": format!("{error:#}").lines().next()}),
        };
        whole += usize::from(results.download(event, "gateway", &sha, &outcome)?);
        undo(&lab).await?;
    }
    end(lab).await?;
    networks.check(whole)
}

/// One download, disturbed.
async fn recover(lab: &Lab, event: &Event) -> anyhow::Result<Value> {
    let tunnel = Tunnel::open(lab).await?;
    let mut download = Download::start(lab, &tunnel.listen)?;
    download.event("begun").await?;
    event.happen(lab).await?;
    let mut outcome = download.outcome().await?;
    outcome["path"] = json!(tunnel.path);
    Ok(outcome)
}

/// The node's process dies and another one begins: who downloads is told so, and can ask again.
async fn a_download_ends_with_its_node_without_a_browser(results: &Results) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sha = random_file(&folder.path().join("data")).await?;
    let lab = Networks::Meeting.lab(folder.path()).await?;
    let tunnel = Tunnel::open(&lab).await?;
    let mut download = Download::start(&lab, &tunnel.listen)?;
    download.event("begun").await?;
    lab.ask(&["kill", "n1", "-9"]).await?;
    let killed = Instant::now();
    lab.ask(&["restart", "n1"]).await?;
    let restarted = Instant::now();
    // Not of the reader's own patience: the connection ends.
    let broken = download.outcome().await?;
    let told = killed.elapsed();
    let error = broken["error"].as_str().unwrap_or_default();
    ensure!(
        error.contains("ended early"),
        "a download of a node that died should end, but: {broken}"
    );
    let again = async {
        loop {
            let mut next = Download::start(&lab, &tunnel.listen)?;
            if next.event("first").await.is_ok() {
                let stall = restarted.elapsed();
                return anyhow::Ok((stall, next.outcome().await?));
            }
        }
    };
    let (stall, next) = tokio::time::timeout(COMPLETION, again)
        .await
        .context("the node that was started again is not reached")??;
    results.recovery(&Recovery {
        scenario: "node killed and restarted",
        client: "gateway",
        path: Some(&tunnel.path),
        stall,
        bar: CRASH_BAR,
        is_whole: next["sha"] == sha,
        note: Some(format!(
            "to the next download's first byte; the broken one's error after {} ms",
            told.as_millis()
        )),
    });
    ensure!(next["sha"] == sha, "the next download: {next}");
    end(lab).await
}

/// `portway connect` on the client's host. Ends when dropped.
pub(crate) struct Tunnel {
    _process: Child,
    _output: Lines<BufReader<ChildStdout>>,
    pub(crate) listen: String,
    pub(crate) path: String,
}

impl Tunnel {
    async fn open(lab: &Lab) -> anyhow::Result<Self> {
        Self::open_to(lab, "files", &[]).await
    }

    /// To this service, with more arguments.
    pub(crate) async fn open_to(lab: &Lab, service: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut process = lab
            .portway("client", "connect", service)
            .args(["--json", "-L", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        let ready = said(&mut output, "ready").await?;
        let field = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            listen: field("listen"),
            path: field("path"),
            _process: process,
            _output: output,
        })
    }
}

/// Who reads a download on the client's host. Ends when dropped.
struct Download {
    _process: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Download {
    fn start(lab: &Lab, listen: &str) -> anyhow::Result<Self> {
        let patience = COMPLETION.as_secs().to_string();
        let mut process = lab
            .on("client", "python3")
            .args(["-c", READER, listen, &BEGUN.to_string(), &patience])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        Ok(Self {
            _process: process,
            output,
        })
    }

    async fn event(&mut self, kind: &str) -> anyhow::Result<Value> {
        said(&mut self.output, kind).await
    }

    /// The last line.
    async fn outcome(&mut self) -> anyhow::Result<Value> {
        let last = async {
            let mut last = Value::Null;
            while let Some(line) = self.output.next_line().await? {
                last = serde_json::from_str(&line)?;
            }
            anyhow::Ok(last)
        };
        tokio::time::timeout(COMPLETION * 2, last).await?
    }
}

/// Waits for an event of this kind.
async fn said(output: &mut Lines<BufReader<ChildStdout>>, kind: &str) -> anyhow::Result<Value> {
    let wanted = async {
        while let Some(line) = output.next_line().await? {
            let line: Value = serde_json::from_str(&line)?;
            if line["event"] == kind {
                return Ok(line);
            }
            if let Some(error) = line["error"].as_str() {
                bail!("{error}");
            }
        }
        bail!("it ended before `{kind}`")
    };
    tokio::time::timeout(PATIENCE, wanted).await?
}
