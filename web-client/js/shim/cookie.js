/**
 * `document.cookie` and `cookieStore` over the jar at the holder: reads are answered at once from
 * what is known here, writes show at once and are told to the jar.
 */
import { afterWrite, parsePair } from './cookie_text.js';

/** @typedef {import('./worker_port.js').WorkerPort} WorkerPort */

/** A write that the jar did not confirm by then was refused. */
const CONFIRM_MS = 2000;

export class Cookies {
  #port;
  #known;
  /** @type {{text: string, at: number}[]} */
  #unconfirmed = [];
  #watched = '';

  /**
   * @param {WorkerPort} port
   * @param {string} snapshot
   */
  constructor(port, snapshot) {
    this.#port = port;
    this.#known = snapshot;
    port.oncookies = (cookies) => {
      this.#known = cookies;
      this.#settle();
    };
    port.onport = () => this.#watch();
  }

  /** @returns {string} */
  read() {
    this.#settle();
    if (this.#watched !== address()) this.#watch();
    return this.#unconfirmed.reduce((shown, { text }) => afterWrite(shown, text, where()), this.#known);
  }

  /** @param {string} text */
  write(text) {
    this.#unconfirmed.push({ text, at: Date.now() });
    this.#port.send({ type: 'cookie-set', url: address(), cookie: text });
  }

  #watch() {
    this.#watched = address();
    this.#port.send({ type: 'cookie-watch', url: this.#watched });
  }

  #settle() {
    if (this.#unconfirmed.length === 0) return;
    const since = Date.now() - CONFIRM_MS;
    this.#unconfirmed = this.#unconfirmed.filter(
      ({ text, at }) => at > since && afterWrite(this.#known, text, where()) !== this.#known,
    );
  }
}

/** @param {Cookies} cookies */
export function installCookies(cookies) {
  Object.defineProperty(Document.prototype, 'cookie', {
    configurable: true,
    enumerable: true,
    get: () => cookies.read(),
    set: (text) => cookies.write(String(text)),
  });
  if (typeof CookieStore === 'function') installCookieStore(cookies);
}

/** @param {Cookies} cookies */
function installCookieStore(cookies) {
  const all = (/** @type {any} */ wanted) => {
    const name = typeof wanted === 'string' ? wanted : wanted?.name;
    return cookies
      .read()
      .split('; ')
      .flatMap((text) => parsePair(text) ?? [])
      .filter((cookie) => name === undefined || cookie.name === name);
  };
  const prototype = /** @type {any} */ (CookieStore.prototype);
  Object.assign(prototype, {
    getAll: async (/** @type {any} */ wanted) => all(wanted),
    get: async (/** @type {any} */ wanted) => all(wanted)[0] ?? null,
    set: async (/** @type {any} */ first, /** @type {any} */ second) => {
      const cookie = typeof first === 'object' ? first : { name: first, value: second };
      if (/[;=\u0000-\u001f]/.test(cookie.name) || /[;\u0000-\u001f]/.test(cookie.value)) throw new TypeError('Invalid cookie');
      cookies.write(`${cookie.name}=${cookie.value}; Path=${cookie.path ?? '/'}${expiry(cookie.expires)}; SameSite=${cookie.sameSite ?? 'strict'}`);
    },
    delete: async (/** @type {any} */ wanted) => {
      const cookie = typeof wanted === 'object' ? wanted : { name: wanted };
      cookies.write(`${cookie.name}=; Path=${cookie.path ?? '/'}; Max-Age=0`);
    },
  });
}

/** @param {unknown} expires */
function expiry(expires) {
  return expires === undefined || expires === null ? '' : `; Expires=${new Date(Number(expires)).toUTCString()}`;
}

function address() {
  return location.pathname + location.search;
}

function where() {
  return { path: location.pathname, now: Date.now() };
}
