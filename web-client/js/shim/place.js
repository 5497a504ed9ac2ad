/**
 * Where this document stands: its wrapper above it, and what the service worker told about it.
 */

/** The one global of the shim: `window[Symbol.for('portway')]`, documented for wrappers and tests. */
const MARK = Symbol.for('portway');

/**
 * @typedef {object} Place
 * @property {Window} wrapper the outermost window of this origin above us
 * @property {boolean} isApp whether this document is the one that the wrapper shows
 * @property {string} cookies what `document.cookie` showed when the document was made
 */

/**
 * @param {Window & typeof globalThis} win
 * @returns {Place | null} `null`: nothing is to be done here
 */
export function findPlace(win) {
  const marked = /** @type {any} */ (win);
  // An opaque origin (a sandboxed frame) can reach nothing of ours.
  if (marked[MARK] || win.origin === 'null') return null;
  const script = /** @type {HTMLScriptElement | null} */ (win.document.currentScript);
  const { cookies = '', reason = '' } = script?.dataset ?? {};
  script?.remove();
  Object.defineProperty(win, MARK, { value: Object.freeze({ reason }) });
  const wrapper = outermost(win);
  return wrapper === win ? null : { wrapper, isApp: win.parent === wrapper, cookies };
}

/** @param {Window} win */
function outermost(win) {
  const { origin } = win;
  let found = win;
  for (let at = win; at !== at.parent; ) {
    at = at.parent;
    try {
      if (at.origin === origin) found = at;
    } catch {
      // Another origin: look further up.
    }
  }
  return found;
}
