/**
 * Which headers go to the service and which of its headers reach the page. Pure.
 */

/** @typedef {import('../messages.js').HeaderList} HeaderList */

/** Never taken from a page's request: the connection worker or the gateway sets them. */
const REQUEST_DROPPED = new Set([
  'accept-encoding', 'connection', 'content-length', 'cookie', 'host', 'keep-alive', 'origin',
  'referer', 'te', 'transfer-encoding', 'upgrade',
]);

/** Of no use, or harmful, on a response made by a service worker. */
const RESPONSE_DROPPED = new Set([
  'alt-svc', 'clear-site-data', 'connection', 'keep-alive', 'service-worker-allowed', 'set-cookie',
  'set-cookie2', 'strict-transport-security', 'trailer', 'transfer-encoding', 'upgrade',
]);

/** Statuses whose response has no body by definition. */
const NULL_BODY = new Set([101, 103, 204, 205, 304]);

/**
 * What a request says to the service, with the `referer` and `origin` that browsers hide.
 * @param {Pick<Request, 'headers' | 'referrer' | 'referrerPolicy' | 'method' | 'mode'>} request
 * @param {string} origin the service's origin
 * @returns {HeaderList}
 */
export function requestHeaders(request, origin) {
  /** @type {HeaderList} */
  const list = [];
  for (const [name, value] of request.headers) {
    if (!REQUEST_DROPPED.has(name) && !name.startsWith('portway-')) list.push([name, value]);
  }
  const referer = refererOf(request.referrer, request.referrerPolicy, origin);
  if (referer) list.push(['referer', referer]);
  if (request.method !== 'GET' && request.method !== 'HEAD') list.push(['origin', origin]);
  return list;
}

/**
 * The `Referer` of a request to the service itself.
 * @param {string} referrer
 * @param {string} policy
 * @param {string} origin
 */
export function refererOf(referrer, policy, origin) {
  if (policy === 'no-referrer' || !/^https?:/.test(referrer)) return '';
  const url = new URL(referrer);
  if (url.origin !== origin || policy === 'origin' || policy === 'strict-origin') return `${url.origin}/`;
  return `${url.origin}${url.pathname}${url.search}`;
}

/**
 * Headers for a made response; names or values that a browser refuses are left out.
 * @param {HeaderList} list
 * @returns {Headers}
 */
export function responseHeaders(list) {
  const headers = new Headers();
  for (const [name, value] of list) {
    if (RESPONSE_DROPPED.has(name.toLowerCase())) continue;
    try {
      headers.append(name, value);
    } catch {
      console.warn(`portway: the service sent a header that browsers refuse: ${name}`);
    }
  }
  return headers;
}

/**
 * @param {number} status
 * @returns {boolean} whether a response of this status cannot have a body
 */
export function hasNullBody(status) {
  return NULL_BODY.has(status);
}

/**
 * @param {number} status
 * @param {Headers} headers
 * @returns {boolean} whether the browser goes on to another address; it never reads the body then
 */
export function isRedirect(status, headers) {
  return [301, 302, 303, 307, 308].includes(status) && headers.has('location');
}

/**
 * The codings to undo, innermost last; `null` if one of them is unknown here.
 * @param {Headers} headers
 * @returns {CompressionFormat[] | null}
 */
export function codingsOf(headers) {
  /** @type {CompressionFormat[]} */
  const codings = [];
  for (const token of (headers.get('content-encoding') ?? '').split(',')) {
    const name = token.trim().toLowerCase();
    if (name === '' || name === 'identity') continue;
    if (name === 'gzip' || name === 'x-gzip') codings.push('gzip');
    else if (name === 'deflate') codings.push('deflate');
    else return null;
  }
  return codings.reverse();
}

/**
 * The value of a `Content-Disposition` that saves a file under `name`.
 * @param {string} name
 */
export function attachment(name) {
  if (name === '') return 'attachment';
  const plain = name.replace(/[^\x20-\x7e]|["\\]/g, '_');
  const exact = encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  return `attachment; filename="${plain}"; filename*=UTF-8''${exact}`;
}
