/**
 * What the holder keeps between visits: of each service the link and the cookies, and the key of this
 * device. IndexedDB of the holder's origin, which no app can open.
 */

/**
 * `pinned`: newest key of the cluster, once the link has opened the service. `revocations`: its newest list of
 * revoked nodes, as JSON.
 * @typedef {{link: string, cookies: string, pinned?: string | undefined, revocations?: string | undefined}} Kept
 */

const DATABASE = 'portway';
const DATABASE_VERSION = 2;
const SERVICES = 'services';
const DEVICE = 'device';

/** The one key in the store of that name. */
const OWN = 'own';

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, DATABASE_VERSION);
    request.onupgradeneeded = () => {
      const there = request.result.objectStoreNames;
      for (const name of [SERVICES, DEVICE]) if (!there.contains(name)) request.result.createObjectStore(name);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @template T
 * @param {string} name of the store
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} work
 * @returns {Promise<T>}
 */
async function transact(name, mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(name, mode);
      const request = work(transaction.objectStore(name));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/**
 * @param {string} service
 * @returns {Promise<Kept | undefined>}
 */
export const load = (service) => transact(SERVICES, 'readonly', (store) => store.get(service));

/**
 * @param {string} service
 * @param {Kept} kept
 */
export const store = (service, kept) => transact(SERVICES, 'readwrite', (objects) => objects.put(kept, service));

/**
 * Changes what is kept of a service, if anything is.
 * @param {string} service
 * @param {(kept: Kept) => Kept} change
 */
export const update = (service, change) =>
  transact(SERVICES, 'readwrite', (objects) => {
    const request = objects.get(service);
    request.onsuccess = () => {
      if (request.result !== undefined) objects.put(change(request.result), service);
    };
    return request;
  });

/** @param {string} service */
export const forget = (service) => transact(SERVICES, 'readwrite', (objects) => objects.delete(service));

/**
 * The key pair of this device, made on first use. Nobody can read its private half, we neither.
 * @returns {Promise<CryptoKeyPair>}
 */
export async function device() {
  /** @type {CryptoKeyPair | undefined} */
  const known = await transact(DEVICE, 'readonly', (store) => store.get(OWN));
  if (known) return known;
  const made = /** @type {CryptoKeyPair} */ (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']));
  try {
    return await transact(DEVICE, 'readwrite', (store) => keepFirst(store, made)) ?? made;
  } catch (error) {
    // A private window may keep no keys: this one lasts as long as its page.
    console.info('portway: the key of this device cannot be kept', error);
    return made;
  }
}

/**
 * Another tab may have been first: then its key is the one, and the request tells it.
 * @param {IDBObjectStore} store
 * @param {CryptoKeyPair} made
 * @returns {IDBRequest<CryptoKeyPair | undefined>}
 */
function keepFirst(store, made) {
  const request = store.get(OWN);
  request.onsuccess = () => {
    if (request.result === undefined) store.put(made, OWN);
  };
  return request;
}
