/**
 * Tells the wrapper where the service is (address, title, icon), and what it wants to save.
 */

/** @typedef {import('../messages.js').PageMessage} PageMessage */

/** @param {Window} wrapper */
export function installReports(wrapper) {
  let last = '';
  let isDue = false;
  const report = () => {
    isDue = false;
    /** @type {PageMessage} */
    const message = { type: 'portway:navigated', url: location.href, title: document.title, icon: iconOf(document) };
    const text = JSON.stringify(message);
    if (text === last) return;
    last = text;
    wrapper.postMessage(message, location.origin);
  };
  const soon = () => {
    if (isDue) return;
    isDue = true;
    setTimeout(report);
  };
  for (const name of /** @type {const} */ (['pushState', 'replaceState'])) {
    const original = History.prototype[name];
    History.prototype[name] = function (...args) {
      original.apply(this, args);
      soon();
    };
  }
  for (const type of ['popstate', 'hashchange', 'pageshow', 'load']) window.addEventListener(type, soon);
  document.addEventListener('DOMContentLoaded', () => {
    new MutationObserver(soon).observe(document.head ?? document.documentElement, {
      attributeFilter: ['href', 'rel'], characterData: true, childList: true, subtree: true,
    });
    soon();
  });
}

/** @param {Document} doc */
function iconOf(doc) {
  const links = /** @type {NodeListOf<HTMLLinkElement>} */ (doc.querySelectorAll('link[rel~="icon" i][href]'));
  return links[links.length - 1]?.href ?? '';
}

/**
 * `a[download]` of the service: Chromium would fetch it past the service worker.
 * @param {Window} wrapper
 */
export function installDownloads(wrapper) {
  /** @param {HTMLAnchorElement} anchor */
  const save = (anchor) => {
    /** @type {PageMessage} */
    const message = { type: 'portway:download', url: anchor.href, name: anchor.download, referrer: referrerOf(anchor) };
    wrapper.postMessage(message, location.origin);
  };
  window.addEventListener('click', (event) => {
    const path = event.composedPath();
    const anchor = path.find(isSaving);
    if (!anchor) return;
    let isTaken = false;
    const take = () => {
      if (isTaken || event.defaultPrevented) return;
      isTaken = true;
      event.preventDefault();
      save(anchor);
    };
    // After every handler of the page, or at the one that stops the event.
    const listeners = path.map((target) => {
      const listener = () => {
        if (event.cancelBubble || target === window) take();
      };
      target.addEventListener('click', listener, { once: true });
      return { target, listener };
    });
    setTimeout(() => {
      for (const { target, listener } of listeners) target.removeEventListener('click', listener);
    });
  }, true);

  // An anchor outside the document tells nobody of its click.
  const { click } = HTMLAnchorElement.prototype;
  HTMLAnchorElement.prototype.click = function () {
    if (!this.isConnected && isSaving(this)) save(this);
    else click.call(this);
  };
  const { dispatchEvent } = EventTarget.prototype;
  HTMLAnchorElement.prototype.dispatchEvent = function (event) {
    if (event.type !== 'click' || this.isConnected || !isSaving(this)) return dispatchEvent.call(this, event);
    save(this);
    return true;
  };
}

/**
 * Services check it (JupyterLab does): a saved file is asked for as if the page itself did.
 * @param {HTMLAnchorElement} anchor
 */
function referrerOf(anchor) {
  return anchor.relList.contains('noreferrer') || anchor.referrerPolicy === 'no-referrer' ? '' : location.href;
}

/**
 * @param {EventTarget} target
 * @returns {target is HTMLAnchorElement}
 */
function isSaving(target) {
  return target instanceof HTMLAnchorElement && target.hasAttribute('download') && target.origin === location.origin
    && /^https?:$/.test(target.protocol) && !target.pathname.startsWith('/_portway/');
}
