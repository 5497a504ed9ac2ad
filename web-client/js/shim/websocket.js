/**
 * `WebSocket` over the document's port: the whole interface of the browser's own, for addresses of
 * the service. Other hosts get the browser's own.
 *
 *   CONNECTING ──ws-opened──► OPEN ──close()──► CLOSING ──ws-closed──► CLOSED
 *        ├────────────────── ws-closed, lost port ────────────────────────┤
 *        └──close()──► CLOSING, at once ──────────────────────────────────┘
 */

/** @typedef {import('./worker_port.js').WorkerPort} WorkerPort */

/** Messages that the other end may send ahead; granted again in halves. */
const CREDIT = 64;

const CONNECTING = 0, OPEN = 1, CLOSING = 2, CLOSED = 3;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** @param {WorkerPort} port */
export function installWebSocket(port) {
  const Native = window.WebSocket;

  /** @implements {Partial<WebSocket>} */
  class PortwayWebSocket extends EventTarget {
    #id = 0;
    #url = '';
    #origin = '';
    #protocol = '';
    #state = CONNECTING;
    #buffered = 0;
    #consumed = 0;
    /** @type {BinaryType} */
    #binaryType = 'blob';
    /** Keeps the order when a Blob has to be read first. */
    #sending = Promise.resolve();
    #pendingBlobs = 0;
    /** @type {Map<string, {handler: any, listener: (event: Event) => void}>} */
    #handlers = new Map();

    /**
     * @param {string | URL} url
     * @param {string | string[]} [protocols]
     */
    constructor(url, protocols = []) {
      super();
      if (arguments.length === 0) throw new TypeError("Failed to construct 'WebSocket': 1 argument required");
      const address = parseAddress(url);
      const wanted = checkProtocols(protocols);
      // eslint-disable-next-line no-constructor-return
      if (!isOurs(address)) return /** @type {any} */ (new Native(url, protocols));
      this.#url = address.href;
      this.#origin = address.origin;
      this.#id = port.open({ message: (message) => this.#receive(message), lost: () => this.#lost() });
      port.send({ type: 'ws-open', id: this.#id, url: address.pathname + address.search, protocols: wanted, origin: location.origin });
      port.send({ type: 'ws-pull', id: this.#id, credit: CREDIT });
    }

    get url() { return this.#url; }
    get protocol() { return this.#protocol; }
    get extensions() { return ''; }
    get readyState() { return /** @type {0 | 1 | 2 | 3} */ (this.#state); }
    get bufferedAmount() { return this.#buffered; }
    get binaryType() { return this.#binaryType; }
    set binaryType(type) { if (type === 'blob' || type === 'arraybuffer') this.#binaryType = type; }
    get onopen() { return this.#handler('open'); }
    set onopen(handler) { this.#setHandler('open', handler); }
    get onmessage() { return this.#handler('message'); }
    set onmessage(handler) { this.#setHandler('message', handler); }
    get onerror() { return this.#handler('error'); }
    set onerror(handler) { this.#setHandler('error', handler); }
    get onclose() { return this.#handler('close'); }
    set onclose(handler) { this.#setHandler('close', handler); }

    /** @param {string | ArrayBufferLike | Blob | ArrayBufferView} data */
    send(data) {
      if (arguments.length === 0) throw new TypeError("Failed to execute 'send' on 'WebSocket': 1 argument required");
      if (this.#state === CONNECTING) throw new DOMException('Still in CONNECTING state.', 'InvalidStateError');
      const payload = copied(data);
      const size = typeof payload === 'string' ? utf8Length(payload) : isBlob(payload) ? payload.size : payload.byteLength;
      this.#buffered += size;
      if (this.#state !== OPEN) return;
      if (!isBlob(payload) && this.#pendingBlobs === 0) {
        this.#post(payload);
        return;
      }
      this.#pendingBlobs++;
      this.#sending = this.#sending.then(async () => {
        const ready = isBlob(payload) ? await payload.arrayBuffer() : payload;
        this.#pendingBlobs--;
        this.#post(ready);
      }).catch((error) => this.#failed(String(error)));
    }

    /**
     * @param {number} [code]
     * @param {string} [reason]
     */
    close(code = undefined, reason = undefined) {
      const status = code === undefined ? undefined : clamped(code);
      if (status !== undefined && status !== 1000 && !(status >= 3000 && status <= 4999)) {
        throw new DOMException(`The close code must be 1000 or between 3000 and 4999: ${status}`, 'InvalidAccessError');
      }
      const text = reason === undefined ? undefined : String(reason).toWellFormed();
      if (text !== undefined && utf8Length(text) > 123) throw new DOMException('The close reason is too long.', 'SyntaxError');
      if (this.#state >= CLOSING) return;
      if (this.#state === CONNECTING) {
        this.#state = CLOSING;
        // Whatever the service says now is no more heard.
        port.forget(this.#id);
        setTimeout(() => this.#failed('closed before it was open'));
        return;
      }
      this.#state = CLOSING;
      const bye = () => port.send({ type: 'ws-close', id: this.#id, ...(status === undefined ? {} : { code: status }), ...(text === undefined ? {} : { reason: text }) });
      if (this.#pendingBlobs === 0) bye();
      else this.#sending = this.#sending.then(bye);
    }

    /** @param {string | ArrayBuffer} data */
    #post(data) {
      if (this.#state === CLOSED) return;
      port.send({ type: 'ws-send', id: this.#id, data }, typeof data === 'string' ? [] : [data]);
    }

    /** @param {Extract<import('../messages.js').FromWorker, {id: number}>} message */
    #receive(message) {
      switch (message.type) {
        case 'ws-opened':
          if (this.#state !== CONNECTING) return;
          this.#protocol = message.protocol;
          this.#state = OPEN;
          this.dispatchEvent(new Event('open'));
          break;
        case 'ws-message':
          this.#message(message.data);
          break;
        case 'ws-sent':
          this.#buffered = Math.max(0, this.#buffered - message.bytes);
          break;
        case 'ws-closed':
          if (message.failure) this.#failed(message.failure);
          else this.#closed(message.code, message.reason, message.wasClean ? 'clean' : 'lost');
          break;
        case 'error':
          this.#failed(message.message);
          break;
        default:
          break;
      }
    }

    /** @param {string | ArrayBuffer} data */
    #message(data) {
      if (++this.#consumed >= CREDIT / 2) {
        port.send({ type: 'ws-pull', id: this.#id, credit: this.#consumed });
        this.#consumed = 0;
      }
      if (this.#state !== OPEN) return;
      const shown = typeof data !== 'string' && this.#binaryType === 'blob' ? new Blob([data]) : data;
      this.dispatchEvent(new MessageEvent('message', { data: shown, origin: this.#origin }));
    }

    #lost() {
      if (this.#state === CONNECTING) this.#failed('the connection was lost');
      else this.#closed(1006, '', 'lost');
    }

    /** @param {string} why */
    #failed(why) {
      if (this.#state === CLOSED) return;
      // As a browser does: scripts may not know why, developers should.
      console.error(`WebSocket connection to '${this.url}' failed: ${why}`);
      port.send({ type: 'abort', id: this.#id });
      this.#closed(1006, '', 'failed');
    }

    /**
     * @param {number} code
     * @param {string} reason
     * @param {'clean' | 'lost' | 'failed'} how
     */
    #closed(code, reason, how) {
      if (this.#state === CLOSED) return;
      this.#state = CLOSED;
      port.forget(this.#id);
      if (how === 'failed') this.dispatchEvent(new Event('error'));
      this.dispatchEvent(new CloseEvent('close', { code, reason, wasClean: how === 'clean' }));
    }

    /** @param {string} type */
    #handler(type) {
      return this.#handlers.get(type)?.handler ?? null;
    }

    /**
     * @param {string} type
     * @param {any} handler
     */
    #setHandler(type, handler) {
      const known = this.#handlers.get(type);
      if (typeof handler !== 'function') {
        if (known) this.removeEventListener(type, known.listener);
        this.#handlers.delete(type);
      } else if (known) {
        known.handler = handler;
      } else {
        const entry = { handler, listener: (/** @type {Event} */ event) => entry.handler.call(this, event) };
        this.#handlers.set(type, entry);
        this.addEventListener(type, entry.listener);
      }
    }

    /** @param {unknown} value */
    static [Symbol.hasInstance](value) {
      return this === PortwayWebSocket
        ? value instanceof Native || PortwayWebSocket.prototype.isPrototypeOf(/** @type {object} */ (value))
        : Function.prototype[Symbol.hasInstance].call(this, value);
    }
  }

  for (const name of Object.getOwnPropertyNames(PortwayWebSocket.prototype)) {
    if (name !== 'constructor') Object.defineProperty(PortwayWebSocket.prototype, name, { enumerable: true });
  }
  const constants = { CONNECTING, OPEN, CLOSING, CLOSED };
  for (const [name, value] of Object.entries(constants)) {
    Object.defineProperty(PortwayWebSocket, name, { value, enumerable: true });
    Object.defineProperty(PortwayWebSocket.prototype, name, { value, enumerable: true });
  }
  Object.defineProperty(PortwayWebSocket, 'name', { value: 'WebSocket' });
  Object.defineProperty(PortwayWebSocket.prototype, Symbol.toStringTag, { value: 'WebSocket', configurable: true });
  Object.defineProperty(window, 'WebSocket', { value: PortwayWebSocket, writable: true, configurable: true });
}

/** @param {string | URL} url */
function parseAddress(url) {
  let address;
  try {
    address = new URL(url, document.baseURI);
  } catch {
    throw new DOMException(`The URL '${url}' is invalid.`, 'SyntaxError');
  }
  if (address.protocol === 'http:') address.protocol = 'ws:';
  if (address.protocol === 'https:') address.protocol = 'wss:';
  if (address.protocol !== 'ws:' && address.protocol !== 'wss:') {
    throw new DOMException(`The URL's scheme must be 'ws' or 'wss': '${address.protocol}'`, 'SyntaxError');
  }
  if (address.hash !== '' || address.href.endsWith('#')) {
    throw new DOMException('The URL contains a fragment identifier.', 'SyntaxError');
  }
  return address;
}

/**
 * @param {string | string[]} protocols
 * @returns {string[]}
 */
function checkProtocols(protocols) {
  const isList = Object(protocols) === protocols && Symbol.iterator in Object(protocols);
  const list = isList ? Array.from(protocols, String) : [String(protocols)];
  if (new Set(list).size !== list.length || !list.every((each) => TOKEN.test(each))) {
    throw new DOMException('A subprotocol is invalid or given twice.', 'SyntaxError');
  }
  return list;
}

/**
 * As the platform makes a `[Clamp] unsigned short` of anything.
 * @param {unknown} value
 */
function clamped(value) {
  const number = Math.min(Math.max(Number(value) || 0, 0), 65535);
  const rounded = Math.round(number);
  // A half goes to the even one.
  return rounded - number === 0.5 && rounded % 2 === 1 ? rounded - 1 : rounded;
}

/** @param {URL} address */
function isOurs(address) {
  if (address.hostname !== location.hostname) return false;
  // `ws:` without a port is 80 and `wss:` 443, whatever the page's own scheme is.
  return address.host === location.host || (address.port === '' && location.port === '');
}

/**
 * The payload as it is now: the page may change its buffer afterwards.
 * @param {string | ArrayBufferLike | Blob | ArrayBufferView} data
 * @returns {string | ArrayBuffer | Blob}
 */
function copied(data) {
  if (isBlob(data)) return data;
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer;
  }
  if (data instanceof ArrayBuffer || Object.prototype.toString.call(data) === '[object ArrayBuffer]') {
    return new Uint8Array(/** @type {ArrayBuffer} */ (data)).slice().buffer;
  }
  return String(data).toWellFormed();
}

/**
 * By its class, not its realm: it may come from another frame.
 * @param {unknown} data
 * @returns {data is Blob}
 */
function isBlob(data) {
  return /^\[object (Blob|File)\]$/.test(Object.prototype.toString.call(data));
}

/** @param {string} text */
function utf8Length(text) {
  return new TextEncoder().encode(text).length;
}
