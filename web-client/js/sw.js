// rooms: messages.js sw/headers.js sw/csp.js sw/html.js sw/failure.js sw/request_port.js sw/ports.js sw/upload.js sw/exchange.js sw/assets.js sw/app_request.js
/**
 * Service worker of a service origin. Every top-level navigation gets the wrapper page, our own
 * files come from the cache, everything else of the origin goes to the connection worker.
 *
 * The build makes one classic script of the rooms named above, in that order, and this file: import
 * statements and the word `export` are dropped, the whole is wrapped in a strict function.
 */
import { Assets } from './sw/assets.js';
import { appResponse } from './sw/app_request.js';
import { Ports } from './sw/ports.js';

/** Held (shared) while a body is under way: a newer version waits for it before it takes over. */
const BODY_LOCK = 'portway-bodies';

const scope = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const origin = scope.location.origin;
const assets = new Assets(origin);
const ports = new Ports(scope);

scope.addEventListener('install', (event) => {
  event.waitUntil(assets.refresh());
  void takeOver();
});

scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()));

scope.addEventListener('message', (event) => {
  const source = /** @type {WindowClient | null} */ (event.source);
  const message = /** @type {import('./messages.js').PageMessage} */ (event.data);
  if (message.type === 'portway:ping') {
    event.waitUntil(claimIfNeeded(source?.id));
    void takeOver();
  } else if (message.type === 'portway:port' && source && event.ports[0]) {
    ports.receive(source.id, message, event.ports[0]);
  }
});

scope.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== origin) return;
  if (request.mode === 'navigate' && request.destination === 'document') {
    event.respondWith(assets.wrapper());
    event.waitUntil(assets.refresh().catch((error) => console.info('portway: our files were not renewed', error)));
  } else if (url.pathname === '/_portway/download') {
    event.respondWith(download(event, url));
  } else if (url.pathname.startsWith('/_portway/')) {
    event.respondWith(assets.serve(request));
  } else {
    event.respondWith(appResponse(request, { clientId: askerOf(event), url: url.pathname + url.search }, wayOf(event)));
  }
});

/**
 * An address of the service that is saved as a file: `/_portway/download?url=…&name=…&referrer=…`.
 * @param {FetchEvent} event
 * @param {URL} url
 */
async function download(event, url) {
  const target = new URL(url.searchParams.get('url') ?? '/', origin);
  if (target.origin !== origin || target.pathname.startsWith('/_portway/')) return new Response(null, { status: 404 });
  const wish = {
    clientId: askerOf(event),
    url: target.pathname + target.search,
    saveAs: url.searchParams.get('name') ?? '',
    referrer: url.searchParams.get('referrer') ?? '',
  };
  return appResponse(event.request, wish, wayOf(event));
}

/**
 * The client whose tab a request belongs to.
 * @param {FetchEvent} event
 */
function askerOf(event) {
  ports.inherit(event.resultingClientId, event.clientId);
  return event.clientId;
}

/**
 * @param {FetchEvent} event
 * @returns {import('./sw/app_request.js').Way}
 */
function wayOf(event) {
  return {
    ports,
    assets,
    origin,
    keepAlive: (done) => {
      const held = navigator.locks.request(BODY_LOCK, { mode: 'shared' }, () => done);
      try {
        event.waitUntil(held);
      } catch {
        // The event is over: the open body itself keeps the worker.
      }
    },
  };
}

/**
 * A window that was reloaded past the service worker is taken back.
 * @param {string | undefined} id
 */
async function claimIfNeeded(id) {
  const controlled = await scope.clients.matchAll({ type: 'window' });
  if (!controlled.some((client) => client.id === id)) await scope.clients.claim().catch(() => undefined);
}

/** A new version becomes the active one as soon as no body is under way in the old one. */
async function takeOver() {
  const { waiting, installing } = scope.registration;
  if (!waiting && !installing) return;
  await navigator.locks.request(BODY_LOCK, { ifAvailable: true }, (lock) => (lock ? scope.skipWaiting() : undefined));
}
