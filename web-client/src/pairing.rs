//! The guest's side of a pairing: six digits, and after the owner's word a link. Once: a new one is another
//! object in another worker, and the end of its worker tells the node that the guest has gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use portway_protocol::id::{ClusterName, Nonce, PairingId, ServiceName};
use portway_protocol::limits::PAIRING_TIMEOUT;
use portway_protocol::pairing::code::Digits;
use portway_protocol::pairing::guest::{
    self, AwaitingReply, AwaitingVerdict, AwaitingWord, Fresh, Wanted,
};
use portway_protocol::reason::Reason;
use portway_protocol::secret::Secret;
use portway_protocol::signal::pairing::{Cancel, Pair, PairReply, Paired};
use portway_protocol::signal::{Envelope, Heartbeat, decode_result};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

use crate::clock;
use crate::connection::unix_now;
use crate::error::Failure;
use crate::signaling::Signaling;

/// Time for signaling and the node's answer: programs alone are asked.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval of heartbeats to signaling.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Id of our one request but for heartbeats; theirs.
const PAIR_ID: &str = "pair";
const HEARTBEAT_ID: &str = "heartbeat";

#[wasm_bindgen]
extern "C" {
    /// The worker that this runs in.
    #[derive(Debug, Clone)]
    pub type PairingHost;

    /// How the pairing goes, as JSON.
    #[wasm_bindgen(method)]
    fn pairing(this: &PairingHost, json: &str);
}

/// What the holder knows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    signal_url: String,
    cluster: ClusterName,
    service: ServiceName,
}

/// How it goes, as `messages.js` has it.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Progress {
    /// To be read to the owner.
    Digits { digits: Digits },
    /// The node says that its owner has typed the same. Only the owner knows.
    Accepted,
    /// There will be no link.
    Ended { reason: Reason, message: String },
}

/// A pairing with one service.
#[wasm_bindgen]
pub struct Pairing(Rc<RefCell<Option<AwaitingWord>>>);

#[wasm_bindgen]
impl Pairing {
    /// Begins. `options` is JSON: `signalUrl`, `cluster`, `service`.
    ///
    /// # Errors
    /// If the options are not such.
    #[wasm_bindgen(constructor)]
    pub fn new(options: &str, host: PairingHost) -> Result<Pairing, JsValue> {
        console_error_panic_hook::set_once();
        let options = serde_json::from_str(options)
            .map_err(|error| JsValue::from(Failure::with(Reason::Internal, error)))?;
        let accepted = Rc::new(RefCell::new(None));
        let slot = accepted.clone();
        spawn_local(async move {
            match pair(options, &host).await {
                Ok(word) => {
                    *slot.borrow_mut() = Some(word);
                    tell(&host, &Progress::Accepted);
                }
                Err(Failure { reason, message }) => {
                    tell(&host, &Progress::Ended { reason, message });
                }
            }
        });
        Ok(Self(accepted))
    }

    /// The owner has said that the digits were accepted: the link. Nothing before the node has said the
    /// same, nor a second time.
    #[must_use]
    pub fn confirm(&self) -> Option<String> {
        let word = self.0.borrow_mut().take();
        word.map(|word| word.confirmed().to_string())
    }
}

fn tell(host: &PairingHost, progress: &Progress) {
    if let Ok(json) = serde_json::to_string(progress) {
        host.pairing(&json);
    }
}

async fn pair(options: Options, host: &PairingHost) -> Result<AwaitingWord, Failure> {
    let wanted = Wanted {
        cluster: options.cluster.clone(),
        service: options.service,
        node: None,
    };
    let fresh = Fresh {
        pairing: PairingId::from_bytes(clock::random()),
        secret: Secret::new(clock::random()),
        nonce: Nonce::from_bytes(clock::random()),
    };
    let pairing = fresh.pairing;
    let (asked, state) = guest::start(wanted, fresh);
    let meeting = meet(&options.signal_url, &options.cluster, (asked, state));
    let timeout = clock::sleep(REPLY_TIMEOUT);
    let (signaling, state) = tokio::select! {
        met = meeting => met?,
        () = timeout => return Err(Failure::new(Reason::SignalingUnreachable)),
    };
    let digits = state.digits();
    tell(host, &Progress::Digits { digits });
    let timeout = clock::sleep(PAIRING_TIMEOUT);
    tokio::select! {
        verdict = verdict(signaling, pairing, state) => verdict,
        () = timeout => Err(Failure::new(Reason::PairingExpired)),
    }
}

/// From nothing to the digits.
async fn meet(
    url: &str,
    cluster: &ClusterName,
    (asked, state): (Pair, AwaitingReply),
) -> Result<(Signaling, AwaitingVerdict), Failure> {
    let mut signaling = Signaling::connect_as_guest(url, cluster).await?;
    signaling.send(&Envelope::of(Some(PAIR_ID.into()), &asked))?;
    let envelope = loop {
        let envelope = signaling.next().await?;
        if envelope.id.as_deref() == Some(PAIR_ID) {
            break envelope;
        }
    };
    if let Some(error) = envelope.error {
        return Err(Failure::new(error.reason()));
    }
    let violation = || Failure::new(Reason::ProtocolViolation);
    let result = envelope.result.ok_or_else(violation)?;
    let reply: PairReply = decode_result(&result).map_err(|_| violation())?;
    let received = state.receive(&reply, unix_now());
    let (reveal, state) = received.map_err(|error| Failure::with(error.reason(), error))?;
    signaling.send(&Envelope::of(None, &reveal))?;
    Ok((signaling, state))
}

/// Waits until the node says that its owner has typed the same.
async fn verdict(
    mut signaling: Signaling,
    current: PairingId,
    state: AwaitingVerdict,
) -> Result<AwaitingWord, Failure> {
    let mut heartbeat = Box::pin(clock::sleep(HEARTBEAT));
    loop {
        let envelope = tokio::select! {
            envelope = signaling.next() => envelope?,
            () = &mut heartbeat => {
                heartbeat = Box::pin(clock::sleep(HEARTBEAT));
                signaling.send(&Envelope::of(Some(HEARTBEAT_ID.into()), &Heartbeat {}))?;
                continue;
            }
        };
        if let Ok(Paired { pairing }) = envelope.params()
            && pairing == current
        {
            return Ok(state.paired());
        }
        if let Ok(Cancel { pairing, reason }) = envelope.params()
            && pairing == current
        {
            return Err(Failure::new(reason));
        }
    }
}
