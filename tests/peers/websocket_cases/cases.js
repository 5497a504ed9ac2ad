// What is done with WebSockets, and a way to write down all that a page can notice of it.

/** Cases at a time. */
const AT_ONCE = 8;

/** Longest that a case may take, and one that does not end in every browser: Firefox waits 10 s for a close frame. */
const CASE_PATIENCE_MS = 120_000;
const ENDLESS_MS = 20_000;

const TEXT = 1, BINARY = 2;

const hex = (...parts) => parts.flatMap((part) => typeof part === 'string' ? [...new TextEncoder().encode(part)] : part)
  .map((byte) => byte.toString(16).padStart(2, '0')).join('');
/** A short frame of the server, from its first byte. */
const frame = (first, ...payload) => {
  const body = hex(...payload);
  return [(first & 0x0f) === 8 ? 'close' : 'raw', hex([first, body.length / 2]) + body];
};
const closeFrame = (code, reason = '') => frame(0x88, [code >> 8, code & 255], reason);
const text = (size) => Array.from({ length: Math.ceil(size / 8) }, (_, line) => `${line.toString(16).padStart(7, '0')}\n`).join('').slice(0, size);
const bytes = (size) => Uint8Array.from({ length: size }, (_, i) => (i * 31 >> 3) % 251);

/**
 * @typedef {object} Case
 * @property {object} [query] what the server does, see its `Part`
 * @property {any[]} [script] its steps
 * @property {string | string[]} [protocols]
 * @property {BinaryType} [binaryType]
 * @property {(socket: WebSocket, note: (what: string) => void) => void} [made] done at once
 * @property {(socket: WebSocket, note: (what: string) => void, go: () => Promise<unknown>) => unknown} [opened]
 * @property {number} [messages] after so many, `close` is called with
 * @property {any[]} [close] these
 * @property {(socket: WebSocket, note: (what: string) => void) => void} [ended] done at the end
 * @property {boolean} [isEndless] does not end everywhere
 * @property {boolean} [unseen] what the server notes is chance
 */

/** @type {Record<string, Case>} */
const CASES = {};

const echoes = (name, payload, more = {}) =>
  CASES[name] = { query: { echo: '' }, opened: (socket) => socket.send(payload()), messages: 1, close: [1000], ...more };
/** The server plays its steps when the page is ready: Firefox forgets `open` if frames that are wrong come with it. */
const plays = (name, ...script) => CASES[name] = { script: [['wait', 'message'], ...script], opened: (socket) => socket.send('go') };

for (const size of [0, 1, 125, 126, 127, 128, 65535, 65536]) {
  echoes(`1 text of ${size}`, () => text(size));
  echoes(`1 binary of ${size}`, () => bytes(size));
}
echoes('1 binary as a blob', () => bytes(1000), { binaryType: 'blob' });
echoes('1 a blob is sent', () => new Blob([bytes(1000)]));
echoes('1 a view of a buffer is sent', () => bytes(1000).subarray(10, 20));
echoes('1 a number is sent', () => 42);
echoes('1 text and blob keep their order', () => 'first', {
  opened: (socket) => { for (const each of ['first', new Blob(['second']), 'third', new Uint8Array([4])]) socket.send(each); },
  messages: 4,
});
echoes('1 a buffer that is changed after it was sent', () => '', {
  opened: (socket) => { const sent = bytes(100); socket.send(sent); sent.fill(0); },
});

const bye = closeFrame(1000);
plays('2 ping without payload', frame(0x89), bye);
plays('2 ping with payload', frame(0x89, 'hello'), bye);
plays('2 ping of 125', frame(0x89, text(125)), bye);
plays('2 ping of 126', ['raw', `897e007e${hex(text(126))}`]);
plays('2 ten pings', ...Array.from({ length: 10 }, (_, i) => frame(0x89, `${i}`)), bye);
plays('2 pong that nobody asked for', frame(0x8a, 'hello'), bye);
plays('2 ping in two writes', ['raw', '8905'], ['raw', hex('hello')], bye);
plays('2 ping in fragments', frame(0x09, 'hello'), frame(0x80, 'x'));

for (const bit of [0x40, 0x20, 0x10]) plays(`3 reserved bit ${bit}`, frame(0x81, 'good'), frame(0x81 | bit, 'bad'));
for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) plays(`4 reserved opcode ${opcode}`, frame(0x81, 'good'), frame(0x80 | opcode, 'x'));
plays('4 masked frame', ['raw', `818500000000${hex('hello')}`]);
plays('4 length in more bytes than needed', ['raw', `817e0005${hex('hello')}`], bye);
plays('4 length in eight bytes where one does', ['raw', `817f0000000000000005${hex('hello')}`], bye);
plays('4 length with the highest bit', ['raw', '827fffffffffffffffff']);

plays('5 two fragments', frame(0x01, 'fragment 1 '), frame(0x80, 'fragment 2'), bye);
plays('5 ping between fragments', frame(0x01, 'fragment 1 '), frame(0x89, 'ping'), frame(0x80, 'fragment 2'), bye);
plays('5 pong between fragments', frame(0x01, 'fragment 1 '), frame(0x8a, 'pong'), frame(0x80, 'fragment 2'), bye);
plays('5 empty fragments', frame(0x01), frame(0x00), frame(0x80), bye);
plays('5 empty fragments around text', frame(0x01), frame(0x00, 'text'), frame(0x80), bye);
plays('5 continuation of nothing', frame(0x80, 'x'));
plays('5 unfinished continuation of nothing', frame(0x00, 'x'), frame(0x80, 'y'));
plays('5 text within fragments', frame(0x01, 'a'), frame(0x81, 'b'));
plays('5 close between fragments', frame(0x01, 'a'), bye);
plays('5 fragments byte by byte', ...[...'in pieces'].map((each, i) => frame(i === 0 ? 0x01 : 0x00, each)), frame(0x80), bye);

const UTF8 = {
  'Greek': [[0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xcf, 0x83, 0xce, 0xbc, 0xce, 0xb5], true],
  'first of 4 bytes': [[0xf0, 0x90, 0x80, 0x80], true],
  'last code point': [[0xf4, 0x8f, 0xbf, 0xbf], true],
  'beyond the last code point': [[0xf4, 0x90, 0x80, 0x80], false],
  'noncharacter': [[0xef, 0xbf, 0xbf], true],
  'byte order mark': [[0xef, 0xbb, 0xbf, 0x61], true],
  'NUL': [[0x00, 0x61], true],
  'continuation alone': [[0x80], false],
  'start alone': [[0xc3], false],
  'cut after two of three': [[0xe1, 0xbd], false],
  'overlong slash': [[0xc0, 0xaf], false],
  'overlong NUL in three': [[0xe0, 0x80, 0x80], false],
  'surrogate': [[0xed, 0xa0, 0x80], false],
  'pair of surrogates': [[0xed, 0xa0, 0x80, 0xed, 0xb0, 0x80], false],
  'five bytes': [[0xf8, 0x88, 0x80, 0x80, 0x80], false],
  'FE': [[0xfe], false],
  'invalid after valid': [[0x61, 0x62, 0xff], false],
};
for (const [name, [code, isValid]] of Object.entries(UTF8)) {
  plays(`6 ${name}`, frame(0x81, code), ...(isValid ? [bye] : []));
  plays(`6 ${name}, byte by byte`, ...code.map((each, i) => frame(i === 0 ? 0x01 : 0x00, [each])), frame(0x80), ...(isValid ? [bye] : []));
}
plays('6 invalid in a message that does not end', frame(0x01, [0xff]));
plays('6 invalid in a frame that does not end', ['raw', `8164${hex([0x61, 0xff])}`]);
for (const name of ['6 invalid in a message that does not end', '6 invalid in a frame that does not end', '4 masked frame']) CASES[name].isEndless = true;
plays('6 bytes need not be UTF-8', frame(0x82, [0xff, 0xc0]), bye);
echoes('6 lone surrogates are replaced', () => 'a\ud800b\udc00');

const GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
const BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
for (const code of [...GOOD_CODES, ...BAD_CODES]) {
  plays(`7 server closes with ${code}`, closeFrame(code, 'why'));
  echoes(`7 page closes with ${code}`, () => 'x', { close: [code, 'why'] });
}
for (const size of [0, 1, 122, 123]) {
  plays(`7 server gives a reason of ${size}`, closeFrame(1000, text(size)));
  echoes(`7 page gives a reason of ${size}`, () => 'x', { close: [1000, text(size)] });
}
plays('7 server gives a reason of 124', ['close', `887e007e03e8${hex(text(124))}`]);
echoes('7 page gives a reason of 124', () => 'x', { close: [1000, text(124)] });
echoes('7 page gives a reason of 62 umlauts', () => 'x', { close: [1000, 'ä'.repeat(62)] });
echoes('7 page gives a reason of 61 umlauts', () => 'x', { close: [1000, 'ä'.repeat(61)] });
echoes('7 page gives a lone surrogate as reason', () => 'x', { close: [1000, '\ud800'] });
plays('7 server gives a reason that is not UTF-8', frame(0x88, [0x03, 0xe8, 0xff]));
plays('7 server gives a reason beyond ASCII', closeFrame(1000, 'grüße'));
plays('7 server closes without a code', frame(0x88));
plays('7 server closes with one byte', frame(0x88, [3]));
plays('7 server closes in fragments', frame(0x08, [0x03, 0xe8]));
echoes('7 page closes without a code', () => 'x', { close: [] });
for (const [name, args] of Object.entries({
  'a reason alone': [undefined, 'why'], 'undefined': [undefined, undefined], 'null': [null], 'a string': ['3001'], 'a fraction': [3000.5], 'NaN': [NaN],
  'more than 16 bits': [66536], 'nonsense': ['nonsense'], 'a number as reason': [3000, 42], 'null as reason': [3000, null], 'undefined as reason': [3000, undefined],
})) echoes(`7 page closes with ${name}`, () => 'x', { close: args });
plays('7 data after the close', closeFrame(1000, 'end'), frame(0x81, 'late'));
plays('7 ping after the close', closeFrame(1000, 'end'), frame(0x89, 'late'));
plays('7 two closes', closeFrame(1000, 'one'), closeFrame(1001, 'two'));
plays('7 TCP ends without a close', frame(0x81, 'x'), ['drop']);
plays('7 TCP ends within a frame', ['raw', '8105'], ['drop']);
plays('7 TCP ends within a message', frame(0x01, 'x'), ['drop']);
CASES['7 TCP is reset'] = { opened: (socket) => socket.send('x'), script: [['wait', 'message'], ['reset']] };
CASES['7 data until the close is answered'] = {
  script: [['wait', 'close'], frame(0x81, 'late'), frame(0x89, 'late')], opened: (socket) => socket.close(3000, 'mine'),
};
CASES['7 both close at once'] = { script: [['wait', 'close'], closeFrame(3001, 'yours')], opened: (socket) => socket.close(3000, 'mine') };
CASES['7 a close that is not answered'] = { isEndless: true, query: { silent: '' }, opened: (socket) => socket.close(3000, 'mine') };
CASES['7 TCP ends in place of an answer'] = { query: { silent: '' }, script: [['wait', 'close'], ['drop']], opened: (socket) => socket.close(3000, 'mine') };
CASES['7 closed twice'] = { opened: (socket, note) => { socket.close(3000, 'one'); socket.close(3001, 'two'); note(`state ${socket.readyState}`); } };
CASES['7 sent while closing'] = {
  opened: (socket, note) => { socket.close(); socket.send('12345'); note(`buffered ${socket.bufferedAmount}`); },
};
CASES['7 sent after the end'] = {
  script: [bye],
  ended: (socket, note) => { socket.send('12345'); socket.send(bytes(10)); note(`buffered ${socket.bufferedAmount}`); socket.close(); note(`state ${socket.readyState}`); },
};
CASES['7 closed with all sent before'] = {
  opened: (socket) => { for (let i = 0; i < 200; i++) socket.send(`${i}`); socket.send(new Blob(['last'])); socket.close(3000); },
};
plays('7 messages right before the close', ['burst', 300], closeFrame(4000, 'all said'));

for (const mebibytes of [1, 4, 16]) {
  for (const [kind, opcode] of Object.entries({ text: TEXT, binary: BINARY })) {
    for (const fragments of [1, 64]) {
      plays(`9 ${mebibytes} MiB of ${kind} in ${fragments} from the server`, ['message', opcode, mebibytes << 20, fragments], bye);
    }
  }
  echoes(`9 ${mebibytes} MiB of text there and back`, () => text(mebibytes << 20));
  echoes(`9 ${mebibytes} MiB of binary there and back`, () => bytes(mebibytes << 20));
}
plays('9 1 MiB in fragments of 64 bytes', ['message', BINARY, 1 << 20, 1 << 14], bye);
plays('9 a burst from the server', ['burst', 5000], bye);
echoes('9 a burst there and back', () => '', { opened: (socket) => { for (let i = 0; i < 1000; i++) socket.send(`${i}`); }, messages: 1000 });

CASES['10 a server that reads slowly'] = {
  query: { echo: '' }, script: [['wait', 'go']], messages: 32, close: [1000],
  opened: async (socket, note, go) => {
    for (let i = 0; i < 32; i++) socket.send(bytes(1 << 20));
    // More than any buffer on the way: it cannot go while the server does not read.
    note(`all waits: ${socket.bufferedAmount === 32 << 20}`);
    // Nothing tells that nothing happens.
    await new Promise((resolve) => setTimeout(resolve, 500));
    note(`much waits: ${socket.bufferedAmount > 8 << 20}`);
    await go();
  },
  ended: (socket, note) => note(`waits: ${socket.bufferedAmount}`),
};
CASES['10 what waits'] = {
  query: { echo: '' }, messages: 4, close: [1000],
  opened: (socket, note) => {
    for (const each of ['hello', 'grüße', new Uint8Array(10), new Blob(['blob'])]) {
      socket.send(each);
      note(`waits: ${socket.bufferedAmount}`);
    }
  },
  ended: (socket, note) => note(`waits: ${socket.bufferedAmount}`),
};

CASES['12 compression'] = { query: { deflate: '' }, script: [['compressed', 'a'.repeat(1000)], ['wait', 'close']], messages: 1, close: [1000] };
CASES['12 no compression, for the server knows none'] = { query: { echo: '' }, opened: (socket) => socket.send('a'.repeat(1000)), messages: 1, close: [1000] };
CASES['12 an extension that nobody offered'] = { query: { extensions: 'x-nobody', echo: '' } , opened: (socket) => socket.close() };

const offers = (name, protocols, protocol) =>
  CASES[`subprotocol: ${name}`] = { protocols, query: protocol === undefined ? {} : { protocol }, opened: (socket) => socket.close(1000) };
offers('none of none', [], undefined);
offers('one as a string', 'chat', 'chat');
offers('one of one', ['chat'], 'chat');
offers('second of two', ['chat', 'superchat'], 'superchat');
offers('none of two', ['chat', 'superchat'], undefined);
offers('one that was not offered', ['chat'], 'other');
offers('one of none', [], 'chat');
offers('two at once', ['chat', 'superchat'], 'chat, superchat');
offers('in another case', ['chat'], 'CHAT');
offers('an empty one', ['chat'], '');

for (const status of [200, 204, 301, 302, 307, 400, 401, 403, 404, 407, 426, 500, 503]) CASES[`handshake: ${status}`] = { query: { status } };
CASES['handshake: a wrong key'] = { query: { accept: 'wrong' } };
CASES['handshake: never answered, closed at once'] = { unseen: true, query: { status: 'never' }, made: (socket, note) => { socket.close(3000, 'mine'); note(`state ${socket.readyState}`); } };
CASES['handshake: never answered, closed later'] = {
  query: { status: 'never' }, made: (socket, note) => setTimeout(() => { socket.close(); note(`state ${socket.readyState}`); }, 1000),
};
CASES['handshake: closed at once'] = { unseen: true, query: { echo: '' }, made: (socket, note) => { socket.close(); note(`state ${socket.readyState}`); } };
CASES['handshake: sent before it is open'] = {
  query: { echo: '' }, opened: (socket) => socket.close(),
  made: (socket, note) => { note(thrown(() => socket.send('early'))); note(`buffered ${socket.bufferedAmount}`); },
};

/** What a call throws. */
function thrown(call) {
  try {
    call();
    return 'nothing thrown';
  } catch (error) {
    return `throws ${error.name}${error instanceof DOMException ? ` ${error.code}` : ''}`;
  }
}

/** Needs no server: what the class itself is like. */
const QUERIES = {
  'class: addresses': (WebSocket) => ['relative', '/x y', 'http://', 'ftp://localhost/', 'ws://', 'ws://localhost/#fragment', 'ws://localhost/#', 'ws://local host/', 'mailto:x@localhost', 'ws://localhost:99999/']
    .map((url) => `${url}: ${made(() => new WebSocket(url))}`),
  'class: subprotocols': (WebSocket) => [['a', 'a'], ['a', 'A'], [''], [' '], ['a b'], ['a,b'], ['ä'], ['a\r\nb'], '', [null], null, undefined, 42, {}, [1, 2], new Set(['a', 'b'])]
    .map((each, index) => `${index}: ${made(() => new WebSocket('/ws?id=class&echo', each))}`),
  'class: how it is called': (WebSocket) => [
    made(() => new WebSocket()), thrown(() => WebSocket('/ws')), thrown(() => WebSocket.prototype.send.call({}, 'x')), thrown(() => WebSocket.prototype.readyState),
    thrown(() => new WebSocket('/ws?id=class&status=404').send()), thrown(() => new WebSocket('/ws?id=class&status=404').close(1)),
  ],
  'class: what it looks like': (WebSocket) => [
    WebSocket.name, WebSocket.length, String(WebSocket.prototype), Object.prototype.toString.call(WebSocket.prototype), WebSocket.CONNECTING, WebSocket.OPEN, WebSocket.CLOSING, WebSocket.CLOSED,
    WebSocket.prototype.CLOSED, WebSocket.prototype.send.length, WebSocket.prototype.close.length, Object.getPrototypeOf(WebSocket.prototype) === EventTarget.prototype,
    Object.keys(WebSocket.prototype).sort().join(), Object.keys(WebSocket).sort().join(), thrown(() => { 'use strict'; WebSocket.OPEN = 7; }), 'WebSocket' in globalThis,
    Object.keys(globalThis).includes('WebSocket'),
  ].map(String),
  'class: a socket': (WebSocket) => {
    const socket = new WebSocket('/ws?id=class&echo');
    const before = [socket.readyState, socket.bufferedAmount, socket.protocol, socket.extensions, socket.binaryType, socket.onopen, socket.url.replace(location.host, 'HOST'), socket instanceof WebSocket, socket instanceof EventTarget, String(socket)];
    socket.binaryType = 'arraybuffer';
    const changed = socket.binaryType;
    socket.binaryType = 'nonsense';
    const handler = () => undefined;
    socket.onclose = handler;
    const kept = socket.onclose === handler;
    socket.onclose = 'no function';
    const cleared = socket.onclose;
    socket.close();
    return [...before, changed, socket.binaryType, kept, cleared, socket.readyState].map(String);
  },
};

for (const name of Object.keys(QUERIES)) CASES[name] = {};

/** What a constructor throws; what it makes is closed. */
function made(make) {
  return thrown(() => {
    const socket = make();
    socket.onerror = (event) => event.preventDefault();
    socket.close();
  });
}

const show = (value) => value.length <= 64 ? JSON.stringify(value) : `${value.length} ${hash(value)}`;

/** FNV-1a over units of text or bytes. */
function hash(value) {
  let state = 0x811c9dc5;
  for (let i = 0; i < value.length; i++) state = Math.imul(state ^ (typeof value === 'string' ? value.charCodeAt(i) : value[i]), 0x01000193);
  return (state >>> 0).toString(16);
}

async function shown(data) {
  if (typeof data === 'string') return `text ${show(data)}`;
  const kind = data instanceof Blob ? `blob ${JSON.stringify(data.type)}` : Object.prototype.toString.call(data);
  const content = new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data);
  return `${kind} ${content.length <= 64 ? hex([...content]) : `${content.length} ${hash(content)}`}`;
}

let runs = 0;

/**
 * Plays one case.
 * @param {string} name
 * @param {typeof globalThis.WebSocket} WebSocket of the window where it shall happen
 * @returns {Promise<string[]>} what happened, in order; then what the server noted
 */
async function play(name, WebSocket) {
  if (QUERIES[name]) return QUERIES[name](WebSocket);
  const { query = {}, script = [], protocols, binaryType = 'arraybuffer', made, opened, messages, close, ended, isEndless, unseen } = CASES[name];
  const id = `${Date.now()}-${Math.random()}-${runs++}`;
  const address = `/ws?${new URLSearchParams({ id, script: JSON.stringify(script), ...query })}`;
  /** @type {(string | Promise<string>)[]} */
  const notes = [];
  const note = (what) => void notes.push(what);
  const socket = new WebSocket(new URL(address, self.origin).href.replace('http', 'ws'), ...(protocols === undefined ? [] : [protocols]));
  const origin = new URL(socket.url).origin;
  socket.binaryType = binaryType;
  let all = '', got = 0, started = Promise.resolve();
  await new Promise((resolve) => {
    const late = setTimeout(() => {
      note(`no end, state ${socket.readyState}`);
      resolve();
      socket.close();
    }, isEndless ? ENDLESS_MS : CASE_PATIENCE_MS);
    socket.onopen = (event) => {
      note(`open ${event.constructor.name} ${JSON.stringify(socket.protocol)} ${JSON.stringify(socket.extensions)} ${socket.readyState}`);
      started = Promise.resolve(opened?.(socket, note, () => fetch(`${self.origin}/go?id=${id}`)));
    };
    socket.onmessage = (event) => {
      if (++got <= 100) note(shown(event.data));
      if (event.origin !== origin || event.target !== socket) note(`from ${event.origin}`);
      else if (got > 100) all = hash(`${all} ${event.data}`);
      if (got === messages) note(thrown(() => socket.close(...close)));
    };
    socket.onerror = (event) => note(`error ${event.constructor.name} ${socket.readyState}`);
    socket.onclose = (event) => {
      note(`close ${event.code} ${JSON.stringify(event.reason)} ${event.wasClean ? 'clean' : 'not clean'} ${socket.readyState}`);
      if (got > 100) note(`${got} messages, ${all}`);
      ended?.(socket, note);
      clearTimeout(late);
      resolve();
    };
    made?.(socket, note);
    // A `close` that throws leaves it open.
    if (close) socket.addEventListener('message', () => { if (got === messages && socket.readyState === 1) socket.close(); });
  });
  await started;
  const seen = unseen ? [] : await fetch(`${self.origin}/seen?id=${id}`).then((response) => response.json());
  return [...await Promise.all(notes), ...seen.map((each) => `server: ${each}`)];
}

/** @returns {Promise<Record<string, string[]>>} by name */
async function runCases(names, WebSocket = globalThis.WebSocket) {
  const outcomes = {};
  const queue = [...names];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let name; (name = queue.shift()) !== undefined; ) {
      outcomes[name] = await play(name, WebSocket).catch((error) => [`not played: ${error}`]);
    }
  }));
  return outcomes;
}
