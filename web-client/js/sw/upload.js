/**
 * The body of a request, read only as fast as the other end grants credit.
 */
import { MAX_CHUNK } from '../messages.js';

/** How much of a streamed body is awaited, and how long, to tell its length if it is short. */
const PEEK_BYTES = 64 * 1024;
const PEEK_MS = 100;

/**
 * @typedef {object} UploadBody
 * @property {number | undefined} length if known
 * @property {(max: number) => Promise<Uint8Array<ArrayBuffer> | null>} read at most `max` bytes; `null` at the end
 * @property {() => void} cancel
 */

/**
 * @param {Request} request
 * @returns {Promise<UploadBody | null>} `null`: it has no body
 */
export async function uploadOf(request) {
  if (request.method === 'GET' || request.method === 'HEAD') return null;
  if (!('body' in Request.prototype)) {
    const blob = await request.blob();
    return blob.size === 0 ? null : fromBlob(blob);
  }
  return request.body === null ? null : await fromStream(request.body);
}

/**
 * @param {Blob} blob
 * @returns {UploadBody}
 */
export function fromBlob(blob) {
  let at = 0;
  return {
    length: blob.size,
    async read(max) {
      if (at >= blob.size) return null;
      const slice = blob.slice(at, at + Math.min(max, MAX_CHUNK));
      at += slice.size;
      return new Uint8Array(await slice.arrayBuffer());
    },
    cancel() {
      at = blob.size;
    },
  };
}

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @returns {Promise<UploadBody>}
 */
export async function fromStream(stream) {
  const reader = stream.getReader();
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const ready = [];
  let ended = false;
  let length = 0;
  /** @type {Promise<void> | null} */
  let reading = null;
  const more = () => {
    reading ??= reader.read().then(({ done, value }) => {
      reading = null;
      if (done) ended = true;
      else if (value.length > 0) {
        ready.push(value);
        length += value.length;
      }
    });
    return reading;
  };
  await peek(more, () => ended || length >= PEEK_BYTES);
  return {
    length: ended ? length : undefined,
    async read(max) {
      while (ready.length === 0 && !ended) await more();
      const first = ready[0];
      if (first === undefined) return null;
      const take = Math.min(first.length, max, MAX_CHUNK);
      if (take === first.length) ready.shift();
      else ready[0] = first.subarray(take);
      // Own memory, so that it can be transferred.
      return first.slice(0, take);
    },
    cancel() {
      reader.cancel().catch(() => undefined);
    },
  };
}

/**
 * @param {() => Promise<void>} more
 * @param {() => boolean} enough
 */
async function peek(more, enough) {
  let late = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const timeout = new Promise((resolve) => {
    timer = setTimeout(resolve, PEEK_MS);
  }).then(() => {
    late = true;
  });
  while (!late && !enough()) await Promise.race([more(), timeout]);
  clearTimeout(timer);
}
