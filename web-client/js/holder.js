/**
 * The holder: owns the peer connection, the link and the cookies of one service, on an origin that
 * no app can reach. Everything that can wait for nobody happens in its worker.
 */
import { VERSION } from './messages.js';
import { device, load, store, update, forget } from './vault.js';
import { PeerConnection } from './peer.js';
import { networkInformation } from './supports.js';

/** @typedef {import('./messages.js').FromHolder} FromHolder */
/** @typedef {import('./messages.js').ToHolder} ToHolder */
/** @typedef {import('./messages.js').PeerEvent} PeerEvent */
/** @typedef {import('./messages.js').OpenMessage} OpenMessage */
/** @typedef {import('./messages.js').HolderToConnection} HolderToConnection */
/** @typedef {import('./messages.js').ConnectionToHolder} ConnectionToHolder */

const cluster = meta('portway-cluster');
const domain = meta('portway-domain');

/** @param {string} name */
function meta(name) {
  return document.querySelector(`meta[name="${name}"]`)?.getAttribute('content') ?? '';
}

/**
 * The service that an origin stands for. The port and scheme must be our own: another port is
 * another server.
 * @param {string} origin
 * @returns {string | undefined}
 */
function serviceOf(origin) {
  const url = new URL(origin);
  if (url.protocol !== location.protocol || url.port !== location.port) return undefined;
  for (const suffix of [`.${cluster}.${domain}`, `--${cluster}.${domain}`]) {
    if (!url.hostname.endsWith(suffix)) continue;
    const label = url.hostname.slice(0, -suffix.length);
    if (/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(label) && label !== 'conn') return label;
  }
  return undefined;
}

const SIGNAL_URL = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/_portway/signal`;

/** One service and the page that opened us. */
class Holder {
  #service;
  #origin;
  #control;
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Worker | null} a pairing under way */
  #pairing = null;
  /** @type {Map<string, PeerConnection>} the one in use, and one that may take its place */
  #peers = new Map();
  /** @type {MessagePort[]} ports that came before the worker */
  #waiting = [];
  /** @type {string | undefined} newest key of the cluster that has opened the service */
  #pinned;
  /** @type {string | undefined} its newest list of revoked nodes, as JSON */
  #revocations;
  /** @type {string | undefined} a link whose cluster has another key than the pinned one, until that vouches for it */
  #doubtful;

  /**
   * @param {string} service
   * @param {string} origin of the service
   * @param {MessagePort} control
   */
  constructor(service, origin, control) {
    this.#service = service;
    this.#origin = origin;
    this.#control = control;
    const networkChanged = () => this.#post({ type: 'peer', json: JSON.stringify(/** @type {PeerEvent} */ ({ type: 'network-changed' })) });
    window.addEventListener('online', networkChanged);
    window.addEventListener('offline', networkChanged);
    networkInformation()?.addEventListener('change', networkChanged);
    control.onmessage = (event) => void this.#hear(event.data, event.ports);
  }

  /** @param {string | undefined} link */
  async start(link) {
    this.#tell({ type: 'status', state: 'starting' });
    if (link !== undefined && !isLink(link)) {
      this.#lock('LINK_INVALID', 'This link is damaged or belongs to another place.');
      return;
    }
    const known = await load(this.#service);
    const current = link ?? known?.link;
    if (current === undefined) {
      this.#lock('LINK_MISSING', 'This service opens with a link.');
      return;
    }
    // A new link may be another person's: it does not inherit the old one's cookies.
    const cookies = link === undefined || link === known?.link ? known?.cookies : undefined;
    // The key that has opened the service once is the one to believe, and those that it has given way to,
    // until a person says otherwise.
    this.#pinned = known?.pinned;
    this.#revocations = known?.revocations;
    const isNew = current !== known?.link && this.#pinned !== undefined && this.#pinned !== keyOf(current);
    if (isNew) this.#doubtful = current;
    else await this.#keep(current, cookies ?? '');
    try {
      await this.#connect(current, cookies);
    } catch (error) {
      console.error('portway: this device has no key', error);
      this.#tell({ type: 'status', state: 'failed', reason: 'BROWSER_UNSUPPORTED', message: String(error) });
    }
  }

  /**
   * @param {string} link
   * @param {string} cookies
   */
  async #keep(link, cookies) {
    await store(this.#service, { link, cookies, pinned: this.#pinned, revocations: this.#revocations });
  }

  /**
   * @param {string} link
   * @param {string | undefined} cookies
   */
  async #connect(link, cookies) {
    const { privateKey, publicKey } = await device();
    const raw = new Uint8Array(await crypto.subtle.exportKey('raw', publicKey));
    const worker = new Worker('/_portway/worker.js', { type: 'module', name: 'portway' });
    this.#worker = worker;
    worker.onmessage = (event) => void this.#hearWorker(event.data, link);
    worker.onerror = (event) => {
      console.error('portway: the connection worker failed', event.message);
      this.#tell({ type: 'status', state: 'failed', reason: 'BROWSER_UNSUPPORTED', message: event.message });
    };
    const options = {
      signalUrl: SIGNAL_URL,
      service: this.#service,
      link,
      device: base64url(raw),
      pinned: this.#pinned ?? null,
      revocations: this.#revocations ?? null,
      origin: this.#origin,
      cookies: cookies || null,
    };
    this.#post({ type: 'start', options: JSON.stringify(options), device: privateKey });
    for (const port of this.#waiting.splice(0)) this.#post({ type: 'port' }, [port]);
  }

  /**
   * @param {ToHolder} message
   * @param {readonly MessagePort[]} ports
   */
  async #hear(message, ports) {
    const port = ports[0];
    if (message.type === 'port' && port) {
      if (this.#worker) this.#post({ type: 'port' }, [port]);
      else this.#waiting.push(port);
    } else if (message.type === 'retry') {
      if (this.#worker) this.#post({ type: 'retry' });
      else await this.start(undefined);
    } else if (message.type === 'forget') {
      await this.#forget();
    } else if (message.type === 'pair') {
      this.#pair();
    } else if (message.type === 'pair-confirm') {
      this.#pairing?.postMessage(/** @type {HolderToConnection} */ ({ type: 'confirm' }));
    } else if (message.type === 'pair-stop') {
      this.#stopPairing();
    } else if (message.type === 'replace' && this.#doubtful !== undefined) {
      this.#pinned = undefined;
      this.#revocations = undefined;
      await this.#keep(this.#doubtful, '');
      this.#tell({ type: 'forgotten' });
    }
  }

  /** In a worker of its own: what is connected, or waits to be, stays as it is until there is a link. */
  #pair() {
    this.#stopPairing();
    const worker = new Worker('/_portway/worker.js', { type: 'module', name: 'portway-pairing' });
    this.#pairing = worker;
    worker.onmessage = (event) => void this.#hearPairing(event.data);
    worker.onerror = (event) => {
      console.error('portway: the pairing worker failed', event.message);
      this.#tell({ type: 'pairing', state: 'ended', reason: 'BROWSER_UNSUPPORTED', message: event.message });
    };
    const options = JSON.stringify({ signalUrl: SIGNAL_URL, cluster, service: this.#service });
    worker.postMessage(/** @type {HolderToConnection} */ ({ type: 'pair', options }));
  }

  /** Its socket closes with it, so that the node knows. */
  #stopPairing() {
    this.#pairing?.terminate();
    this.#pairing = null;
  }

  /** @param {ConnectionToHolder} message */
  async #hearPairing(message) {
    if (message.type === 'pairing') {
      /** @type {import('./messages.js').PairingMessage} */
      const pairing = { ...JSON.parse(message.json), type: 'pairing' };
      if (pairing.state === 'ended') this.#stopPairing();
      this.#tell(pairing);
    } else if (message.type === 'status') {
      // The worker itself has failed.
      const { reason, message: text } = JSON.parse(message.json);
      this.#stopPairing();
      this.#tell({ type: 'pairing', state: 'ended', reason, message: text });
    } else if (message.type === 'paired') {
      this.#stopPairing();
      await this.#paired(message.link);
    }
  }

  /**
   * The link is as one that was opened.
   * @param {string} link
   */
  async #paired(link) {
    this.#stop();
    const known = await load(this.#service);
    if (known?.pinned !== undefined && known.pinned !== keyOf(link)) {
      await this.start(link);
      return;
    }
    await store(this.#service, { link, cookies: '', pinned: known?.pinned });
    // What the page has open goes by another link, or by none.
    this.#tell({ type: 'forgotten' });
  }

  #stop() {
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
    this.#worker?.terminate();
    this.#worker = null;
  }

  async #forget() {
    this.#stop();
    await forget(this.#service);
    this.#tell({ type: 'forgotten' });
  }

  /**
   * @param {ConnectionToHolder} message
   * @param {string} link
   */
  async #hearWorker(message, link) {
    if (message.type === 'status') {
      /** @type {import('./messages.js').StatusMessage} */
      const status = { ...JSON.parse(message.json), type: 'status' };
      this.#tell(status);
      if (status.key !== undefined && (status.key !== this.#pinned || this.#doubtful !== undefined)) {
        this.#pinned = status.key;
        this.#doubtful = undefined;
        const kept = await load(this.#service);
        await this.#keep(link, kept?.link === link ? kept.cookies : '');
      }
    } else if (message.type === 'save-cookies') {
      await this.#keep(link, message.json);
    } else if (message.type === 'save-revocations') {
      const { json } = message;
      this.#revocations = json;
      await update(this.#service, (kept) => (kept.link === link ? { ...kept, revocations: json } : kept));
    } else if (message.type === 'peer') {
      await this.#steer(JSON.parse(message.json));
    }
  }

  /** @param {import('./messages.js').PeerCommand} command */
  async #steer(command) {
    const peer = this.#peers.get(command.session);
    if (command.type === 'peer-open') {
      const opened = new PeerConnection(command.session, command.iceServers, {
        channel: (channel) => this.#post({ type: 'channel', session: command.session, channel }, [channel]),
        event: (event) => this.#post({ type: 'peer', json: JSON.stringify(event) }),
      });
      this.#peers.set(command.session, opened);
      // One that is closed meanwhile cannot make an offer, and need not.
      await opened.start().catch((error) => console.info('portway: no offer was made', error));
    } else if (command.type === 'peer-answer') {
      await peer?.answer(command.description);
    } else if (command.type === 'peer-candidate') {
      await peer?.candidate(command.candidate);
    } else if (command.type === 'peer-close') {
      peer?.close();
      this.#peers.delete(command.session);
    }
  }

  /**
   * @param {string} reason
   * @param {string} message
   */
  #lock(reason, message) {
    this.#tell({ type: 'status', state: 'locked', reason, message });
  }

  /** @param {FromHolder} message */
  #tell(message) {
    this.#control.postMessage(message);
  }

  /**
   * @param {HolderToConnection} message
   * @param {Transferable[]} [transfer]
   */
  #post(message, transfer = []) {
    this.#worker?.postMessage(message, transfer);
  }
}

/** @param {Uint8Array} bytes */
function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

/**
 * The key of the cluster in a link.
 * @param {string} link
 */
function keyOf(link) {
  return link.split('.')[2];
}

/** @param {string} text */
function isLink(text) {
  const [version, name, key, id, secret, ...rest] = text.split('.');
  const isBinary = (/** @type {string | undefined} */ part, /** @type {number} */ length) =>
    part !== undefined && part.length === length && /^[A-Za-z0-9_-]+$/.test(part);
  return version === 'v1' && name === cluster && isBinary(key, 43) && isBinary(id, 12) && isBinary(secret, 43) && rest.length === 0;
}

window.addEventListener('message', (event) => {
  const message = /** @type {OpenMessage} */ (event.data);
  const control = event.ports[0];
  if (message?.type !== 'portway:open' || !control || event.source !== window.parent) return;
  const service = serviceOf(event.origin);
  if (service === undefined) return;
  if (message.version !== VERSION) {
    control.postMessage(/** @type {FromHolder} */ ({ type: 'version-mismatch' }));
    return;
  }
  void new Holder(service, event.origin, control).start(message.link);
});
