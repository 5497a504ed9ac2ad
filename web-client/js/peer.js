/**
 * One `RTCPeerConnection` with channel 0. Lives in the holder's window, because workers have none;
 * the channel goes to the worker at once, the only moment when it can.
 */

/** @typedef {import('./messages.js').PeerEvent} PeerEvent */

/** How often the path in use is looked up. */
const PATH_INTERVAL_MS = 5000;

export class PeerConnection {
  #connection;
  #emit;
  /** @type {RTCIceCandidateInit[] | null} candidates that came before the answer */
  #early = [];
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** Where relays send from on behalf of the other end. */
  #relays = new Set();

  /**
   * @param {string} session
   * @param {RTCIceServer[]} iceServers
   * @param {{channel: (channel: RTCDataChannel) => void, event: (event: PeerEvent) => void}} on
   */
  constructor(session, iceServers, on) {
    this.session = session;
    this.#emit = on.event;
    this.#connection = new RTCPeerConnection({ iceServers });
    const channel = this.#connection.createDataChannel('portway', { ordered: true });
    on.channel(channel);
    this.#connection.onicecandidate = ({ candidate }) => {
      this.#emit({ type: 'peer-candidate', session, candidate: candidate?.candidate ? candidate.toJSON() : null });
    };
    this.#connection.onconnectionstatechange = () => {
      const state = this.#connection.connectionState;
      this.#emit({ type: 'peer-state', session, state });
      if (state === 'connected') {
        void this.#tellCertificate();
        void this.#lookUpPath();
        clearInterval(this.#timer);
        this.#timer = setInterval(() => void this.#lookUpPath(), PATH_INTERVAL_MS);
      }
    };
  }

  async start() {
    const offer = await this.#connection.createOffer();
    await this.#connection.setLocalDescription(offer);
    this.#emit({ type: 'peer-offer', session: this.session, description: { type: 'offer', sdp: offer.sdp ?? '' } });
  }

  /** @param {RTCSessionDescriptionInit} description */
  async answer(description) {
    await this.#connection.setRemoteDescription(description);
    const early = this.#early ?? [];
    this.#early = null;
    for (const candidate of early) await this.candidate(candidate);
  }

  /** @param {RTCIceCandidateInit | null} candidate */
  async candidate(candidate) {
    if (!candidate) return;
    if (this.#early) {
      this.#early.push(candidate);
      return;
    }
    const address = relayAddress(candidate.candidate ?? '');
    if (address) this.#relays.add(address);
    try {
      await this.#connection.addIceCandidate(candidate);
    } catch (error) {
      console.info('portway: a candidate was not usable', error);
    }
    // What came by that relay before word of it looked direct.
    if (address && this.#connection.connectionState === 'connected') await this.#lookUpPath();
  }

  close() {
    clearInterval(this.#timer);
    this.#connection.onconnectionstatechange = null;
    this.#connection.onicecandidate = null;
    this.#connection.close();
  }

  /** Whose certificate the other end has presented; `null` where the browser does not tell. */
  async #tellCertificate() {
    const [certificate] = this.#connection.sctp?.transport.getRemoteCertificates?.() ?? [];
    const digest = certificate ? await crypto.subtle.digest('SHA-256', certificate) : null;
    this.#emit({ type: 'peer-certificate', session: this.session, sha256: digest ? [...new Uint8Array(digest)] : null });
  }

  /** Direct or relayed, from the pair in use. */
  async #lookUpPath() {
    const stats = await this.#connection.getStats();
    /** @type {Map<string, any>} */
    const reports = new Map();
    stats.forEach((report) => reports.set(report.id, report));
    for (const report of reports.values()) {
      if (report.type !== 'candidate-pair' || !(report.selected ?? (report.nominated && report.state === 'succeeded'))) continue;
      const [local, remote] = [report.localCandidateId, report.remoteCandidateId].map((id) => reports.get(id));
      // Packets of a relay may come before word of it: then it counts as peer-reflexive.
      const isRelay = remote?.candidateType === 'relay' || this.#relays.has(`${remote?.address} ${remote?.port}`);
      const path = isRelay || local?.candidateType === 'relay' ? 'relayed' : 'direct';
      this.#emit({ type: 'peer-path', session: this.session, path });
      return;
    }
  }
}

/**
 * Address and port of a candidate (RFC 8839 §5.1), if it is a relay's.
 * @param {string} candidate
 */
function relayAddress(candidate) {
  const [, , , , address, port, , type] = candidate.split(' ');
  return type === 'relay' ? `${address} ${port}` : undefined;
}
