/**
 * The service's own page in a full-viewport iframe of the same origin, with address, title and
 * icon of the tab kept in step with it.
 */

/** @typedef {{type: 'portway:navigated', url: string, title: string, icon: string}} Navigated */

/** Larger icons are not copied. */
const MAX_ICON_BYTES = 256 * 1024;

/** Reasons after which loading again can help. */
const PASSING = new Set([
  'SESSION_LOST', 'SESSION_TIMEOUT', 'NODE_OFFLINE', 'SERVED_ELSEWHERE', 'SIGNALING_UNREACHABLE', 'DRAINING', 'ICE_FAILED', 'RATE_LIMITED',
  'UPSTREAM_REFUSED', 'UPSTREAM_CONNECT_TIMEOUT', 'APP_REQUEST_BYPASSED',
]);

/** Pauses between two looks whether the service answers again. */
const PROBE_MIN_MS = 1000;
const PROBE_MAX_MS = 5000;

/** How often a page that came past the service worker is loaded again. */
const MAX_BYPASS_RELOADS = 3;

/** Saves under way. */
const MAX_SAVES = 8;

const MARK = Symbol.for('portway');

export class AppFrame {
  /** @type {HTMLIFrameElement | null} */
  #frame = null;
  #icon = '';
  #bypasses = 0;
  #probePause = PROBE_MIN_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #probe;
  /** @type {HTMLIFrameElement[]} */
  #saves = [];
  #onshown;
  #onsavefailed;

  /** @param {{onshown: () => void, onsavefailed: () => void}} on */
  constructor({ onshown, onsavefailed }) {
    this.#onshown = onshown;
    this.#onsavefailed = onsavefailed;
    this.#keepNavigationsInside();
  }

  get isThere() {
    return this.#frame !== null;
  }

  /**
   * Shows the service at this address; does nothing if it is shown already.
   * @param {string} url
   */
  show(url) {
    if (this.#frame) return;
    const frame = document.createElement('iframe');
    frame.id = 'portway-app';
    frame.title = document.title;
    frame.allow = 'fullscreen; clipboard-read; clipboard-write; camera; microphone; display-capture; geolocation';
    frame.referrerPolicy = 'no-referrer';
    frame.addEventListener('load', () => this.#loaded());
    frame.src = url;
    this.#frame = frame;
    document.body.prepend(frame);
  }

  /** Loads the page that is shown again. */
  reload() {
    this.#frame?.contentWindow?.location.reload();
  }

  /** The connection is back: a page that failed is tried at once. */
  recover() {
    this.#probePause = PROBE_MIN_MS;
    if (this.#reason() !== '') void this.#look();
  }

  /**
   * @param {MessageEventSource | null} source
   * @param {Navigated} message
   */
  navigated(source, message) {
    if (source !== this.#frame?.contentWindow) return;
    this.#adopt(message.url, message.title, message.icon);
  }

  /**
   * Saves an address of the service as a file.
   * @param {{url: string, name: string, referrer: string}} wish
   */
  save({ url, name, referrer }) {
    if (new URL(url, location.href).origin !== location.origin) return;
    const frame = document.createElement('iframe');
    frame.className = 'pw-holder';
    frame.title = 'Download';
    frame.ariaHidden = 'true';
    frame.src = `/_portway/download?${new URLSearchParams({ url, name, referrer })}`;
    frame.addEventListener('load', () => {
      // A saved file shows nothing: what has loaded is an error page.
      if (frame.contentDocument?.URL === 'about:blank') return;
      frame.remove();
      this.#onsavefailed();
    });
    this.#saves.push(frame);
    if (this.#saves.length > MAX_SAVES) this.#saves.shift()?.remove();
    document.body.append(frame);
  }

  #loaded() {
    const page = this.#page();
    if (!page || page.URL === 'about:blank') return;
    const bypassed = page.defaultView?.performance.getEntriesByType('navigation')[0];
    if (bypassed instanceof (page.defaultView ?? window).PerformanceNavigationTiming
      && bypassed.workerStart === 0 && bypassed.responseStatus === 403 && this.#bypasses++ < MAX_BYPASS_RELOADS) {
      this.reload();
      return;
    }
    this.#adopt(page.URL, page.title, iconOf(page));
    this.#onshown();
    if (document.activeElement === null || document.activeElement === document.body) this.#frame?.contentWindow?.focus();
    clearTimeout(this.#probe);
    if (this.#reason() === '') this.#probePause = PROBE_MIN_MS;
    else this.#lookLater();
  }

  #lookLater() {
    clearTimeout(this.#probe);
    this.#probe = setTimeout(() => void this.#look(), this.#probePause);
    this.#probePause = Math.min(this.#probePause * 1.5, PROBE_MAX_MS);
  }

  /** Loads a failed page again as soon as its address is answered by the service. */
  async #look() {
    clearTimeout(this.#probe);
    const page = this.#page();
    if (!page || this.#reason() === '') return;
    try {
      const response = await fetch(page.URL, { method: 'HEAD', cache: 'no-store', redirect: 'manual' });
      if (!PASSING.has(response.headers.get('portway-reason') ?? '')) {
        if (this.#page() === page) this.reload();
        return;
      }
    } catch {
      // Not yet.
    }
    if (this.#page() === page) this.#lookLater();
  }

  /** Why the page that is shown is not the service's, if that can pass; or nothing. */
  #reason() {
    const page = this.#page();
    const marked = /** @type {any} */ (page?.defaultView)?.[MARK];
    const meta = /** @type {HTMLMetaElement | null | undefined} */ (page?.querySelector('meta[name="portway-reason"]'));
    const reason = String(marked?.reason || meta?.content || '');
    return PASSING.has(reason) ? reason : '';
  }

  /** The document that is shown; `null` while it is of another origin. */
  #page() {
    try {
      return this.#frame?.contentDocument ?? null;
    } catch {
      return null;
    }
  }

  /**
   * @param {string} url
   * @param {string} title
   * @param {string} icon
   */
  #adopt(url, title, icon) {
    const address = new URL(url);
    if (address.origin !== location.origin) return;
    if (address.href !== location.href) history.replaceState(history.state, '', address.href);
    const shown = title || address.pathname.slice(1) || address.hostname;
    if (document.title !== shown) document.title = shown;
    if (this.#frame) this.#frame.title = shown;
    void this.#adoptIcon(icon || '/favicon.ico');
  }

  /** @param {string} icon */
  async #adoptIcon(icon) {
    const url = new URL(icon, location.href);
    if (url.href === this.#icon) return;
    this.#icon = url.href;
    const link = /** @type {HTMLLinkElement} */ (document.querySelector('link[rel="icon"]'));
    let href = '/_portway/icon.svg';
    if (url.protocol === 'data:' || url.protocol === 'blob:') href = url.href;
    // Browsers fetch icons past the service worker: it is fetched here and given to them.
    else if (url.origin === location.origin) href = (await fetchIcon(url.href)) ?? href;
    if (this.#icon === url.href && link.href !== href) link.href = href;
  }

  /** A page that navigates the top window (a frame-buster, `target=_top`) means itself. */
  #keepNavigationsInside() {
    const { navigation } = /** @type {any} */ (window);
    navigation?.addEventListener('navigate', (/** @type {any} */ event) => {
      const isOurs = event.navigationType === 'reload' || event.hashChange || event.destination.sameDocument;
      if (isOurs || !event.cancelable || event.formData || event.userInvolvement === 'browser UI' || !this.#frame) return;
      const url = new URL(event.destination.url);
      if (url.origin !== location.origin || event.navigationType === 'traverse') return;
      event.preventDefault();
      if (url.href !== this.#page()?.URL) this.#frame.contentWindow?.location.assign(url.href);
    });
  }
}

/** @param {Document} page */
function iconOf(page) {
  const links = /** @type {NodeListOf<HTMLLinkElement>} */ (page.querySelectorAll('link[rel~="icon" i][href]'));
  return links[links.length - 1]?.href ?? '';
}

/**
 * @param {string} url
 * @returns {Promise<string | undefined>} a `data:` address
 */
async function fetchIcon(url) {
  try {
    const response = await fetch(url);
    const type = response.headers.get('content-type') ?? '';
    const isImage = response.ok && type.startsWith('image/');
    if (!isImage || Number(response.headers.get('content-length') ?? 0) > MAX_ICON_BYTES) {
      void response.body?.cancel();
      return undefined;
    }
    const blob = await response.blob();
    if (blob.size === 0 || blob.size > MAX_ICON_BYTES) return undefined;
    return await new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(String(reader.result));
      reader.onerror = () => resolve(undefined);
      reader.readAsDataURL(blob);
    });
  } catch {
    return undefined;
  }
}
