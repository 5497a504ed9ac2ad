// rooms: messages.js shim/place.js shim/worker_port.js shim/cookie_text.js shim/cookie.js shim/websocket.js shim/navigation.js shim/service_worker.js
/**
 * First script of every document of a service: replaces what a service worker cannot see.
 * Built like `sw.js`: one classic script of the rooms named above and this file.
 */
import { findPlace } from './shim/place.js';
import { WorkerPort } from './shim/worker_port.js';
import { Cookies, installCookies } from './shim/cookie.js';
import { installWebSocket } from './shim/websocket.js';
import { installDownloads, installReports } from './shim/navigation.js';
import { installServiceWorker } from './shim/service_worker.js';

const place = findPlace(window);
if (place) {
  const port = new WorkerPort(place.wrapper);
  installCookies(new Cookies(port, place.cookies));
  installWebSocket(port);
  installDownloads(place.wrapper);
  installServiceWorker(port);
  if (place.isApp) installReports(place.wrapper);
}
