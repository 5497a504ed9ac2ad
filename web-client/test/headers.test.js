import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachment, codingsOf, hasNullBody, refererOf, requestHeaders, responseHeaders } from '../js/sw/headers.js';

const origin = 'http://lab.home.localhost:8080';

test('a page cannot set what only Portway sets', () => {
  const request = {
    headers: new Headers([['accept', '*/*'], ['portway-origin', 'x'], ['content-length', '9'], ['x-mine', '1'], ['te', 'trailers']]),
    referrer: `${origin}/a?b#c`, referrerPolicy: '', method: 'POST', mode: 'cors',
  };
  assert.deepEqual(requestHeaders(request, origin), [['accept', '*/*'], ['x-mine', '1'], ['referer', `${origin}/a?b`], ['origin', origin]]);
});

test('the referrer policy holds', () => {
  assert.equal(refererOf(`${origin}/a?b#c`, 'no-referrer', origin), '');
  assert.equal(refererOf(`${origin}/a?b#c`, 'strict-origin', origin), `${origin}/`);
  assert.equal(refererOf('https://other.example/secret', '', origin), 'https://other.example/');
  assert.equal(refererOf('about:client', '', origin), '');
});

test('cookies and connection headers never reach a made response', () => {
  const headers = responseHeaders([['Set-Cookie', 'a=b'], ['Transfer-Encoding', 'chunked'], ['X-A', '1'], ['x-a', '2'], ['bad name', 'x'], ['x-bad', 'a\nb']]);
  assert.deepEqual([...headers], [['x-a', '1, 2']]);
});

test('codings are undone in reverse order, unknown ones are refused', () => {
  assert.deepEqual(codingsOf(new Headers({ 'content-encoding': 'deflate, GZIP' })), ['gzip', 'deflate']);
  assert.deepEqual(codingsOf(new Headers({ 'content-encoding': 'identity' })), []);
  assert.equal(codingsOf(new Headers({ 'content-encoding': 'zstd' })), null);
});

test('a file name survives, and cannot add a header', () => {
  assert.equal(attachment('a b.txt'), `attachment; filename="a b.txt"; filename*=UTF-8''a%20b.txt`);
  assert.equal(attachment('ä"\r\n.txt'), `attachment; filename="____.txt"; filename*=UTF-8''%C3%A4%22%0D%0A.txt`);
  assert.equal(attachment(''), 'attachment');
});

test('null-body statuses are known', () => {
  assert.deepEqual([200, 204, 205, 304, 404].map(hasNullBody), [false, true, true, true, false]);
});
