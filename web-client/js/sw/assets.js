/**
 * Our own files on this origin: kept since the installation, so that a page opens without waiting
 * for the web server, and renewed together behind every page that is opened.
 */

/** All that a wrapper page and a service's documents need. */
const ASSETS = [
  'wrapper.html', 'wrapper.js', 'wrapper_frame.js', 'wrapper_holder.js', 'status.js', 'pairing.js', 'supports.js',
  'messages.js', 'shim.js', 'style.css', 'icon.svg',
].map((name) => `/_portway/${name}`);

const WRAPPER = '/_portway/wrapper.html';
export const SHIM_PATH = '/_portway/shim.js';

const CACHE = 'portway-assets-1';

/** How long a check for newer files may take. */
const REFRESH_TIMEOUT_MS = 20_000;

export class Assets {
  #origin;
  /** @type {Promise<string> | null} */
  #integrity = null;
  /** @type {Promise<void> | null} */
  #refreshing = null;

  /** @param {string} origin */
  constructor(origin) {
    this.#origin = origin;
  }

  /** Fetches every file, and replaces the kept ones only if all have come. */
  refresh() {
    this.#refreshing ??= this.#fetchAll().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #fetchAll() {
    const signal = AbortSignal.timeout(REFRESH_TIMEOUT_MS);
    const fresh = await Promise.all(
      ASSETS.map(async (path) => {
        const response = await fetch(path, { cache: 'no-cache', credentials: 'omit', signal });
        if (!response.ok) throw new Error(`${path}: ${response.status}`);
        // Wholly here before anything is replaced.
        await response.clone().arrayBuffer();
        return { path, response };
      }),
    );
    const cache = await caches.open(CACHE);
    // Kept as fetched, with its address: Firefox checks the address of a made response against the
    // page's policy, and takes a response without one for the service worker's script.
    await Promise.all(fresh.map(({ path, response }) => cache.put(path, response)));
    this.#integrity = null;
  }

  /** The page that is shown for any address of the service. */
  async wrapper() {
    const kept = await this.#kept(WRAPPER);
    // Made anew: a response with an address of its own would change the page's.
    return new Response(kept.body, { headers: kept.headers });
  }

  /**
   * @param {Request} request for a path under `/_portway/`
   * @returns {Promise<Response>}
   */
  async serve(request) {
    const { pathname } = new URL(request.url);
    return ASSETS.includes(pathname) ? this.#kept(pathname) : fetch(request);
  }

  /** What the policy of a page must allow for the shim to run. */
  async shim() {
    this.#integrity ??= this.#kept(SHIM_PATH)
      .then((response) => response.arrayBuffer())
      .then((bytes) => crypto.subtle.digest('SHA-256', bytes))
      .then((hash) => `sha256-${btoa(String.fromCharCode(...new Uint8Array(hash)))}`);
    return { url: `${this.#origin}${SHIM_PATH}`, origin: this.#origin, integrity: await this.#integrity };
  }

  /** @param {string} path */
  async #kept(path) {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(path);
    if (kept) return kept;
    // The browser emptied the cache.
    await this.refresh();
    return (await cache.match(path)) ?? fetch(path);
  }
}
