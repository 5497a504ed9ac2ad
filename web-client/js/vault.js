/**
 * What the holder keeps of each service between visits: the link and the cookies. IndexedDB of the
 * holder's origin, which no app can open.
 */

/** @typedef {{link: string, cookies: string}} Kept */

const DATABASE = 'portway';
const STORE = 'services';

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} work
 * @returns {Promise<T>}
 */
async function transact(mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
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
export const load = (service) => transact('readonly', (store) => store.get(service));

/**
 * @param {string} service
 * @param {Kept} kept
 */
export const store = (service, kept) => transact('readwrite', (objects) => objects.put(kept, service));

/** @param {string} service */
export const forget = (service) => transact('readwrite', (objects) => objects.delete(service));
