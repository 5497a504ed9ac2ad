/**
 * What the visitor sees of the connection: a calm screen until the service is there, then a small
 * light in the corner, and a banner while it is being repaired.
 */

import { PairingView, element } from './pairing.js';

/** @typedef {import('./messages.js').StatusMessage} StatusMessage */

/** The way to a connection, as shown. @type {[states: StatusMessage['state'][], text: string][]} */
const STEPS = [
  [['starting'], 'Getting ready'],
  [['signaling'], 'Finding the machine'],
  [['connecting'], 'Opening a direct path'],
  [['authenticating'], 'Checking who is who'],
];

/** What happened and what to do, by reason code; words of the other end are shown where it has none. @type {Record<string, [string, string]>} */
const WORDS = {
  LINK_MISSING: ['You need a link', 'This service opens with a link. Ask its owner for one, or open the link that you already have once more. If you can speak to the owner now, you can pair this device instead.'],
  LINK_INVALID: ['This link does not work', 'It is damaged or belongs to another place. Copy the whole link again, up to its last character.'],
  GRANT_UNKNOWN: ['This link is not valid any more', 'It was revoked, or the machine it came from was set up anew. Ask its owner for a new one.'],
  GRANT_EXPIRED: ['This link has expired', 'Ask its owner for a new one.'],
  LINK_USED: ['This link has been used', 'It was for one device, and another one has opened it. Open it there, or ask its owner for a new one. If you have never opened it, tell the owner: somebody else has.'],
  PERMISSION_DENIED: ['Your link does not allow this', 'Ask its owner for one that does.'],
  E2E_AUTH_FAILED: ['This is not the machine of your link', 'Somebody may stand in between: nothing was sent. Ask the owner for a new link by another way. If the machine was set up anew, the old link is for another one.'],
  CLUSTER_KEY_CHANGED: ['Stop: the key of this place has changed', 'Your link names another key than the one by which this browser has opened the service before. Either the owner has set everything up anew, or the link is not the owner\'s and leads to somebody else. Nothing was sent. Call the owner, who finds eight words with “portway key show”, and have them read to you. If they are the old ones, do not use this link: close this page.'],
  NODE_CERTIFICATE_EXPIRED: ['The certificate of the machine is not valid now', 'Check the clock of this device. If it is right, the owner has to renew the certificate of the machine.'],
  SERVICE_UNKNOWN: ['No machine offers this service', 'It may have been renamed or taken down. Check the address, or ask its owner.'],
  NODE_OFFLINE: ['The machine is offline', 'It connects by itself when it is back. This page will notice.'],
  SERVED_ELSEWHERE: ['The machine is offline', 'Another one offers this service too. We are connecting to it.'],
  SIGNALING_UNREACHABLE: ['The meeting point cannot be reached', 'Check your network. We keep trying.'],
  ICE_FAILED: ['No path to the machine was found', 'A firewall on this side or the other blocks direct traffic. Another network may work.'],
  SESSION_TIMEOUT: ['The machine did not answer', 'It may be busy or asleep. We keep trying.'],
  SESSION_LOST: ['The connection was lost', 'We are connecting again.'],
  RATE_LIMITED: ['Too many attempts', 'Wait a moment. We try again by ourselves.'],
  VERSION_UNSUPPORTED: ['The two ends speak different versions', 'Reload this page. If that does not help, Portway must be updated on the machine.'],
  BROWSER_UNSUPPORTED: ['This browser cannot open the service', 'Use a current Chrome, Chromium, Edge or Firefox, not in a mode without service workers.'],
};

/** A short break is not worth a word. */
const BANNER_DELAY_MS = 600;

/** How long a notice stays. */
const NOTICE_MS = 8000;

export class StatusView {
  #service;
  #isOpen = false;
  #pairing;
  /** What the visitor comes back to. @type {StatusMessage} */
  #locked = { type: 'status', state: 'locked', reason: 'LINK_MISSING' };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #bannerTimer;
  #screen = element('pw-screen');
  #banner = element('pw-banner');
  #pill = element('pw-pill');
  #dot = element('pw-dot');
  #panel = element('pw-panel');

  /**
   * @param {string} service its name
   * @param {{onretry: () => void, onreload: () => void, onforget: () => void, onreplace: () => void,
   *   onpairing: (message: import('./pairing.js').Wish) => void}} on
   */
  constructor(service, { onretry, onreload, onforget, onreplace, onpairing }) {
    this.#service = service;
    this.#pairing = new PairingView({ onwish: onpairing, say: (title, words) => this.#say(title, words), onstopped: () => this.show(this.#locked) });
    element('pw-retry').addEventListener('click', onretry);
    element('pw-reload').addEventListener('click', onreload);
    element('pw-forget').addEventListener('click', onforget);
    element('pw-replace').addEventListener('click', onreplace);
    this.#dot.addEventListener('click', () => this.#expand(this.#panel.hidden !== false));
    document.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#expand(false);
    });
    window.addEventListener('blur', () => this.#expand(false));
    element('pw-steps').replaceChildren(...STEPS.map(([, text]) => Object.assign(document.createElement('li'), { textContent: text })));
    this.#say(`Connecting to ${service}…`, '');
  }

  /** The service's page is there: the screen goes, the light comes. */
  open() {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#screen.classList.add('pw-gone');
    // It may be back before it has gone.
    const hide = () => {
      if (this.#isOpen) this.#screen.hidden = true;
    };
    this.#screen.addEventListener('transitionend', hide, { once: true });
    setTimeout(hide, 400);
    this.#pill.hidden = false;
  }

  /** @param {import('./messages.js').PairingMessage} message */
  showPairing(message) {
    this.#pairing.show(message);
  }

  /** @param {StatusMessage} status */
  show(status) {
    if (status.state === 'locked') this.#locked = status;
    document.documentElement.dataset['state'] = status.state;
    this.#showFacts(status);
    if (this.#isOpen && status.state !== 'locked') this.#showBanner(status);
    else this.#showScreen(status);
  }

  /**
   * Something to know, for a while.
   * @param {string} text
   */
  notice(text) {
    clearTimeout(this.#bannerTimer);
    this.#banner.textContent = text;
    this.#banner.hidden = false;
    this.#bannerTimer = setTimeout(() => (this.#banner.hidden = true), NOTICE_MS);
  }

  /** @param {StatusMessage} status */
  #showScreen(status) {
    const isEnd = status.state === 'failed' || status.state === 'locked';
    const step = STEPS.findIndex(([states]) => states.includes(status.state));
    const done = status.state === 'connected' ? STEPS.length : step;
    if (status.state === 'locked') {
      this.#isOpen = false;
      this.#pill.hidden = true;
      clearTimeout(this.#bannerTimer);
      this.#banner.hidden = true;
      this.#screen.hidden = false;
      this.#screen.classList.remove('pw-gone');
    }
    this.#screen.dataset['kind'] = status.state;
    element('pw-steps').hidden = isEnd;
    if (step >= 0 || status.state === 'connected') {
      for (const [i, item] of [...element('pw-steps').children].entries()) {
        item.className = i < done ? 'pw-done' : i === done ? 'pw-now' : '';
        if (i === done) item.setAttribute('aria-current', 'step');
        else item.removeAttribute('aria-current');
      }
    }
    if (isEnd || status.reason !== undefined) {
      const [title, text] = wordsOf(status);
      this.#say(title, text);
      document.title = title;
    } else {
      this.#say(`Connecting to ${this.#service}…`, status.state === 'connected' ? 'Connected. Loading the page.' : '');
      document.title = this.#service;
    }
    element('pw-retry').hidden = !(status.state === 'failed' || (status.state === 'reconnecting' && status.reason !== undefined));
    this.#showKeys(status);
    this.#pairing.offer(status);
    const code = element('pw-code');
    code.hidden = status.reason === undefined;
    code.textContent = status.reason ?? '';
  }

  /**
   * Both keys, where one has taken the place of another.
   * @param {StatusMessage} status
   */
  #showKeys({ words, pinned }) {
    const hasChanged = words !== undefined && pinned !== undefined;
    element('pw-keys').hidden = !hasChanged;
    element('pw-replace').hidden = !hasChanged;
    if (!hasChanged) return;
    element('pw-keys').replaceChildren(text('dt', 'Old key'), text('dd', pinned), text('dt', 'New key'), text('dd', words));
  }

  /** @param {StatusMessage} status */
  #showBanner(status) {
    clearTimeout(this.#bannerTimer);
    if (status.state === 'connected') {
      this.#banner.hidden = true;
      return;
    }
    const [title, text] = status.reason === undefined ? ['Connecting again…', ''] : wordsOf(status);
    const show = () => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = 'Try now';
      button.addEventListener('click', () => element('pw-retry').click());
      this.#banner.replaceChildren(Object.assign(document.createElement('span'), { textContent: text === '' ? title : `${title}. ${text}` }), button);
      this.#banner.hidden = false;
    };
    if (this.#banner.hidden) this.#bannerTimer = setTimeout(show, BANNER_DELAY_MS);
    else show();
  }

  /** @param {StatusMessage} status */
  #showFacts({ state, path, rtt, node, reason, words }) {
    const way = path === 'direct' ? 'Direct' : path === 'relayed' ? 'Relayed' : '';
    const delay = rtt === undefined ? '' : `${rtt < 10 ? rtt.toFixed(1) : Math.round(rtt)} ms`;
    const isUp = state === 'connected';
    const short = isUp ? [way || 'Connected', delay].filter(Boolean).join(' · ') : 'Connecting…';
    element('pw-short').textContent = short;
    this.#dot.setAttribute('aria-label', `Connection: ${short}`);
    this.#pill.dataset['path'] = isUp ? (path ?? 'direct') : 'none';
    /** @type {[string, string | undefined][]} */
    const facts = [
      ['Service', this.#service],
      ['Machine', node],
      ['Path', path === 'direct' ? 'Direct, encrypted end to end' : path === 'relayed' ? 'Over a relay, encrypted end to end' : undefined],
      ['Round trip', isUp ? delay : undefined],
      ['Key', words],
      ['State', isUp ? undefined : [short, reason].filter(Boolean).join(' ')],
    ];
    element('pw-facts').replaceChildren(
      ...facts.flatMap(([name, value]) => (value ? [text('dt', name), text('dd', value)] : [])),
    );
  }

  /** @param {boolean} isExpanded */
  #expand(isExpanded) {
    this.#panel.hidden = !isExpanded;
    this.#dot.setAttribute('aria-expanded', String(isExpanded));
  }

  /**
   * @param {string} title
   * @param {string} words
   */
  #say(title, words) {
    // Live regions speak on every change: only real ones are made.
    for (const [id, value] of [['pw-title', title], ['pw-text', words]]) {
      const target = element(id ?? '');
      if (target.textContent !== value) target.textContent = value ?? '';
    }
  }
}

/**
 * @param {StatusMessage} status
 * @returns {[title: string, text: string]}
 */
function wordsOf({ state, reason, message }) {
  const known = reason === undefined ? undefined : WORDS[reason];
  if (known) return known;
  if (state === 'locked') return WORDS['LINK_MISSING'] ?? ['', ''];
  return [message ?? 'The connection failed', state === 'failed' ? 'Try again. If that does not help, ask the owner of the service.' : 'We keep trying.'];
}

/**
 * @param {string} name
 * @param {string} content
 */
function text(name, content) {
  return Object.assign(document.createElement(name), { textContent: content });
}
