/**
 * The wrapper's side of the holder: makes the hidden iframe, opens the control port, and opens it
 * again when the holder does not answer (its page did not load).
 */
import { VERSION } from './messages.js';

/** @typedef {import('./messages.js').FromHolder} FromHolder */
/** @typedef {import('./messages.js').ToHolder} ToHolder */
/** @typedef {import('./messages.js').OpenMessage} OpenMessage */

/** How long a loaded holder may take for its first message. */
const ANSWER_TIMEOUT_MS = 6000;

/** How long the holder's page may take to load. */
const LOAD_TIMEOUT_MS = 15_000;

/** Pauses between attempts double up to the second figure. */
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 8000;

/**
 * @param {Location} location of the wrapper
 * @param {string} cluster
 * @param {string} domain
 * @returns {string} `conn.{cluster}.{domain}`, in the form of the page's own host name
 */
export function holderOrigin(location, cluster, domain) {
  const isFlat = location.hostname.endsWith(`--${cluster}.${domain}`);
  const port = location.port === '' ? '' : `:${location.port}`;
  return `${location.protocol}//conn${isFlat ? '--' : '.'}${cluster}.${domain}${port}`;
}

export class Holder {
  #origin;
  #link;
  #onmessage;
  #onsilence;
  /** @type {HTMLIFrameElement | null} */
  #frame = null;
  /** @type {MessagePort | null} */
  #control = null;
  #answered = false;
  #pause = RETRY_MIN_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {string} origin
   * @param {string | undefined} link
   * @param {{onmessage: (message: FromHolder) => void, onsilence: () => void}} on `onsilence`: it did not
   *   load or did not answer, and is tried again
   */
  constructor(origin, link, { onmessage, onsilence }) {
    this.#origin = origin;
    this.#link = link;
    this.#onmessage = onmessage;
    this.#onsilence = onsilence;
    this.#load();
  }

  /**
   * @param {ToHolder} message
   * @param {Transferable[]} [transfer]
   */
  send(message, transfer = []) {
    this.#control?.postMessage(message, transfer);
  }

  /** Tries at once: again to load it, or to connect. */
  retry() {
    if (this.#answered) this.send({ type: 'retry' });
    else this.#load();
  }

  #load() {
    clearTimeout(this.#timer);
    this.#frame?.remove();
    this.#control?.close();
    const frame = document.createElement('iframe');
    frame.className = 'pw-holder';
    frame.title = 'Connection';
    frame.tabIndex = -1;
    frame.ariaHidden = 'true';
    frame.src = `${this.#origin}/_portway/holder`;
    frame.addEventListener('load', () => this.#open(frame));
    this.#frame = frame;
    this.#control = null;
    this.#answered = false;
    this.#timer = setTimeout(() => this.#tryAgain(), LOAD_TIMEOUT_MS);
    document.body.append(frame);
  }

  /** @param {HTMLIFrameElement} frame */
  #open(frame) {
    if (frame !== this.#frame) return;
    clearTimeout(this.#timer);
    const { port1, port2 } = new MessageChannel();
    this.#control?.close();
    this.#control = port1;
    port1.onmessage = (event) => this.#hear(event.data);
    /** @type {OpenMessage} */
    const message = { type: 'portway:open', version: VERSION };
    if (this.#link !== undefined) message.link = this.#link;
    frame.contentWindow?.postMessage(message, this.#origin, [port2]);
    this.#timer = setTimeout(() => this.#tryAgain(), ANSWER_TIMEOUT_MS);
  }

  /** @param {FromHolder} message */
  #hear(message) {
    clearTimeout(this.#timer);
    this.#answered = true;
    this.#pause = RETRY_MIN_MS;
    this.#onmessage(message);
  }

  #tryAgain() {
    this.#onsilence();
    this.#timer = setTimeout(() => this.#load(), this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, RETRY_MAX_MS);
  }
}
