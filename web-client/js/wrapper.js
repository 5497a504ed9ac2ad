/**
 * The top-level page of a service origin: connects through the holder, installs the service worker,
 * then shows the service in a frame. Holds no secret, only ways to this one service.
 *
 *   link from the address ─► holder ─► connected ┐
 *   service worker registered ─► controls ───────┴─► frame with the service
 */
import { PING_INTERVAL_MS, VERSION } from './messages.js';
import { StatusView } from './status.js';
import { missing } from './supports.js';
import { AppFrame } from './wrapper_frame.js';
import { Holder, holderOrigin } from './wrapper_holder.js';

/** @typedef {import('./messages.js').PageMessage} PageMessage */
/** @typedef {import('./messages.js').FromHolder} FromHolder */

const LINK = /^#v1\./;

/** A version mismatch is answered with a reload, but not again so soon. */
const RELOAD_PAUSE_MS = 30_000;
const RELOADED_AT = 'portway-reloaded';

const place = readPlace();
const link = takeLink();
const app = new AppFrame({
  onshown: () => view.open(),
  onsavefailed: () => view.notice('The file could not be downloaded.'),
});
const view = new StatusView(place.service, {
  onretry: () => holder?.retry(),
  onreload: () => app.reload(),
  onforget: () => holder?.send({ type: 'forget' }),
  onreplace: () => holder?.send({ type: 'replace' }),
  onpairing: (wish) => holder?.send(wish),
});

/** @type {Holder | null} */
let holder = null;
/** @type {ServiceWorkerRegistration | null} */
let registration = null;
let isConnected = false;

const lacking = missing();
if (lacking.length > 0) {
  view.show({ type: 'status', state: 'failed', reason: 'BROWSER_UNSUPPORTED', message: `This browser lacks ${lacking.join(', ')}.` });
} else {
  start();
}

function start() {
  // A link opened in this very tab changes the fragment only.
  window.addEventListener('hashchange', () => {
    if (LINK.test(location.hash)) location.reload();
  });
  window.addEventListener('message', hearPage);
  navigator.serviceWorker.addEventListener('message', hearServiceWorker);
  navigator.serviceWorker.startMessages();
  navigator.serviceWorker.addEventListener('controllerchange', showWhenReady);
  holder = new Holder(holderOrigin(location, place.cluster, place.domain), link, {
    onmessage: hearHolder,
    onsilence: () => view.show({ type: 'status', state: 'reconnecting', reason: 'SIGNALING_UNREACHABLE' }),
  });
  register().catch((error) => {
    console.error('portway: no service worker', error);
    view.show({ type: 'status', state: 'failed', reason: 'BROWSER_UNSUPPORTED', message: String(error) });
  });
}

async function register() {
  const registered = navigator.serviceWorker.register('/_portway/sw.js', { scope: '/', updateViaCache: 'none' });
  const { ready } = navigator.serviceWorker;
  // One that is there already serves at once: the browser may still ask for a newer one, over a
  // connection that has died with its network, and have this wait behind that for minutes.
  registration = await Promise.race([ready, registered.then(() => ready)]);
  registered.catch((error) => console.info('portway: no newer service worker', error));
  // The first ping also takes back a page that was reloaded past the service worker.
  ping();
  setInterval(ping, PING_INTERVAL_MS);
  showWhenReady();
}

function ping() {
  /** @type {PageMessage} */
  const message = { type: 'portway:ping' };
  registration?.active?.postMessage(message);
  registration?.waiting?.postMessage(message);
}

function showWhenReady() {
  if (isConnected && registration && navigator.serviceWorker.controller) {
    app.show(location.pathname + location.search + location.hash);
  }
}

/** @param {FromHolder} message */
function hearHolder(message) {
  switch (message.type) {
    case 'status': {
      const wasConnected = isConnected;
      isConnected = message.state === 'connected';
      view.show(message);
      showWhenReady();
      if (isConnected && !wasConnected) app.recover();
      break;
    }
    case 'pairing':
      view.showPairing(message);
      break;
    case 'forgotten':
      location.reload();
      break;
    case 'version-mismatch':
      void renew();
      break;
  }
}

/** @param {MessageEvent} event */
function hearServiceWorker(event) {
  const message = /** @type {PageMessage} */ (event.data);
  if (message?.type !== 'portway:port-wanted') return;
  giveServiceWorker(message.id, /** @type {ServiceWorker | null} */ (event.source));
}

/** @param {MessageEvent} event */
function hearPage(event) {
  if (event.origin !== location.origin || event.source === null || event.source === window) return;
  const message = /** @type {PageMessage} */ (event.data);
  switch (message?.type) {
    case 'portway:port-wanted':
      if (message.worker) giveServiceWorker(message.id, navigator.serviceWorker.controller);
      else {
        const target = /** @type {Window} */ (event.source);
        givePort(message.id, (answer, port) => target.postMessage(answer, location.origin, [port]));
      }
      break;
    case 'portway:navigated':
      app.navigated(event.source, message);
      break;
    case 'portway:download':
      app.save(message);
      break;
    default:
      break;
  }
}

/**
 * @param {number} id
 * @param {ServiceWorker | null} worker
 */
function giveServiceWorker(id, worker) {
  const target = worker ?? registration?.active;
  if (target) givePort(id, (answer, port) => target.postMessage(answer, [port]));
}

/**
 * Makes a request port: one end goes to the holder, the other to who asked.
 * @param {number} id of the question
 * @param {(answer: PageMessage, port: MessagePort) => void} give
 */
function givePort(id, give) {
  const { port1, port2 } = new MessageChannel();
  holder?.send({ type: 'port' }, [port1]);
  give({ type: 'portway:port', id, version: VERSION }, port2);
}

/** Our files are of another version than the holder's: they are fetched anew. */
async function renew() {
  const last = Number(sessionStorage.getItem(RELOADED_AT) ?? 0);
  if (Date.now() - last < RELOAD_PAUSE_MS) {
    view.show({ type: 'status', state: 'failed', reason: 'VERSION_UNSUPPORTED' });
    return;
  }
  sessionStorage.setItem(RELOADED_AT, String(Date.now()));
  for (const key of await caches.keys()) {
    if (key.startsWith('portway-')) await caches.delete(key);
  }
  await registration?.update().catch(() => undefined);
  location.reload();
}

/** The link in the address, which is removed from it at once. */
function takeLink() {
  if (!LINK.test(location.hash)) return undefined;
  const found = location.hash.slice(1);
  history.replaceState(history.state, '', location.pathname + location.search);
  return found;
}

/** Which service of which cluster this is: told by the server, else read from the host name. */
function readPlace() {
  const [label = '', ...rest] = location.hostname.split('.');
  const [flatService = '', flatCluster] = label.split('--');
  return {
    service: meta('service') || flatService,
    cluster: meta('cluster') || (flatCluster ?? rest[0] ?? ''),
    domain: meta('domain') || rest.slice(flatCluster === undefined ? 1 : 0).join('.'),
  };
}

/** @param {string} name */
function meta(name) {
  const found = /** @type {HTMLMetaElement | null} */ (document.querySelector(`meta[name="portway-${name}"]`));
  return found?.content ?? '';
}
