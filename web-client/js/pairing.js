/**
 * What the visitor sees of a pairing: six digits to read to the owner, and a button for when the owner has said
 * yes. On the wrapper's screen, in place of the words that a link is needed.
 */

/** @typedef {import('./messages.js').PairingMessage} PairingMessage */
/** @typedef {import('./messages.js').StatusMessage} StatusMessage */
/** @typedef {{type: 'pair'} | {type: 'pair-confirm'} | {type: 'pair-stop'}} Wish */

/** Where a link is what is missing, a pairing helps. */
const HELPS = ['LINK_MISSING', 'LINK_INVALID', 'GRANT_UNKNOWN', 'GRANT_EXPIRED', 'LINK_USED'];

const READ = 'Read these digits to the owner of the service, by voice. Go on only when they say that they were accepted.';

const SAID_YES = 'Go on only if the owner has told you, by voice, that these digits were accepted. If they have not, cancel.';

/** What happened and what to do, by reason code. @type {Record<string, [string, string]>} */
const WORDS = {
  PAIRING_CLOSED: ['Nobody is waiting for you', 'Ask the owner of the service to run “portway share … --pair”, and try again while that waits.'],
  PAIRING_TAKEN: ['Another device is pairing now', 'Tell the owner of the service: they can stop that and wait anew. If nobody knows the other device, they should.'],
  PAIRING_MISMATCH: ['The digits were not the same', 'Nothing was opened. Try again once, in case of a slip. If it fails again, do not go on: somebody may stand in between.'],
  PAIRING_CANCELLED: ['The owner has ended the pairing', 'Begin again on both sides.'],
  PAIRING_EXPIRED: ['The pairing took too long', 'Begin again on both sides.'],
  E2E_AUTH_FAILED: ['The machine did not prove who it is', 'Somebody may stand in between: nothing was opened.'],
  NODE_OFFLINE: ['The machine has gone offline', 'Begin again when it is back.'],
  SIGNALING_UNREACHABLE: ['The meeting point cannot be reached', 'Check your network, then try again.'],
  RATE_LIMITED: ['Too many attempts', 'Wait a minute, then try again.'],
};

export class PairingView {
  #say;
  #isActive = false;

  /**
   * @param {{onwish: (wish: Wish) => void, say: (title: string, words: string) => void, onstopped: () => void}} on
   *   `say` sets the words of the screen; `onstopped`: the visitor does not go on, and the screen is free
   */
  constructor({ onwish, say, onstopped }) {
    this.#say = say;
    element('pw-pair').addEventListener('click', () => {
      this.#isActive = true;
      this.#arrange({ stop: true });
      say('Looking for the owner…', '');
      onwish({ type: 'pair' });
    });
    element('pw-accepted').addEventListener('click', () => {
      this.#arrange({});
      say('Paired', 'Opening the service.');
      onwish({ type: 'pair-confirm' });
    });
    element('pw-stop').addEventListener('click', () => {
      this.#isActive = false;
      this.#arrange({});
      onwish({ type: 'pair-stop' });
      onstopped();
    });
  }

  /**
   * Offers to pair, where that helps.
   * @param {StatusMessage} status
   */
  offer({ state, reason }) {
    this.#isActive = false;
    this.#arrange({ pair: state === 'locked' && (reason === undefined || HELPS.includes(reason)) });
  }

  /** @param {PairingMessage} message */
  show(message) {
    if (!this.#isActive) return;
    switch (message.state) {
      case 'digits': {
        const { digits } = message;
        const grouped = `${digits.slice(0, 3)} ${digits.slice(3)}`;
        element('pw-digits').textContent = grouped;
        // One by one: a screen reader would say a number.
        element('pw-digits').setAttribute('aria-label', [...digits].join(' '));
        this.#arrange({ digits: true, stop: true });
        this.#say('Pair this device', READ);
        break;
      }
      case 'accepted':
        this.#arrange({ digits: true, accepted: true, stop: true });
        this.#say('Did they say yes?', SAID_YES);
        break;
      case 'ended': {
        const [title, words] = WORDS[message.reason] ?? [message.message, 'Begin again on both sides.'];
        this.#arrange({ pair: true });
        this.#say(title, words);
        const code = element('pw-code');
        code.textContent = message.reason;
        code.hidden = false;
        break;
      }
    }
  }

  /**
   * Which parts are there.
   * @param {{pair?: boolean, digits?: boolean, accepted?: boolean, stop?: boolean}} parts
   */
  #arrange({ pair = false, digits = false, accepted = false, stop = false }) {
    element('pw-pair').hidden = !pair;
    element('pw-digits').hidden = !digits;
    element('pw-accepted').hidden = !accepted;
    element('pw-stop').hidden = !stop;
    if (this.#isActive) element('pw-code').hidden = true;
  }
}

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`wrapper.html has no #${id}`);
  return found;
}
