//! One bare data channel between the browser and a minimal native end on our transport. No HTTP, no
//! lane, no service worker: what the transport alone gives.

use anyhow::Context as _;
use bytes::Bytes;
use portway_protocol::signal::{IceCandidate, SdpKind, SessionDescription};
use portway_transport::Channel;
use portway_transport::webrtc::candidates::LoopbackPolicy;
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent, PeerEvents};
use serde_json::json;
use tokio::task::JoinSet;

use crate::browser::Browser;

/// Messages of the size that the lane uses towards browsers.
const MESSAGE: usize = 16 * 1024;

/// Says that something has come.
const DONE: Bytes = Bytes::from_static(b"!");

/// The browser's end: an offer with all its candidates. It speaks as soon as it can.
const OFFER: &str = "(async () => { \
    window.peer?.close(); \
    window.peer = new RTCPeerConnection(); \
    window.channel = peer.createDataChannel('portway'); \
    channel.binaryType = 'arraybuffer'; \
    window.answered = new Promise((resolve) => { \
      channel.onopen = () => channel.send(new Uint8Array([2])); \
      channel.onmessage = () => resolve(true); }); \
    await peer.setLocalDescription(); \
    await new Promise((resolve) => { \
      if (peer.iceGatheringState === 'complete') resolve(); \
      peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && resolve(); }); \
    return peer.localDescription.sdp; })()";

/// MB/s towards the browser. The request is the size, eight bytes, after a byte for the direction.
const DOWNLOAD: &str = "(async (size) => { let got = 0; \
    const request = new DataView(new ArrayBuffer(9)); request.setBigUint64(1, BigInt(size)); \
    const start = performance.now(); channel.send(request.buffer); \
    await new Promise((resolve) => { channel.onmessage = ({ data }) => { \
      got += data.byteLength; if (got >= size) resolve(); }; }); \
    return size / 1000 / (performance.now() - start); })";

/// MB/s from the browser, until the other end says that it has all.
const UPLOAD: &str = "(async (size) => { \
    const message = new Uint8Array(16384); const room = 1 << 20; \
    channel.bufferedAmountLowThreshold = room / 2; \
    const request = new DataView(new ArrayBuffer(9)); request.setUint8(0, 1); \
    request.setBigUint64(1, BigInt(size)); \
    const start = performance.now(); channel.send(request.buffer); \
    const done = new Promise((resolve) => { channel.onmessage = resolve; }); \
    for (let left = size; left > 0; left -= message.length) { \
      if (channel.bufferedAmount > room) \
        await new Promise((resolve) => { channel.onbufferedamountlow = resolve; }); \
      channel.send(left < message.length ? message.subarray(0, left) : message); } \
    await done; return size / 1000 / (performance.now() - start); })";

/// A bare channel, and its figures in MB/s, one of each round.
pub struct Bare {
    /// Towards the browser.
    pub download: Vec<f64>,
    /// From the browser.
    pub upload: Vec<f64>,
    _peer: Peer,
    _tasks: JoinSet<()>,
}

impl Bare {
    /// Connects the browser's tab, any page, with an end in this process, until that has answered the
    /// tab's first message.
    ///
    /// # Errors
    /// If it cannot be connected.
    pub async fn connect(browser: &mut Browser) -> anyhow::Result<Self> {
        let sdp = browser.eval(OFFER).await?;
        let offer = SessionDescription {
            kind: SdpKind::Offer,
            sdp: sdp.as_str().context("an offer")?.to_owned(),
        };
        let config = PeerConfig {
            loopback: LoopbackPolicy::Accept,
            ..PeerConfig::default()
        };
        let (peer, answer, mut events) = Peer::answer(&config, &offer).await?;
        let description = json!({"type": "answer", "sdp": answer.sdp});
        browser
            .eval(&format!("peer.setRemoteDescription({description})"))
            .await?;
        while let Some(candidate) = next_candidate(&mut events).await? {
            browser
                .eval(&format!("peer.addIceCandidate({})", json!(candidate)))
                .await?;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { while events.recv().await.is_some() {} });
        let channel = peer.open().await?;
        tasks.spawn(async move { while serve(&*channel).await.is_some() {} });
        browser.eval("answered").await?;
        Ok(Self {
            download: Vec::new(),
            upload: Vec::new(),
            _peer: peer,
            _tasks: tasks,
        })
    }

    /// One round, in the tab that was connected.
    ///
    /// # Errors
    /// If the channel is closed.
    pub async fn measure(&mut self, browser: &mut Browser, size: usize) -> anyhow::Result<()> {
        for (figures, script) in [(&mut self.download, DOWNLOAD), (&mut self.upload, UPLOAD)] {
            let value = browser.eval(&format!("({script})({size})")).await?;
            figures.push(value.as_f64().context("a figure")?);
        }
        Ok(())
    }
}

async fn next_candidate(events: &mut PeerEvents) -> anyhow::Result<Option<IceCandidate>> {
    loop {
        match events.recv().await.context("the peer ended")? {
            PeerEvent::Candidate(candidate) => return Ok(candidate),
            PeerEvent::Connected | PeerEvent::Disconnected | PeerEvent::Ended => {}
        }
    }
}

/// Serves one request; `None` once the channel is closed.
async fn serve(channel: &dyn Channel) -> Option<()> {
    let request = channel.recv().await?;
    let (what, size) = request.split_first()?;
    let size = || usize::try_from(u64::from_be_bytes(size.try_into().ok()?)).ok();
    match *what {
        0 => {
            let message = Bytes::from(vec![0; MESSAGE]);
            let mut left = size()?;
            while left > 0 {
                let next = message.slice(..left.min(MESSAGE));
                left -= next.len();
                channel.send(next).await.ok()?;
            }
        }
        1 => {
            let mut left = size()?;
            while left > 0 {
                left = left.saturating_sub(channel.recv().await?.len());
            }
            channel.send(DONE).await.ok()?;
        }
        _ => channel.send(DONE).await.ok()?,
    }
    Some(())
}
