import assert from 'node:assert/strict';
import { test } from 'node:test';
import { afterWrite } from '../js/shim/cookie_text.js';

const where = { path: '/lab/tree', now: Date.parse('2026-11-20T12:00:00Z') };
const write = (shown, text) => afterWrite(shown, text, where);

test('a write shows at once', () => {
  assert.equal(write('', 'a=1'), 'a=1');
  assert.equal(write('a=1; b=2', 'a=3; Path=/; SameSite=Lax'), 'a=3; b=2');
  assert.equal(write('a=1', ' b = x=y '), 'a=1; b=x=y');
  assert.equal(write('a=1', 'nameless'), 'a=1; nameless');
});

test('a write in the past takes the cookie away', () => {
  assert.equal(write('a=1; b=2', 'a=; Max-Age=0'), 'b=2');
  assert.equal(write('a=1', 'a=; expires=Thu, 01 Jan 1970 00:00:00 GMT'), '');
  assert.equal(write('a=1', 'a=2; Max-Age=60; expires=Thu, 01 Jan 1970 00:00:00 GMT'), 'a=2');
});

test('what this document would not see does not show', () => {
  assert.equal(write('a=1', 'b=2; path=/other'), 'a=1');
  assert.equal(write('a=1', 'b=2; path=/la'), 'a=1');
  assert.equal(write('a=1', 'b=2; path=/lab'), 'a=1; b=2');
  assert.equal(write('a=1', 'b=2; HttpOnly'), 'a=1');
  assert.equal(write('a=1', 'b=\u0001'), 'a=1');
  assert.equal(write('a=1', ''), 'a=1');
});
