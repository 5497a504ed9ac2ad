//! `portway join`: makes this machine a node of a cluster, with a join token.
//!
//! Security: the token is a secret. It comes from a file or from standard input, as links do, and is never
//! repeated. The node key is made here and stays here.

use std::io::IsTerminal as _;
use std::time::Duration;

use portway_gateway::client::{Credential, Target};
use portway_protocol::backoff::Backoff;
use portway_protocol::enrolment::Certificate;
use portway_protocol::key::SigningKey;
use portway_protocol::reason::Reason;
use serde::Serialize;

use crate::args::{Global, Join, Opened, Opener};
use crate::cluster::Kept;
use crate::enrolment::enrolled::Enrolled;
use crate::enrolment::request::{self, Name};
use crate::exit::Failure;
use crate::links::grant_id;
use crate::state::{State, random_bytes};
use crate::{control, node, opened, output};

/// How often an answer that was lost is asked for again.
const REPEATS: u32 = 3;

/// Pauses between: signaling has to hear of the grant of the node key.
const REPEAT_BASE: Duration = Duration::from_secs(1);
const REPEAT_CAP: Duration = Duration::from_secs(4);

/// What came of it.
#[derive(Serialize)]
struct Joined {
    cluster: String,
    cluster_key: String,
    cluster_words: String,
    node: String,
    node_key: String,
    signaling: Vec<String>,
    expires: u64,
}

/// Asks for a certificate and keeps it.
pub(crate) fn run(global: &Global, args: &Join) -> anyhow::Result<()> {
    let state = State::locate(global)?;
    state.prepare()?;
    require_room(&state)?;
    let ca = args.ca.as_ref().map(std::path::absolute).transpose()?;
    if args.token_file.as_os_str() == "-" && std::io::stdin().is_terminal() {
        eprintln!("Paste the join token, then Enter and Ctrl-D:");
    }
    let opened = Opened {
        service: None,
        opener: Opener {
            link_files: vec![args.token_file.clone()],
            node: None,
            ca: ca.clone(),
        },
    };
    let target = opened::target(global, &opened)?;
    if !target.address.site.service.is_internal() {
        let message =
            "this is a link to a service, not a join token: `portway token issue join` makes one";
        return Err(Failure::because(Reason::LinkInvalid, message).into());
    }
    require_same_cluster(&state, &target.address.credential)?;
    let key = node::key(&state)?;
    let name = match &args.node {
        Some(node) => Name::Chosen(node.clone()),
        None => Name::Proposed(node::host_name()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let certificate = runtime.block_on(certificate(&target, &name, &key))?;
    let enrolled = Enrolled::keep(&state, &certificate, ca)?;
    let joined = Joined {
        cluster: enrolled.cluster.to_string(),
        cluster_key: enrolled.cluster_key.to_string(),
        cluster_words: enrolled.cluster_key.words().to_string(),
        node: enrolled.node.to_string(),
        node_key: key.public().to_string(),
        signaling: certificate.signaling,
        expires: certificate.expires,
    };
    output::print(global.format(), &joined, human)?;
    Ok(())
}

fn human(joined: &Joined) -> String {
    format!(
        "this machine is the node `{}` of the cluster `{}`\n\n\
         cluster key  {}\n             {}\n\n\
         The words are those of `portway key show` where you got the token.\n\n\
         Next: portway gateway --expose NAME=http://127.0.0.1:PORT\n\
         It renews the certificate by itself while it runs.",
        joined.node, joined.cluster, joined.cluster_key, joined.cluster_words,
    )
}

/// By the join token. If that is used up, maybe it was by this machine, whose answer was lost: then its node
/// key has a grant.
async fn certificate(
    target: &Target,
    name: &Name,
    key: &SigningKey,
) -> Result<Certificate, Failure> {
    let first = match request::certificate(target, name.clone(), key).await {
        Ok(certificate) => return Ok(certificate),
        Err(error) => error,
    };
    let reason = first.reason();
    let repeats = if reason == Reason::GrantUnknown {
        1
    } else if [Reason::SessionLost, Reason::SessionTimeout].contains(&reason) {
        REPEATS
    } else {
        return Err(first.failure());
    };
    let mut again = target.clone();
    again.address.credential = Credential {
        grant: grant_id(&key.public()),
        key: key.clone(),
        ..again.address.credential
    };
    let mut backoff = Backoff::new(REPEAT_BASE, REPEAT_CAP);
    for repeat in 1..=repeats {
        if let Ok(certificate) = request::certificate(&again, name.clone(), key).await {
            return Ok(certificate);
        }
        if repeat < repeats {
            let delay = backoff.next_delay(u32::from_ne_bytes(random_bytes()));
            tokio::time::sleep(delay).await;
        }
    }
    if reason == Reason::GrantUnknown {
        let message = "the join token was used already, was revoked or has expired: make another with \
                       `portway token issue join` where the cluster key is";
        return Err(Failure::because(Reason::GrantUnknown, message));
    }
    Err(first.failure())
}

/// Neither a gateway that runs, nor a cluster of its own.
fn require_room(state: &State) -> anyhow::Result<()> {
    if control::is_alive(&state.path(control::SOCKET))? {
        return Err(Failure::configuration(format!(
            "a portway runs on {}: end it first, or give another --state DIR",
            state.dir().display()
        ))
        .into());
    }
    if let Some(kept) = Kept::find(state)? {
        return Err(Failure::configuration(format!(
            "{} has the key of the cluster `{}`, and needs no join token: give another --state DIR",
            state.dir().display(),
            kept.name
        ))
        .into());
    }
    Ok(())
}

/// Another cluster would take the place of the one that is there.
fn require_same_cluster(state: &State, credential: &Credential) -> anyhow::Result<()> {
    let Some(enrolled) = Enrolled::open(state)? else {
        return Ok(());
    };
    if (&enrolled.cluster, enrolled.cluster_key) == (&credential.cluster, credential.cluster_key) {
        return Ok(());
    }
    Err(Failure::configuration(format!(
        "this machine has joined the cluster `{}` with {}: give another --state DIR for another cluster",
        enrolled.cluster,
        state.dir().display()
    ))
    .into())
}
