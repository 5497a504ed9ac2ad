/**
 * Every message between page, holder, connection worker, service worker and shim. Nothing else in
 * this folder defines a message.
 *
 *   wrapper page ──control port──► holder page ──► connection worker (wasm)
 *        ▲                                              ▲
 *        │ port wanted / port                           │ request port
 *   service worker, shim ───────────────────────────────┘
 *
 * - The **wrapper** is the top-level page of a service origin, the **holder** a hidden iframe on
 *   `conn.{cluster}`. They meet once by `postMessage` (`OpenMessage`, which transfers the control
 *   port); the holder takes the service from `event.origin`, never from the message.
 * - A **request port** joins a service worker or a shim directly to the connection worker. It is
 *   made by a wrapper, handed to the holder over the control port, and carries one service only.
 * - `VERSION` changes with any incompatible change; a peer of another version is answered with
 *   `version-mismatch` and reloads.
 */

export const VERSION = 1;

/** Bytes of response body that a reader allows in advance, and re-grants as it consumes. */
export const BODY_CREDIT = 512 * 1024;

/** Largest body chunk in one message. */
export const MAX_CHUNK = 64 * 1024;

/** How often a wrapper pings its service worker (Firefox ends an idle one after 30 s). */
export const PING_INTERVAL_MS = 10_000;

/** @typedef {[name: string, value: string][]} HeaderList */

/**
 * `window.postMessage` from wrapper to holder; transfers the control port.
 * @typedef {object} OpenMessage
 * @property {'portway:open'} type
 * @property {number} version
 * @property {string} [link] the fragment `v1.…` if the address had one
 */

/**
 * Control port, wrapper → holder.
 * @typedef {{type: 'port'}          // transfers a request port
 *   | {type: 'retry'}               // try to connect now
 *   | {type: 'forget'}              // forget grant and cookies of this service
 *   | {type: 'replace'}             // forget them, and keep the link that was stopped (`CLUSTER_KEY_CHANGED`)
 *   | {type: 'pair'}                // get a link by six digits
 *   | {type: 'pair-confirm'}        // the owner has said that the digits were accepted
 *   | {type: 'pair-stop'}           // the visitor does not go on
 * } ToHolder
 */

/**
 * Control port, holder → wrapper.
 * @typedef {StatusMessage | PairingMessage | {type: 'version-mismatch'} | {type: 'forgotten'}} FromHolder
 *   `forgotten`: what was kept is another now, or gone; the page begins anew
 */

/**
 * How a pairing goes. `accepted`: the node says that its owner has typed the same digits.
 * @typedef {{type: 'pairing', state: 'digits', digits: string}
 *   | {type: 'pairing', state: 'accepted'}
 *   | {type: 'pairing', state: 'ended', reason: string, message: string}
 * } PairingMessage
 */

/**
 * @typedef {object} StatusMessage
 * @property {'status'} type
 * @property {'starting'|'signaling'|'connecting'|'authenticating'|'connected'|'reconnecting'|'failed'|'locked'} state
 *   `locked`: no link, or it is not valid any more; `failed`: gave up, `retry` starts again
 * @property {string} [reason] reason code of the last failure
 * @property {string} [message] plain words
 * @property {string} [node]
 * @property {'direct'|'relayed'} [path]
 * @property {number} [rtt] milliseconds
 * @property {string} [key] newest key of the cluster, once a session has opened
 * @property {string} [words] eight words that stand for the key of the cluster
 * @property {string} [pinned] those of the key by which the service was opened before, if that was another
 */

/**
 * Request port, client side (service worker or shim) → connection worker.
 * Ids are chosen by the client side and are unique per port.
 * @typedef {{type: 'request', id: number, method: string, url: string, headers: HeaderList,
 *      body: 'none'|'stream', destination: string, mode: string, cookiePath?: string, credit: number}
 *   | {type: 'body', id: number, bytes: ArrayBuffer}
 *   | {type: 'body-end', id: number, length: number}
 *   | {type: 'pull', id: number, credit: number}
 *   | {type: 'abort', id: number}
 *   | {type: 'ws-open', id: number, url: string, protocols: string[], origin: string}
 *   | {type: 'ws-send', id: number, data: string | ArrayBuffer}
 *   | {type: 'ws-pull', id: number, credit: number}
 *   | {type: 'ws-close', id: number, code?: number, reason?: string}
 *   | {type: 'cookie-watch', url: string}
 *   | {type: 'cookie-set', url: string, cookie: string}
 *   | {type: 'ping'}
 *   | {type: 'close'}
 * } ToWorker
 *   `url` is path and query. `credit` is in bytes (for `ws-pull`: messages).
 */

/**
 * Request port, connection worker → client side.
 * A request ends with exactly one of `end` (whose `length` must equal the bytes received) or `error`.
 * @typedef {{type: 'response', id: number, status: number, statusText: string, headers: HeaderList, cookies: string}
 *   | {type: 'chunk', id: number, bytes: ArrayBuffer}
 *   | {type: 'end', id: number, length: number}
 *   | {type: 'error', id: number, reason: string, message: string}
 *   | {type: 'body-pull', id: number, credit: number}
 *   | {type: 'ws-opened', id: number, protocol: string}
 *   | {type: 'ws-message', id: number, data: string | ArrayBuffer}
 *   | {type: 'ws-sent', id: number, bytes: number}
 *   | {type: 'ws-closed', id: number, code: number, reason: string, wasClean: boolean, failure?: string}
 *   | {type: 'cookies', cookies: string}
 *   | {type: 'pong', state: string}
 * } FromWorker
 *   `cookies` is what `document.cookie` would show (no HttpOnly ones) for the url of the request or
 *   of the `cookie-watch`. `failure`: the WebSocket did not open, or its service broke the protocol.
 */

/**
 * Service worker ↔ windows of its origin (`Client.postMessage`, `ServiceWorker.postMessage`) and
 * shim → wrapper (`window.postMessage`, same origin). `port-wanted` is answered by `port`, which
 * transfers a request port; with `worker: true` (a shim passes on a question of the service worker)
 * the wrapper sends the answer to the service worker, so that it learns whose wrapper it is.
 * `download` asks the wrapper to save an address of the service as a file.
 * @typedef {{type: 'portway:port-wanted', id: number, worker?: boolean}
 *   | {type: 'portway:port', id: number, version: number}
 *   | {type: 'portway:ping'}
 *   | {type: 'portway:navigated', url: string, title: string, icon: string}
 *   | {type: 'portway:download', url: string, name: string, referrer: string}
 * } PageMessage
 */

/**
 * Holder → connection worker. Strings named `json` go to and come from the wasm as they are.
 * @typedef {{type: 'start', options: string, device: CryptoKey}  // the private key of this device, which signs and cannot be read
 *   | {type: 'port'}                                              // transfers a request port
 *   | {type: 'channel', session: string, channel: RTCDataChannel} // transfers the channel
 *   | {type: 'peer', json: string}                                // a `PeerEvent`
 *   | {type: 'retry'}
 *   | {type: 'pair', options: string}                             // in a worker of its own, as its first message
 *   | {type: 'confirm'}                                           // to that one
 * } HolderToConnection
 */

/**
 * Connection worker → holder.
 * @typedef {{type: 'status', json: string}        // a `StatusMessage` without its type
 *   | {type: 'peer', json: string}                // a `PeerCommand`
 *   | {type: 'save-cookies', json: string}
 *   | {type: 'save-revocations', json: string}   // the newest list of revoked nodes
 *   | {type: 'pairing', json: string}             // a `PairingMessage` without its type
 *   | {type: 'paired', link: string}
 * } ConnectionToHolder
 */

/**
 * Wasm → holder: what the peer connection shall do.
 * @typedef {{type: 'peer-open', session: string, iceServers: RTCIceServer[]}
 *   | {type: 'peer-answer', session: string, description: RTCSessionDescriptionInit}
 *   | {type: 'peer-candidate', session: string, candidate: RTCIceCandidateInit | null}
 *   | {type: 'peer-close', session: string}
 * } PeerCommand
 */

/**
 * Holder → wasm: what happens to the peer connection.
 * @typedef {{type: 'peer-offer', session: string, description: {type: 'offer', sdp: string}}
 *   | {type: 'peer-candidate', session: string, candidate: RTCIceCandidateInit | null}
 *   | {type: 'peer-state', session: string, state: string}
 *   | {type: 'peer-certificate', session: string, sha256: number[] | null}
 *   | {type: 'peer-path', session: string, path: 'direct' | 'relayed'}
 *   | {type: 'network-changed'}
 * } PeerEvent
 */
