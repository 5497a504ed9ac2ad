// A dedicated or a shared worker: runs the cases that it is told and says what came of them.
importScripts(`${self.origin}/cases.js`);

const serve = (port) => {
  port.onmessage = async ({ data }) => port.postMessage(await runCases(data));
};
if ('onconnect' in self) self.onconnect = ({ ports }) => serve(ports[0]);
else serve(self);
