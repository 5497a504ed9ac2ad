/**
 * A request of the service's pages: sent over a port, and its response made for the page.
 */
import { attachment, codingsOf, hasNullBody, isRedirect, requestHeaders, responseHeaders } from './headers.js';
import { patchPolicies } from './csp.js';
import { injector, isHtml, scriptTag } from './html.js';
import { asFailure, Failure, failureResponse } from './failure.js';
import { uploadOf } from './upload.js';
import { Exchange } from './exchange.js';

/** @typedef {import('./exchange.js').Answered} Answered */
/** @typedef {import('./upload.js').UploadBody} UploadBody */
/** @typedef {import('./assets.js').Assets} Assets */
/** @typedef {import('./ports.js').Ports} Ports */

/** Destinations whose response is a document that scripts run in. */
const DOCUMENTS = new Set(['document', 'iframe', 'frame', 'embed', 'object']);

/** Methods that may be sent again when the first attempt got no answer. */
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * @typedef {object} Way
 * @property {Ports} ports
 * @property {Assets} assets
 * @property {string} origin
 * @property {(done: Promise<unknown>) => void} keepAlive
 */

/**
 * @typedef {object} Wish
 * @property {string} clientId who asks
 * @property {string} url path and query at the service
 * @property {string} [saveAs] the response is saved under this name (may be empty) instead of shown
 * @property {string} [referrer] the page that asks, where the request itself is the wrapper's
 */

/**
 * @param {Request} request
 * @param {Wish} wish
 * @param {Way} way
 * @returns {Promise<Response>}
 */
export async function appResponse(request, wish, way) {
  const isDocument = DOCUMENTS.has(request.destination) || request.mode === 'navigate';
  /** @type {UploadBody | null} */
  let upload = null;
  try {
    upload = await uploadOf(request);
    const answered = await send(request, wish, upload, way);
    way.keepAlive(answered.done);
    return await made(request, wish, answered, way, isDocument);
  } catch (error) {
    upload?.cancel();
    if (request.signal.aborted) return Response.error();
    return failureResponse(asFailure(error), { page: isDocument, retry: request.method === 'GET' });
  }
}

/**
 * @param {Request} request
 * @param {Wish} wish
 * @param {UploadBody | null} upload
 * @param {Way} way
 * @returns {Promise<Answered>}
 */
async function send(request, wish, upload, way) {
  const { headers: own, method, mode, referrer, referrerPolicy } = request;
  const asker = wish.referrer === undefined ? { referrer, referrerPolicy } : { referrer: wish.referrer, referrerPolicy: /** @type {const} */ ('') };
  const headers = requestHeaders({ headers: own, method, mode, ...asker }, way.origin);
  if (upload?.length !== undefined) headers.push(['content-length', String(upload.length)]);
  const head = { method: request.method, url: wish.url, headers, destination: request.destination, mode: request.mode };
  const once = async () => new Exchange(await way.ports.take(wish.clientId), head, upload, request.signal).answered;
  try {
    return await once();
  } catch (error) {
    const again = error instanceof Failure && error.portLost && !upload && REPEATABLE.has(request.method);
    if (!again) throw error;
    return once();
  }
}

/**
 * @param {Request} request
 * @param {Wish} wish
 * @param {Answered} answered
 * @param {Way} way
 * @param {boolean} isDocument
 * @returns {Promise<Response>}
 */
async function made(request, wish, { head, body }, way, isDocument) {
  const headers = responseHeaders(head.headers);
  const init = { status: head.status, statusText: head.statusText, headers };
  if (head.status < 200 || head.status > 599) {
    void body.cancel();
    throw new Failure('UPSTREAM_INVALID', 'The service gave an invalid answer.');
  }
  if (hasNullBody(head.status) || isRedirect(head.status, headers) || request.method === 'HEAD') {
    // Read to its end, which is checked there.
    void body.pipeTo(new WritableStream()).catch(() => undefined);
    return new Response(null, init);
  }
  let content = decoded(body, headers);
  const contentType = headers.get('content-type') ?? '';
  if (wish.saveAs !== undefined) {
    if (head.status === 200) headers.set('content-disposition', attachment(wish.saveAs));
  } else if (isDocument) {
    const shim = await way.assets.shim();
    const nonce = patchPolicies(headers, shim);
    if (isHtml(contentType)) {
      content = content.pipeThrough(injector(contentType, shimTag(head, headers, shim, nonce, request.method === 'GET')));
      headers.delete('content-length');
    }
  }
  return new Response(content, init);
}

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {Headers} headers
 * @returns {ReadableStream<Uint8Array<ArrayBuffer>>}
 */
function decoded(body, headers) {
  const codings = codingsOf(headers);
  if (codings === null) {
    void body.cancel();
    throw new Failure('UPSTREAM_INVALID', 'The service answered in a compression that was not asked for.');
  }
  if (codings.length === 0) return body;
  headers.delete('content-encoding');
  headers.delete('content-length');
  return codings.reduce((stream, coding) => stream.pipeThrough(new DecompressionStream(coding)), body);
}

/**
 * @param {Answered['head']} head
 * @param {Headers} headers
 * @param {{url: string, integrity: string}} shim
 * @param {string} nonce
 * @param {boolean} mayRetry
 */
function shimTag(head, headers, shim, nonce, mayRetry) {
  /** @type {Record<string, string>} */
  const attributes = { integrity: shim.integrity, 'data-cookies': head.cookies };
  if (nonce !== '') attributes['nonce'] = nonce;
  const reason = headers.get('portway-reason');
  if (reason !== null && mayRetry) attributes['data-reason'] = reason;
  return scriptTag(shim.url, attributes);
}
