/**
 * Puts the shim's script tag into a stream of HTML bytes, as the first thing that the parser runs.
 * Works on bytes, for every encoding that extends ASCII; nothing but the head of the document is
 * ever held back. Pure.
 */

/** How far the start of the head is searched for. */
export const HEAD_LIMIT = 64 * 1024;

const LT = 0x3c, GT = 0x3e, BANG = 0x21, QUESTION = 0x3f, DASH = 0x2d, QUOTE = 0x22, APOSTROPHE = 0x27;

/**
 * Whether HTML of this type and beginning can take the tag: UTF-16 cannot.
 * @param {string} contentType
 * @param {Uint8Array} start first bytes of the body
 */
export function extendsAscii(contentType, start) {
  if (/charset\s*=\s*["']?\s*utf-?16/i.test(contentType)) return false;
  return !((start[0] === 0xfe && start[1] === 0xff) || (start[0] === 0xff && start[1] === 0xfe));
}

/**
 * @param {string} contentType
 * @returns {boolean}
 */
export function isHtml(contentType) {
  return /^\s*text\/html\s*(;|$)/i.test(contentType);
}

/**
 * The tag, in ASCII whatever the document's encoding is.
 * @param {string} src
 * @param {Record<string, string>} attributes
 */
export function scriptTag(src, attributes) {
  const rest = Object.entries(attributes)
    .map(([name, value]) => ` ${name}="${escapeAttribute(value)}"`)
    .join('');
  return `<script src="${escapeAttribute(src)}"${rest}></script>`;
}

/** @param {string} value */
function escapeAttribute(value) {
  return value.replace(/[^\x20-\x7e]|[&"<>]/gu, (c) => `&#${c.codePointAt(0)};`);
}

/**
 * Where the tag goes: after `<head>`, else after `<html>`, else before the first other tag or text;
 * never before the doctype.
 * @param {Uint8Array} bytes beginning of the document
 * @param {boolean} last no more bytes will be looked at
 * @returns {number} an offset, or -1 if more bytes are needed
 */
export function insertionPoint(bytes, last) {
  let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  for (;;) {
    const start = at;
    while (at < bytes.length && isSpace(bytes[at])) at++;
    if (at >= bytes.length) return last ? start : -1;
    if (bytes[at] !== LT) return at;
    // Enough to tell comment, doctype, <head and <html apart.
    if (bytes.length - at < 6 && !last) return -1;
    if (bytes[at + 1] === BANG || bytes[at + 1] === QUESTION) {
      const end = declarationEnd(bytes, at);
      if (end < 0) return last ? at : -1;
      at = end;
      continue;
    }
    const name = tagName(bytes, at + 1);
    if (name !== 'head' && name !== 'html') return at;
    const end = tagEnd(bytes, at);
    if (end < 0) return last ? at : -1;
    at = end;
    if (name === 'head') return at;
  }
}

/** @param {number | undefined} byte */
function isSpace(byte) {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09 || byte === 0x0c;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function tagName(bytes, at) {
  let name = '';
  for (let i = at; i < bytes.length && i < at + 5; i++) {
    const byte = bytes[i] ?? 0;
    if (isSpace(byte) || byte === GT || byte === 0x2f) return name;
    name += String.fromCharCode(byte).toLowerCase();
  }
  return name.length < 5 ? `${name}…` : name;
}

/**
 * End of a start tag, minding quoted attributes.
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function tagEnd(bytes, at) {
  let quote = 0;
  for (let i = at; i < bytes.length; i++) {
    const byte = bytes[i];
    if (quote !== 0) {
      if (byte === quote) quote = 0;
    } else if (byte === GT) {
      return i + 1;
    } else if (byte === QUOTE || byte === APOSTROPHE) {
      quote = byte;
    }
  }
  return -1;
}

/**
 * End of a comment, doctype or processing instruction.
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function declarationEnd(bytes, at) {
  const isComment = bytes[at + 1] === BANG && bytes[at + 2] === DASH && bytes[at + 3] === DASH;
  if (!isComment) {
    const end = bytes.indexOf(GT, at);
    return end < 0 ? -1 : end + 1;
  }
  // `<!-->` and `<!--->` are comments of their own.
  for (let end = bytes.indexOf(GT, at + 4); end >= 0; end = bytes.indexOf(GT, end + 1)) {
    const dashes = bytes[end - 1] === DASH && bytes[end - 2] === DASH;
    const banged = bytes[end - 1] === BANG && bytes[end - 2] === DASH && bytes[end - 3] === DASH && end >= at + 7;
    if (dashes || banged) return end + 1;
  }
  return -1;
}

/**
 * A stream that puts `tag` where it belongs and passes everything else on untouched.
 * @param {string} contentType
 * @param {string} tag
 * @returns {TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>}
 */
export function injector(contentType, tag) {
  const inserted = new TextEncoder().encode(tag);
  /** @type {Uint8Array<ArrayBuffer> | null} */
  let head = new Uint8Array(0);
  /**
   * @param {TransformStreamDefaultController<Uint8Array<ArrayBuffer>>} controller
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {boolean} last
   */
  const settle = (controller, bytes, last) => {
    if (!extendsAscii(contentType, bytes)) {
      console.warn('portway: a UTF-16 page runs without the shim');
      controller.enqueue(bytes);
      head = null;
      return;
    }
    const at = insertionPoint(bytes.subarray(0, HEAD_LIMIT), last || bytes.length >= HEAD_LIMIT);
    if (at < 0) {
      head = bytes;
      return;
    }
    if (at > 0) controller.enqueue(bytes.subarray(0, at));
    controller.enqueue(inserted);
    if (at < bytes.length) controller.enqueue(bytes.subarray(at));
    head = null;
  };
  return new TransformStream({
    transform(chunk, controller) {
      if (head === null) {
        controller.enqueue(chunk);
        return;
      }
      const joined = new Uint8Array(head.length + chunk.length);
      joined.set(head);
      joined.set(chunk, head.length);
      settle(controller, joined, false);
    },
    flush(controller) {
      if (head !== null) settle(controller, head, true);
    },
  });
}
