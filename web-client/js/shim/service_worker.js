/**
 * The origin has one service worker, ours: a service cannot register its own and does not see it.
 */

/** @typedef {import('./worker_port.js').WorkerPort} WorkerPort */

/** @param {WorkerPort} port */
export function installServiceWorker(port) {
  const container = navigator.serviceWorker;
  if (!container) return;
  container.addEventListener('message', (event) => {
    const type = event.data?.type;
    if (typeof type !== 'string' || !type.startsWith('portway:')) return;
    event.stopImmediatePropagation();
    if (type === 'portway:port-wanted') port.askForWorker(event.data.id);
  });
  container.startMessages();

  const prototype = ServiceWorkerContainer.prototype;
  Object.assign(prototype, {
    register: () => Promise.reject(new DOMException('A service opened through Portway cannot have a service worker of its own.', 'SecurityError')),
    getRegistration: () => Promise.resolve(undefined),
    getRegistrations: () => Promise.resolve([]),
  });
  Object.defineProperty(prototype, 'controller', { configurable: true, get: () => null });
  const never = new Promise(() => undefined);
  Object.defineProperty(prototype, 'ready', { configurable: true, get: () => never });
}
