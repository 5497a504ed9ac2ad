/**
 * What a browser must have for Portway, checked before anything is started.
 */

/** @type {[name: string, isThere: () => boolean][]} */
const NEEDED = [
  ['a secure address (https, or localhost)', () => window.isSecureContext],
  ['service workers (private or hardened modes may switch them off)', () => 'serviceWorker' in navigator],
  ['WebRTC', () => typeof RTCPeerConnection === 'function'],
  ['WebAssembly', () => typeof WebAssembly === 'object'],
  ['streams', () => typeof ReadableStream === 'function' && typeof TransformStream === 'function'],
  ['current JavaScript', () => typeof Promise.withResolvers === 'function' && typeof String.prototype.toWellFormed === 'function'],
];

/** @returns {string[]} what is missing, in plain words */
export function missing() {
  return NEEDED.filter(([, isThere]) => !isThere()).map(([name]) => name);
}

/**
 * Tells of another network, in browsers that have it.
 * @returns {EventTarget | undefined}
 */
export function networkInformation() {
  return /** @type {{connection?: EventTarget}} */ (navigator).connection;
}
