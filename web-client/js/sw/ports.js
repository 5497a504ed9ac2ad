/**
 * Which port a request takes. A port comes from a wrapper and dies with its tab, so every request
 * should go over the wrapper of its own tab: that is learnt by asking the window that made it.
 * Everything here can be forgotten at any time; it is asked for again.
 */
import { VERSION } from '../messages.js';
import { Failure } from './failure.js';
import { RequestPort } from './request_port.js';

/** @typedef {import('../messages.js').PageMessage} PageMessage */

/** How long one window may take to answer. */
const ASK_TIMEOUT_MS = 1500;

/** How long a request waits for any window to answer. */
const PORT_WAIT_MS = 10_000;

/** Between two rounds in which no window answered. */
const ROUND_PAUSE_MS = 250;

/** Wrappers asked at once when the window itself is no help. */
const MAX_ASKED = 3;

/** Clients whose wrapper is remembered. */
const MAX_CLIENTS = 2000;

export class Ports {
  #scope;
  /** Live ports by the client id of the wrapper that made them. @type {Map<string, RequestPort>} */
  #byOwner = new Map();
  /** @type {Map<string, string>} client id → client id of its wrapper */
  #ownerOf = new Map();
  /** @type {Map<number, (owner: string) => void>} questions under way */
  #asked = new Map();
  /** @type {Map<string, Promise<RequestPort>>} searches under way, by client id */
  #searches = new Map();
  #nextQuestion = 1;

  /** @param {ServiceWorkerGlobalScope} scope */
  constructor(scope) {
    this.#scope = scope;
  }

  /**
   * A live port for a request of this client.
   * @param {string} clientId may be empty
   * @returns {Promise<RequestPort>}
   */
  async take(clientId) {
    const known = this.#known(clientId);
    if (known) return known;
    let search = this.#searches.get(clientId);
    if (!search) {
      search = this.#search(clientId).finally(() => this.#searches.delete(clientId));
      this.#searches.set(clientId, search);
    }
    return search;
  }

  /**
   * A document that is being loaded belongs to the wrapper of the one that loads it.
   * @param {string} clientId
   * @param {string} loadedBy
   */
  inherit(clientId, loadedBy) {
    const owner = this.#ownerOf.get(loadedBy);
    if (clientId !== '' && owner !== undefined) this.#remember(clientId, owner);
  }

  /**
   * A wrapper gave a port.
   * @param {string} owner
   * @param {{id: number, version: number}} message
   * @param {MessagePort} port
   */
  receive(owner, message, port) {
    if (message.version !== VERSION) {
      port.close();
      return;
    }
    const current = this.#byOwner.get(owner);
    const fresh = new RequestPort(port, () => this.#isAlive(owner));
    if (current && !current.dead) {
      // Two questions crossed: one port is enough.
      fresh.close();
    } else {
      this.#byOwner.set(owner, fresh);
    }
    this.#remember(owner, owner);
    this.#asked.get(message.id)?.(owner);
  }

  /** @param {string} clientId */
  #known(clientId) {
    const owner = this.#ownerOf.get(clientId);
    const port = owner === undefined ? undefined : this.#byOwner.get(owner);
    if (port?.dead && owner !== undefined) this.#byOwner.delete(owner);
    return port && !port.dead ? port : undefined;
  }

  /** @param {string} clientId */
  async #search(clientId) {
    const deadline = Date.now() + PORT_WAIT_MS;
    while (Date.now() < deadline) {
      const port = (await this.#askClient(clientId)) ?? (await this.#askWrappers());
      if (port) return port;
      await new Promise((resolve) => setTimeout(resolve, ROUND_PAUSE_MS));
    }
    throw new Failure('SESSION_LOST', 'No open tab is connected to the machine.');
  }

  /**
   * The window that made the request knows its wrapper, or is one.
   * @param {string} clientId
   */
  async #askClient(clientId) {
    const client = clientId === '' ? undefined : await this.#scope.clients.get(clientId);
    if (client?.type !== 'window') return undefined;
    const owner = await this.#ask([client]);
    if (owner === undefined) return undefined;
    this.#remember(clientId, owner);
    return this.#known(clientId);
  }

  /** For workers, and for windows that do not answer: any wrapper, best the one that is looked at. */
  async #askWrappers() {
    const windows = await this.#scope.clients.matchAll({ type: 'window', includeUncontrolled: true });
    const wrappers = windows
      .filter((client) => client.frameType === 'top-level' || client.frameType === 'auxiliary')
      .sort((a, b) => rank(b) - rank(a))
      .slice(0, MAX_ASKED);
    for (const wrapper of wrappers) {
      const known = this.#known(wrapper.id);
      if (known) return known;
    }
    const owner = wrappers.length === 0 ? undefined : await this.#ask(wrappers);
    return owner === undefined ? undefined : this.#known(owner);
  }

  /**
   * @param {readonly Client[]} clients
   * @returns {Promise<string | undefined>} the wrapper that answered first
   */
  #ask(clients) {
    const id = this.#nextQuestion++;
    return new Promise((resolve) => {
      const done = (/** @type {string | undefined} */ owner) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        resolve(owner);
      };
      const timer = setTimeout(() => done(undefined), ASK_TIMEOUT_MS);
      this.#asked.set(id, done);
      /** @type {PageMessage} */
      const question = { type: 'portway:port-wanted', id };
      for (const client of clients) client.postMessage(question);
    });
  }

  /** @param {string} owner */
  async #isAlive(owner) {
    return (await this.#scope.clients.get(owner)) !== undefined;
  }

  /**
   * @param {string} clientId
   * @param {string} owner
   */
  #remember(clientId, owner) {
    this.#ownerOf.delete(clientId);
    this.#ownerOf.set(clientId, owner);
    if (this.#ownerOf.size > MAX_CLIENTS) {
      const oldest = this.#ownerOf.keys().next().value;
      if (oldest !== undefined) this.#ownerOf.delete(oldest);
    }
  }
}

/** @param {WindowClient} client */
function rank(client) {
  return (client.focused ? 2 : 0) + (client.visibilityState === 'visible' ? 1 : 0);
}
