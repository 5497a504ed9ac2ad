// The same few cases wherever a script may run.

const PLACES = {
  'a frame': () => inFrame({ src: '/frame.html' }),
  'a frame of srcdoc': () => inFrame({ srcdoc: '<script src="/cases.js"></script>' }),
  'a frame of about:blank': () => inBlankFrame(),
  'a dedicated worker': () => inWorker(new Worker('/worker.js')),
  'a dedicated worker of a blob': () => inWorker(new Worker(URL.createObjectURL(new Blob([`importScripts('${location.origin}/worker.js')`])))),
  'a shared worker': () => inWorker(new SharedWorker('/worker.js').port),
};

/** The names of the cases that are played everywhere. */
const EVERYWHERE = ['1 text of 125', '1 binary of 65536', 'subprotocol: second of two', '7 server closes with 4999'];

/** Longest that a place may take. */
const PLACE_PATIENCE_MS = 30_000;

/** Plays all cases here and the few in every place. */
async function runEverything() {
  const outcomes = await runCases(Object.keys(CASES));
  for (const [place, play] of Object.entries(PLACES)) {
    const late = new Promise((resolve) => setTimeout(resolve, PLACE_PATIENCE_MS, {}));
    const got = await Promise.race([play(), late]).catch((error) => ({ [EVERYWHERE[0]]: [`not played: ${error}`] }));
    for (const name of EVERYWHERE) outcomes[`in ${place}: ${name}`] = got[name] ?? ['not played'];
  }
  return outcomes;
}

async function inFrame(attributes) {
  const frame = Object.assign(document.createElement('iframe'), attributes);
  document.body.append(frame);
  await new Promise((resolve) => (frame.onload = resolve));
  return frame.contentWindow.runCases(EVERYWHERE);
}

/** It has no script of its own: it is the class of its window that is used. */
async function inBlankFrame() {
  const frame = document.createElement('iframe');
  document.body.append(frame);
  return runCases(EVERYWHERE, frame.contentWindow.WebSocket);
}

function inWorker(port) {
  return new Promise((resolve, reject) => {
    port.onmessage = ({ data }) => resolve(data);
    port.onerror = () => reject(new Error('the worker failed'));
    port.postMessage(EVERYWHERE);
  });
}
