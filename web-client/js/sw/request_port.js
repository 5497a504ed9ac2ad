/**
 * One port to a connection worker: gives out ids, takes every message to its request, and notices
 * when the other end is gone, so that a request fails instead of waiting for ever.
 */
import { portLost } from './failure.js';

/** @typedef {import('../messages.js').ToWorker} ToWorker */
/** @typedef {import('../messages.js').FromWorker} FromWorker */
/** @typedef {Extract<FromWorker, {id: number}>} Answer */
/** @typedef {import('./failure.js').Failure} Failure */

/**
 * What a request wants to hear.
 * @typedef {object} Listener
 * @property {(message: Answer) => void} message
 * @property {(failure: Failure) => void} lost the port died
 */

/** How often a port with open requests is checked. */
const TICK_MS = 1000;

/** So many unanswered checks mean that nobody is there. */
const MAX_UNANSWERED = 5;

export class RequestPort {
  /** @type {Map<number, Listener>} */
  #listeners = new Map();
  #nextId = 1;
  #unanswered = 0;
  #dead = false;
  #ticking = 0;
  #port;
  #isOwnerAlive;

  /**
   * @param {MessagePort} port
   * @param {() => Promise<boolean>} isOwnerAlive whether the window that holds the other end is still there
   */
  constructor(port, isOwnerAlive) {
    this.#port = port;
    this.#isOwnerAlive = isOwnerAlive;
    port.onmessage = (event) => this.#receive(event.data);
    port.addEventListener('close', () => this.#die());
    port.start();
  }

  get dead() {
    return this.#dead;
  }

  /**
   * Begins a request.
   * @param {Listener} listener
   * @returns {number} its id
   */
  open(listener) {
    const id = this.#nextId++;
    this.#listeners.set(id, listener);
    if (this.#dead) queueMicrotask(() => this.#failAll());
    else if (this.#ticking === 0) this.#startTicking();
    return id;
  }

  /**
   * Ends a request: nothing more is heard of it.
   * @param {number} id
   */
  forget(id) {
    this.#listeners.delete(id);
    if (this.#listeners.size === 0) this.#stopTicking();
  }

  /**
   * @param {ToWorker} message
   * @param {Transferable[]} [transfer]
   */
  send(message, transfer = []) {
    if (!this.#dead) this.#port.postMessage(message, transfer);
  }

  /** Says good-bye; requests under way fail. */
  close() {
    this.send({ type: 'close' });
    this.#die();
  }

  /** @param {FromWorker} message */
  #receive(message) {
    this.#unanswered = 0;
    if ('id' in message) this.#listeners.get(message.id)?.message(message);
  }

  #startTicking() {
    this.#unanswered = 0;
    this.#ticking = setInterval(() => void this.#tick(), TICK_MS);
    // The first check is made at once: the other end may have gone while the port was idle.
    void this.#tick();
  }

  #stopTicking() {
    clearInterval(this.#ticking);
    this.#ticking = 0;
  }

  async #tick() {
    if (this.#unanswered >= MAX_UNANSWERED || !(await this.#isOwnerAlive())) {
      this.#die();
      return;
    }
    this.#unanswered++;
    this.send({ type: 'ping' });
  }

  #die() {
    if (this.#dead) return;
    this.#dead = true;
    this.#port.close();
    this.#failAll();
  }

  #failAll() {
    this.#stopTicking();
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    for (const listener of listeners) listener.lost(portLost());
  }
}
