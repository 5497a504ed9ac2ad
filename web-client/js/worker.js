/**
 * The connection worker: runs the wasm client and serves request ports. A page that blocks its main
 * thread does not stall anything here.
 */
import init, { Connection, Pairing } from './portway.js';
import { BODY_CREDIT } from './messages.js';

/** @typedef {import('./messages.js').ToWorker} ToWorker */
/** @typedef {import('./messages.js').FromWorker} FromWorker */
/** @typedef {import('./messages.js').HolderToConnection} HolderToConnection */
/** @typedef {import('./messages.js').ConnectionToHolder} ConnectionToHolder */

/** Streams of one port at a time; more are refused. */
const MAX_STREAMS = 512;

/** How long a service may take to answer a close frame. */
const CLOSE_PATIENCE_MS = 10_000;

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (self));

/** @param {ConnectionToHolder} message */
const tell = (message) => scope.postMessage(message);

/** The state of the last status message, for pongs. */
let state = 'starting';

/** The private key of this device. @type {CryptoKey | undefined} */
let device;

/** @type {Set<PortServer>} */
const servers = new Set();

const host = {
  /** @param {string} json */
  status(json) {
    state = JSON.parse(json).state;
    tell({ type: 'status', json });
  },
  /** @param {Uint8Array<ArrayBuffer>} message */
  async sign(message) {
    if (!device) throw new Error('this device has no key');
    return crypto.subtle.sign('Ed25519', device, message);
  },
  /** @param {string} json */
  peer(json) {
    tell({ type: 'peer', json });
  },
  /** @param {string} json */
  saveCookies(json) {
    tell({ type: 'save-cookies', json });
    for (const server of servers) server.cookiesChanged();
  },
  /** @param {string} json */
  saveRevocations(json) {
    tell({ type: 'save-revocations', json });
  },
  /** @param {string} json */
  pairing(json) {
    tell({ type: 'pairing', json });
  },
  /** @param {string} json */
  shareCookies(json) {
    otherTabs?.postMessage(json);
  },
};

/**
 * Workers of other tabs with the same link: each has the whole jar, so each must hear what the
 * others set, or the one that stores last would undo it.
 * @type {BroadcastChannel | undefined}
 */
let otherTabs;

/** A new tab asks the others with this, since what is stored may be a moment old. */
const NEW_HERE = '';

/**
 * @param {string} options
 * @param {Connection} connection
 */
function joinTabs(options, connection) {
  const { service, link } = /** @type {{service: string, link: string}} */ (JSON.parse(options));
  const [, cluster, , grant] = link.split('.');
  const tabs = new BroadcastChannel(`cookies ${service} ${cluster} ${grant}`);
  tabs.onmessage = ({ data }) => {
    if (data === NEW_HERE) tabs.postMessage(connection.allCookies());
    else connection.hearCookies(data);
  };
  tabs.postMessage(NEW_HERE);
  otherTabs = tabs;
}

/** What a service would know of the browser and a service worker does not see. */
const BROWSER_HEADERS = /** @type {[string, string][]} */ ([
  ['user-agent', navigator.userAgent],
  ['accept-language', languages()],
]);

function languages() {
  return navigator.languages.map((tag, i) => (i === 0 ? tag : `${tag};q=${Math.max(0.1, 1 - i / 10).toFixed(1)}`)).join(', ');
}

/**
 * @param {unknown} error
 * @returns {{reason: string, message: string}}
 */
function failure(error) {
  const { reason, message } = /** @type {{reason?: string, message?: string}} */ (error ?? {});
  return { reason: reason ?? 'INTERNAL', message: message ?? String(error) };
}

/** One request. */
class Request {
  #port;
  #id;
  /** @type {import('./portway.js').Exchange | undefined} */
  #exchange;
  #credit;
  /** @type {(() => void) | undefined} */
  #wake;
  #cancelled = false;
  /** Pieces of the body are written one after another. */
  #written = Promise.resolve();
  #bodyLength = 0;

  /**
   * @param {PortServer} port
   * @param {Extract<ToWorker, {type: 'request'}>} message
   */
  constructor(port, message) {
    this.#port = port;
    this.#id = message.id;
    this.#credit = message.credit;
    this.ready = this.#open(message);
  }

  /** @param {Extract<ToWorker, {type: 'request'}>} message */
  async #open(message) {
    const names = new Set(message.headers.map(([name]) => name.toLowerCase()));
    const headers = [...message.headers, ...BROWSER_HEADERS.filter(([name]) => !names.has(name))];
    this.#exchange = await this.#port.connection.open(message.method, message.url, headers, message.body === 'stream');
    if (this.#cancelled) this.#exchange.cancel();
  }

  async run() {
    try {
      await this.ready;
      const exchange = /** @type {import('./portway.js').Exchange} */ (this.#exchange);
      const head = /** @type {{status: number, headers: [string, string][], cookies: string}} */ (await exchange.response());
      this.#send({ type: 'response', id: this.#id, status: head.status, statusText: '', headers: head.headers, cookies: head.cookies });
      let length = 0;
      for (;;) {
        while (this.#credit <= 0 && !this.#cancelled) await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
        if (this.#cancelled) return;
        const bytes = await exchange.read();
        if (bytes === undefined) break;
        length += bytes.length;
        this.#credit -= bytes.length;
        const buffer = /** @type {ArrayBuffer} */ (bytes.buffer);
        this.#port.send({ type: 'chunk', id: this.#id, bytes: buffer }, [buffer]);
      }
      const announced = head.headers.find(([name]) => name === 'content-length')?.[1];
      const isBodiless = length === 0 && (head.status === 204 || head.status === 304 || this.isHead);
      if (announced !== undefined && Number(announced) !== length && !isBodiless) {
        throw Object.assign(new Error(`${length} of ${announced} bytes came`), { reason: 'BODY_TRUNCATED' });
      }
      this.#send({ type: 'end', id: this.#id, length });
    } catch (error) {
      if (!this.#cancelled) this.#send({ type: 'error', id: this.#id, ...failure(error) });
      this.#exchange?.cancel();
    } finally {
      this.#port.forget(this.#id);
      this.#exchange?.free?.();
    }
  }

  isHead = false;

  /** @param {ArrayBuffer} bytes */
  write(bytes) {
    this.#bodyLength += bytes.byteLength;
    this.#enqueue(async (exchange) => {
      await exchange.write(new Uint8Array(bytes));
      this.#send({ type: 'body-pull', id: this.#id, credit: bytes.byteLength });
    });
  }

  /** @param {number} length */
  finish(length) {
    this.#enqueue(async (exchange) => {
      if (length !== this.#bodyLength) throw Object.assign(new Error('the request body is incomplete'), { reason: 'BODY_TRUNCATED' });
      exchange.finish();
    });
  }

  /** @param {number} credit */
  pull(credit) {
    this.#credit += credit;
    this.#wake?.();
  }

  abort() {
    this.#cancelled = true;
    this.#exchange?.cancel();
    this.#wake?.();
  }

  /** @param {(exchange: import('./portway.js').Exchange) => Promise<void>} work */
  #enqueue(work) {
    this.#written = this.#written
      .then(() => this.ready)
      .then(() => work(/** @type {import('./portway.js').Exchange} */ (this.#exchange)))
      .catch((error) => {
        // The response says more, if there is one: a service may answer before it has read all.
        console.info('portway: a request body was not taken', error);
      });
  }

  /** @param {FromWorker} message */
  #send(message) {
    if (!this.#cancelled) this.#port.send(message);
  }
}

/** One WebSocket. */
class Socket {
  #port;
  #id;
  /** @type {import('./portway.js').Socket | undefined} */
  #socket;
  #credit = 0;
  /** @type {(() => void) | undefined} */
  #wake;
  #aborted = false;
  #closing = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #closeTimer;
  #sent;

  /**
   * @param {PortServer} port
   * @param {Extract<ToWorker, {type: 'ws-open'}>} message
   */
  constructor(port, message) {
    this.#port = port;
    this.#id = message.id;
    const opening = this.#port.connection.websocket(message.url, message.protocols, [...BROWSER_HEADERS]);
    this.#sent = opening.then((socket) => {
      this.#socket = socket;
      if (this.#aborted) socket.abort();
    });
  }

  async run() {
    /** @type {{code: number, reason: string, wasClean: boolean, failure?: string}} */
    let closed = { code: 1006, reason: '', wasClean: false };
    let hasOpened = false;
    try {
      await this.#sent;
      const socket = /** @type {import('./portway.js').Socket} */ (this.#socket);
      hasOpened = true;
      this.#port.send({ type: 'ws-opened', id: this.#id, protocol: socket.protocol });
      for (;;) {
        while (this.#credit <= 0 && !this.#aborted && !this.#closing) await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
        if (this.#aborted) break;
        const message = await socket.next();
        if (typeof message === 'string') {
          this.#port.send({ type: 'ws-message', id: this.#id, data: message });
        } else if (message instanceof Uint8Array) {
          const data = /** @type {ArrayBuffer} */ (message.buffer);
          this.#port.send({ type: 'ws-message', id: this.#id, data }, [data]);
        } else if (message !== undefined) {
          closed = { ...message, wasClean: true };
          if (!this.#closing) await socket.close(message.code === 1005 ? undefined : message.code, message.reason);
          break;
        }
        this.#credit -= 1;
      }
    } catch (error) {
      const { reason, message } = failure(error);
      // One that is lost is no failure: the page is told that it ended, no more.
      if (!hasOpened || reason === 'UPSTREAM_INVALID') closed.failure = `${reason}: ${message}`;
    }
    clearTimeout(this.#closeTimer);
    this.#port.forget(this.#id);
    this.#port.send({ type: 'ws-closed', id: this.#id, ...closed });
    await this.#socket?.finish();
  }

  /** @param {string | ArrayBuffer} data */
  write(data) {
    this.#enqueue(async (socket) => {
      if (typeof data === 'string') await socket.sendText(data);
      else await socket.sendBinary(new Uint8Array(data));
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength;
      this.#port.send({ type: 'ws-sent', id: this.#id, bytes });
    });
  }

  /**
   * @param {number | undefined} code
   * @param {string} reason
   */
  close(code, reason) {
    this.#closing = true;
    this.#wake?.();
    this.#enqueue(async (socket) => {
      await socket.close(code, reason);
      this.#closeTimer = setTimeout(() => this.abort(), CLOSE_PATIENCE_MS);
    });
  }

  /** @param {number} credit */
  pull(credit) {
    this.#credit += credit;
    this.#wake?.();
  }

  abort() {
    this.#aborted = true;
    this.#socket?.abort();
    this.#wake?.();
  }

  /** @param {(socket: import('./portway.js').Socket) => Promise<void>} work */
  #enqueue(work) {
    this.#sent = this.#sent
      .then(() => work(/** @type {import('./portway.js').Socket} */ (this.#socket)))
      .catch(() => this.abort());
  }
}

/** Serves one request port. */
class PortServer {
  /** @type {Map<number, Request | Socket>} */
  #streams = new Map();
  #port;
  /** @type {string | undefined} */
  #watched;

  /**
   * @param {MessagePort} port
   * @param {Connection} connection
   */
  constructor(port, connection) {
    this.connection = connection;
    this.#port = port;
    port.onmessage = (event) => this.#hear(event.data);
    port.addEventListener('close', () => this.#close());
    port.start();
  }

  /**
   * @param {FromWorker} message
   * @param {Transferable[]} [transfer]
   */
  send(message, transfer = []) {
    this.#port.postMessage(message, transfer);
  }

  /** @param {number} id */
  forget(id) {
    this.#streams.delete(id);
  }

  cookiesChanged() {
    if (this.#watched !== undefined) this.send({ type: 'cookies', cookies: this.connection.cookies(this.#watched) });
  }

  /** @param {ToWorker} message */
  #hear(message) {
    if (message.type === 'request') this.#request(message);
    else if (message.type === 'ws-open') this.#socket(message);
    else if (message.type === 'cookie-watch') {
      this.#watched = message.url;
      this.cookiesChanged();
    } else if (message.type === 'cookie-set') this.connection.setCookie(message.url, message.cookie);
    else if (message.type === 'ping') this.send({ type: 'pong', state });
    else if (message.type === 'close') this.#close();
    else this.#forStream(message);
  }

  /** @param {Extract<ToWorker, {id: number}>} message */
  #forStream(message) {
    const stream = this.#streams.get(message.id);
    if (stream instanceof Request) {
      if (message.type === 'body') stream.write(message.bytes);
      else if (message.type === 'body-end') stream.finish(message.length);
      else if (message.type === 'pull') stream.pull(message.credit);
      else if (message.type === 'abort') stream.abort();
    } else if (stream instanceof Socket) {
      if (message.type === 'ws-send') stream.write(message.data);
      else if (message.type === 'ws-pull') stream.pull(message.credit);
      else if (message.type === 'ws-close') stream.close(message.code, message.reason ?? '');
      else if (message.type === 'abort') stream.abort();
    }
  }

  /** @param {Extract<ToWorker, {type: 'request'}>} message */
  #request(message) {
    if (this.#streams.size >= MAX_STREAMS) {
      this.send({ type: 'error', id: message.id, reason: 'RATE_LIMITED', message: 'Too many requests at once.' });
      return;
    }
    const request = new Request(this, message);
    request.isHead = message.method === 'HEAD';
    this.#streams.set(message.id, request);
    if (message.body === 'stream') this.send({ type: 'body-pull', id: message.id, credit: BODY_CREDIT });
    void request.run();
  }

  /** @param {Extract<ToWorker, {type: 'ws-open'}>} message */
  #socket(message) {
    if (this.#streams.size >= MAX_STREAMS) {
      this.send({ type: 'ws-closed', id: message.id, code: 1006, reason: '', wasClean: false, failure: 'RATE_LIMITED: Too many requests at once.' });
      return;
    }
    const socket = new Socket(this, message);
    this.#streams.set(message.id, socket);
    void socket.run();
  }

  #close() {
    servers.delete(this);
    for (const stream of this.#streams.values()) stream.abort();
    this.#streams.clear();
    this.#port.close();
  }
}

/** @type {Connection | undefined} */
let connection;

/** A worker is for a connection or for a pairing. @type {Pairing | undefined} */
let pairing;

/** The owner has said yes to the visitor. */
function confirm() {
  const link = pairing?.confirm();
  if (link !== undefined) tell({ type: 'paired', link });
}

const loaded = init({ module_or_path: new URL('./portway_bg.wasm', import.meta.url) });

/** Messages are handled in order, the first one after the wasm has loaded. */
let handled = /** @type {Promise<unknown>} */ (loaded);

scope.onmessage = (event) => {
  const message = /** @type {HolderToConnection} */ (event.data);
  const [transferred] = event.ports;
  // A transferred channel must be taken at once: later it is dead.
  const channel = message.type === 'channel' ? message.channel : undefined;
  handled = handled
    .then(() => {
      if (message.type === 'start') {
        device = message.device;
        connection = new Connection(message.options, host);
        joinTabs(message.options, connection);
      } else if (message.type === 'port' && transferred && connection) servers.add(new PortServer(transferred, connection));
      else if (message.type === 'channel' && channel) connection?.attach(message.session, channel);
      else if (message.type === 'peer') connection?.peer(message.json);
      else if (message.type === 'retry') connection?.retry();
      else if (message.type === 'pair') pairing = new Pairing(message.options, host);
      else if (message.type === 'confirm') confirm();
    })
    .catch((error) => {
      const { reason, message: text } = failure(error);
      tell({ type: 'status', json: JSON.stringify({ state: 'failed', reason, message: text }) });
    });
};
