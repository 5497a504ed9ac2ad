/**
 * One request over a port, from its first message to its checked end.
 *
 *   opened ──response──► answered ──chunk*──► ended (length equal) | failed
 *
 * Credit runs both ways: the response's is granted again as the page reads, the request's comes
 * with `body-pull`. An abort of either side reaches the other.
 */
import { BODY_CREDIT, MAX_CHUNK } from '../messages.js';
import { Failure } from './failure.js';

/** @typedef {import('./request_port.js').RequestPort} RequestPort */
/** @typedef {import('./request_port.js').Answer} Answer */
/** @typedef {import('./upload.js').UploadBody} UploadBody */
/** @typedef {Omit<Extract<import('../messages.js').ToWorker, {type: 'request'}>, 'type' | 'id' | 'body' | 'credit'>} RequestHead */
/** @typedef {Extract<Answer, {type: 'response'}>} ResponseHead */
/** @typedef {{head: ResponseHead, body: ReadableStream<Uint8Array<ArrayBuffer>>, done: Promise<void>}} Answered */

/** Consumed bytes are granted again in steps of this size. */
const GRANT_STEP = BODY_CREDIT / 4;

export class Exchange {
  #port;
  #id;
  #upload;
  #signal;
  /** @type {PromiseWithResolvers<Answered>} */
  #answered = Promise.withResolvers();
  /** Settles when nothing more will happen. @type {PromiseWithResolvers<void>} */
  #done = Promise.withResolvers();
  /** @type {ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | null} */
  #controller = null;
  /** @type {Uint8Array<ArrayBuffer>[]} received, not yet read by the page */
  #backlog = [];
  #backlogBytes = 0;
  #received = 0;
  #consumed = 0;
  #ended = false;
  #closed = false;
  #uploadCredit = 0;
  #uploading = false;
  #uploaded = 0;
  #onAbort = () => this.#abort(this.#signal.reason);

  /**
   * @param {RequestPort} port
   * @param {RequestHead} head
   * @param {UploadBody | null} upload
   * @param {AbortSignal} signal
   */
  constructor(port, head, upload, signal) {
    this.#port = port;
    this.#upload = upload;
    this.#signal = signal;
    this.#id = port.open({
      message: (message) => this.#receive(message),
      lost: (failure) => this.#fail(failure),
    });
    port.send({ ...head, type: 'request', id: this.#id, body: upload ? 'stream' : 'none', credit: BODY_CREDIT });
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener('abort', this.#onAbort);
  }

  /** The head of the response and its body; rejects with a {@link Failure}. */
  get answered() {
    return this.#answered.promise;
  }

  /** @param {Answer} message */
  #receive(message) {
    switch (message.type) {
      case 'response':
        this.#answered.resolve({ head: message, body: this.#makeBody(), done: this.#done.promise });
        break;
      case 'chunk':
        this.#take(new Uint8Array(message.bytes));
        break;
      case 'end':
        this.#end(message.length);
        break;
      case 'error':
        this.#fail(new Failure(message.reason, message.message));
        break;
      case 'body-pull':
        this.#uploadCredit += message.credit;
        void this.#sendBody();
        break;
      default:
        break;
    }
  }

  #makeBody() {
    return new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#pull(),
        cancel: (reason) => this.#abort(reason),
      },
      { highWaterMark: 0 },
    );
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  #take(bytes) {
    if (this.#closed || bytes.length === 0) return;
    if (this.#ended || this.#backlogBytes + bytes.length > BODY_CREDIT + MAX_CHUNK) {
      this.#port.send({ type: 'abort', id: this.#id });
      this.#fail(new Failure('PROTOCOL_VIOLATION', 'The other end spoke out of turn.'));
      return;
    }
    this.#received += bytes.length;
    this.#backlogBytes += bytes.length;
    this.#backlog.push(bytes);
    if ((this.#controller?.desiredSize ?? 0) > 0 || this.#wanted) this.#pull();
  }

  #wanted = false;

  /** Hands the page what there is; called again when more arrives. */
  #pull() {
    const controller = this.#controller;
    if (!controller || this.#closed) return;
    const bytes = this.#backlog.shift();
    if (bytes === undefined) {
      this.#wanted = true;
      if (this.#ended) this.#close(() => controller.close());
      return;
    }
    this.#wanted = false;
    this.#backlogBytes -= bytes.length;
    controller.enqueue(bytes);
    this.#consumed += bytes.length;
    if (this.#ended && this.#backlog.length === 0) {
      this.#close(() => controller.close());
    } else if (this.#consumed >= GRANT_STEP && !this.#ended) {
      this.#port.send({ type: 'pull', id: this.#id, credit: this.#consumed });
      this.#consumed = 0;
    }
  }

  /** @param {number} length */
  #end(length) {
    if (length !== this.#received) {
      this.#fail(new Failure('BODY_TRUNCATED', 'The transfer ended early.'));
      return;
    }
    this.#ended = true;
    this.#port.forget(this.#id);
    if (this.#backlog.length === 0) this.#close(() => this.#controller?.close());
  }

  /** @param {Failure} failure */
  #fail(failure) {
    this.#close(() => {
      this.#answered.reject(failure);
      this.#controller?.error(new TypeError(`${failure.message} (${failure.reason})`));
    });
  }

  /** @param {unknown} reason */
  #abort(reason) {
    if (this.#closed) return;
    this.#port.send({ type: 'abort', id: this.#id });
    this.#close(() => {
      this.#answered.reject(new DOMException('aborted', 'AbortError'));
      try {
        this.#controller?.error(reason);
      } catch {
        // The stream was cancelled by its reader: nobody is left to hear of it.
      }
    });
  }

  /** @param {() => void} settle */
  #close(settle) {
    if (this.#closed) return;
    this.#closed = true;
    this.#port.forget(this.#id);
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#upload?.cancel();
    this.#backlog = [];
    settle();
    this.#done.resolve();
  }

  /** Sends body while there is credit; one run at a time. */
  async #sendBody() {
    const upload = this.#upload;
    if (!upload || this.#uploading) return;
    this.#uploading = true;
    try {
      while (this.#uploadCredit > 0 && !this.#closed) {
        const bytes = await upload.read(this.#uploadCredit);
        if (this.#closed) return;
        if (bytes === null) {
          this.#port.send({ type: 'body-end', id: this.#id, length: this.#uploaded });
          this.#upload = null;
          return;
        }
        this.#uploadCredit -= bytes.length;
        this.#uploaded += bytes.length;
        this.#port.send({ type: 'body', id: this.#id, bytes: bytes.buffer }, [bytes.buffer]);
      }
    } catch (error) {
      this.#abort(error);
    } finally {
      this.#uploading = false;
    }
  }
}
