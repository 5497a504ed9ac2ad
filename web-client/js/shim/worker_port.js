/**
 * The document's own port to the connection worker: asked from the wrapper, watched, asked for
 * again when it died.
 */
import { VERSION } from '../messages.js';

/** @typedef {import('../messages.js').ToWorker} ToWorker */
/** @typedef {import('../messages.js').FromWorker} FromWorker */
/** @typedef {import('../messages.js').PageMessage} PageMessage */
/** @typedef {{message: (message: any) => void, lost: () => void}} Listener */

/** How long the wrapper may take before it is asked again. */
const ASK_AGAIN_MS = 3000;

/** How often the port is checked, and how many checks may stay unanswered. */
const CHECK_MS = 4000;
const MAX_UNANSWERED = 3;

/** Messages that wait for a port. */
const MAX_WAITING = 1000;

export class WorkerPort {
  #wrapper;
  /** @type {MessagePort | null} */
  #port = null;
  /** @type {[ToWorker, Transferable[]][]} */
  #waiting = [];
  /** @type {Map<number, Listener>} */
  #listeners = new Map();
  #nextId = 1;
  #question = 0;
  #unanswered = 0;
  /** Called with every new port, before anything else is sent on it. @type {() => void} */
  onport = () => undefined;
  /** @type {(cookies: string) => void} */
  oncookies = () => undefined;

  /** @param {Window} wrapper */
  constructor(wrapper) {
    this.#wrapper = wrapper;
    window.addEventListener('message', (event) => this.#hear(event), true);
    window.addEventListener('pagehide', () => this.#leave());
    window.addEventListener('pageshow', (event) => {
      if (event.persisted) this.#ask();
    });
    setInterval(() => this.#check(), CHECK_MS);
    this.#ask();
  }

  /**
   * @param {Listener} listener
   * @returns {number} an id for messages of its own
   */
  open(listener) {
    const id = this.#nextId++;
    this.#listeners.set(id, listener);
    return id;
  }

  /** @param {number} id */
  forget(id) {
    this.#listeners.delete(id);
  }

  /**
   * Sends now, or as soon as there is a port.
   * @param {ToWorker} message
   * @param {Transferable[]} [transfer]
   */
  send(message, transfer = []) {
    if (this.#port) this.#port.postMessage(message, transfer);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push([message, transfer]);
    else this.#lose();
  }

  /**
   * A question of the service worker, passed on: the wrapper answers it.
   * @param {number} id
   */
  askForWorker(id) {
    this.#tell({ type: 'portway:port-wanted', id, worker: true });
  }

  #ask() {
    this.#tell({ type: 'portway:port-wanted', id: ++this.#question });
    const asked = this.#question;
    setTimeout(() => {
      if (!this.#port && asked === this.#question) this.#ask();
    }, ASK_AGAIN_MS);
  }

  /** @param {PageMessage} message */
  #tell(message) {
    this.#wrapper.postMessage(message, location.origin);
  }

  /** @param {MessageEvent} event */
  #hear(event) {
    if (event.source !== this.#wrapper || event.data?.type !== 'portway:port') return;
    event.stopImmediatePropagation();
    const [port] = event.ports;
    if (!port) return;
    if (this.#port || event.data.version !== VERSION) {
      port.close();
      return;
    }
    this.#port = port;
    this.#unanswered = 0;
    port.onmessage = ({ data }) => this.#receive(data);
    port.addEventListener('close', () => this.#lose(port));
    this.onport();
    for (const [message, transfer] of this.#waiting.splice(0)) port.postMessage(message, transfer);
  }

  /** @param {FromWorker} message */
  #receive(message) {
    this.#unanswered = 0;
    if (message.type === 'cookies') this.oncookies(message.cookies);
    else if ('id' in message) this.#listeners.get(message.id)?.message(message);
  }

  #check() {
    if (!this.#port) return;
    if (this.#unanswered++ >= MAX_UNANSWERED) this.#lose();
    else this.send({ type: 'ping' });
  }

  #leave() {
    this.send({ type: 'close' });
    this.#port?.close();
    this.#port = null;
  }

  /** @param {MessagePort | null} [port] */
  #lose(port = this.#port) {
    if (port !== this.#port) return;
    this.#port?.close();
    this.#port = null;
    this.#waiting = [];
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    for (const listener of listeners) listener.lost();
    this.#ask();
  }
}
