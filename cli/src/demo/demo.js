// The demo page: measures the connection that it came over.
'use strict';

const MIB = 1024 * 1024;

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** Runs one measurement behind its button; an error is shown where the figure would be. */
function measure(id, run) {
  const button = /** @type {HTMLButtonElement} */ (element(`${id}-go`));
  button.addEventListener('click', async () => {
    button.disabled = true;
    element(id).textContent = '…';
    try {
      element(id).textContent = await run();
    } catch (error) {
      element(id).textContent = String(error);
    } finally {
      button.disabled = false;
    }
  });
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const rate = (bytes, since) => `${(bytes / MIB / ((performance.now() - since) / 1000)).toFixed(1)} MiB/s`;

measure('rtt', async () => {
  const times = [];
  for (let i = 0; i < 20; i += 1) {
    const start = performance.now();
    await (await fetch('ping', { cache: 'no-store' })).text();
    times.push(performance.now() - start);
  }
  return `${median(times).toFixed(1)} ms`;
});

measure('down', async () => {
  const start = performance.now();
  const response = await fetch(`bytes/${32 * MIB}`, { cache: 'no-store' });
  let received = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    received += value.length;
    element('down').textContent = `${(received / MIB).toFixed(0)} MiB`;
  }
  if (received !== 32 * MIB) throw new Error(`only ${received} bytes came`);
  return rate(received, start);
});

measure('up', async () => {
  const start = performance.now();
  const response = await fetch('sink', { method: 'POST', body: new Uint8Array(16 * MIB) });
  if (Number(await response.text()) !== 16 * MIB) throw new Error('bytes were lost');
  return rate(16 * MIB, start);
});

measure('ws', () => new Promise((resolve, reject) => {
  const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/echo`);
  const times = [];
  let start = 0;
  const next = () => {
    start = performance.now();
    socket.send(`echo ${times.length}`);
  };
  socket.addEventListener('open', next);
  socket.addEventListener('error', () => reject(new Error('no WebSocket')));
  socket.addEventListener('message', () => {
    times.push(performance.now() - start);
    if (times.length < 20) return next();
    socket.close();
    return resolve(`${median(times).toFixed(1)} ms`);
  });
}));

const PATHS = {
  direct: ['Direct', 'packets go straight from the machine to this browser'],
  relayed: ['Relayed', 'a relay passes packets on; it cannot read them'],
};

fetch('where').then((response) => response.json()).then(({ host, path }) => {
  element('host').textContent = host;
  const [name, words] = PATHS[path] ?? ['Local', 'this page did not come over Portway'];
  element('path').textContent = name;
  element('path-words').textContent = words;
});
