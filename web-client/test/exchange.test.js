import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BODY_CREDIT, MAX_CHUNK } from '../js/messages.js';
import { Exchange } from '../js/sw/exchange.js';
import { RequestPort } from '../js/sw/request_port.js';
import { fromBlob, fromStream } from '../js/sw/upload.js';

// Every supported browser has it; Node has it since 22.
Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const head = { method: 'GET', url: '/', headers: [], destination: '', mode: 'cors' };

/** A port whose other end is played by the test. */
function connected(t, { answersPings = true } = {}) {
  const { port1, port2 } = new MessageChannel();
  const heard = [];
  const waiting = [];
  let isOwnerAlive = true;
  port2.onmessage = ({ data }) => {
    if (data.type === 'ping') {
      if (answersPings) port2.postMessage({ type: 'pong', state: 'connected' });
      return;
    }
    const at = waiting.findIndex(({ type }) => type === data.type);
    if (at >= 0) waiting.splice(at, 1)[0].resolve(data);
    else heard.push(data);
  };
  t.after(() => {
    port1.close();
    port2.close();
  });
  return {
    port: new RequestPort(port1, async () => isOwnerAlive),
    say: (message) => port2.postMessage(message),
    /** The next message of this type. */
    hear(type) {
      const at = heard.findIndex((message) => message.type === type);
      if (at >= 0) return Promise.resolve(heard.splice(at, 1)[0]);
      return new Promise((resolve) => waiting.push({ type, resolve }));
    },
    loseOwner: () => (isOwnerAlive = false),
  };
}

async function answered(peer, signal = new AbortController().signal) {
  const exchange = new Exchange(peer.port, head, null, signal);
  const { id } = await peer.hear('request');
  peer.say({ type: 'response', id, status: 200, statusText: '', headers: [], cookies: '' });
  const { body } = await exchange.answered;
  return { id, body, reader: body.getReader() };
}

const chunk = (id, length) => ({ type: 'chunk', id, bytes: new ArrayBuffer(length) });

test('a body of the announced length ends', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const { id, reader } = await answered(peer);
  peer.say(chunk(id, 10));
  peer.say({ type: 'end', id, length: 10 });
  assert.equal((await reader.read()).value.length, 10);
  assert.equal((await reader.read()).done, true);
});

test('a short body is an error, never an end', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const { id, reader } = await answered(peer);
  peer.say(chunk(id, 10));
  peer.say({ type: 'end', id, length: 11 });
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  }, /BODY_TRUNCATED/);
});

test('credit is granted again only as the page reads', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const { id, reader } = await answered(peer);
  for (let sent = 0; sent < BODY_CREDIT; sent += MAX_CHUNK) peer.say(chunk(id, MAX_CHUNK));
  let read = 0;
  while (read < BODY_CREDIT / 4) read += (await reader.read()).value.length;
  assert.equal((await peer.hear('pull')).credit, BODY_CREDIT / 4);
});

test('a peer that ignores credit is cut off', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const { id, reader } = await answered(peer);
  for (let sent = 0; sent <= BODY_CREDIT + 2 * MAX_CHUNK; sent += MAX_CHUNK) peer.say(chunk(id, MAX_CHUNK));
  await peer.hear('abort');
  await assert.rejects(() => reader.read(), /PROTOCOL_VIOLATION/);
});

test('an abort travels to the worker, and the port serves the next request', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const controller = new AbortController();
  const { id, reader } = await answered(peer, controller.signal);
  peer.say(chunk(id, 10));
  await reader.read();
  controller.abort();
  assert.equal((await peer.hear('abort')).id, id);
  await assert.rejects(() => reader.read(), { name: 'AbortError' });
  const next = await answered(peer);
  peer.say({ type: 'end', id: next.id, length: 0 });
  assert.equal((await next.reader.read()).done, true);
});

test('a page that stops reading aborts the request', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const { id, reader } = await answered(peer);
  await reader.cancel();
  assert.equal((await peer.hear('abort')).id, id);
});

test('after an abort a lost owner still fails the next body', { timeout: 10_000 }, async (t) => {
  const peer = connected(t);
  const controller = new AbortController();
  const first = await answered(peer, controller.signal);
  controller.abort();
  await assert.rejects(() => first.reader.read());
  const { id, reader } = await answered(peer);
  peer.say(chunk(id, 10));
  await reader.read();
  peer.loseOwner();
  await assert.rejects(() => reader.read(), /SESSION_LOST/);
  assert.ok(peer.port.dead);
});

test('a silent worker fails what is under way', { timeout: 15_000 }, async (t) => {
  const peer = connected(t, { answersPings: false });
  const exchange = new Exchange(peer.port, head, null, new AbortController().signal);
  await assert.rejects(exchange.answered, { reason: 'SESSION_LOST', portLost: true });
});

test('a request body goes out within its credit, and its length is checked', { timeout: 5000 }, async (t) => {
  const peer = connected(t);
  const size = MAX_CHUNK + 10;
  const upload = fromBlob(new Blob([new Uint8Array(size)]));
  const exchange = new Exchange(peer.port, { ...head, method: 'POST' }, upload, new AbortController().signal);
  const { id, body } = await peer.hear('request');
  assert.equal(body, 'stream');
  peer.say({ type: 'body-pull', id, credit: 100 });
  assert.equal((await peer.hear('body')).bytes.byteLength, 100);
  peer.say({ type: 'body-pull', id, credit: size });
  let sent = 100;
  while (sent < size) sent += (await peer.hear('body')).bytes.byteLength;
  assert.equal((await peer.hear('body-end')).length, size);
  peer.say({ type: 'error', id, reason: 'UPSTREAM_TIMEOUT', message: 'late' });
  await assert.rejects(exchange.answered, { reason: 'UPSTREAM_TIMEOUT', portLost: false });
});

test('the length of a short stream is known before it is sent', async () => {
  const upload = await fromStream(new Blob([new Uint8Array(1000)]).stream());
  assert.equal(upload.length, 1000);
  assert.equal((await upload.read(600)).length, 600);
  assert.equal((await upload.read(600)).length, 400);
  assert.equal(await upload.read(600), null);
});
