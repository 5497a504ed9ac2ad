import assert from 'node:assert/strict';
import { test } from 'node:test';
import { patchPolicies, patchPolicy } from '../js/sw/csp.js';

const shim = { url: 'http://lab.home.localhost:8080/_portway/shim.js', origin: 'http://lab.home.localhost:8080', integrity: 'sha256-AAA=' };
const patched = (policy) => patchPolicy(policy, shim);

test('a policy that lets our own origin run scripts stays as it is', () => {
  for (const policy of ["default-src 'self'", "script-src 'self' 'unsafe-inline'; img-src *", 'img-src https:']) assert.equal(patched(policy), policy);
});

test('exactly our script is added', () => {
  assert.equal(patched('script-src https://cdn.example'), `script-src https://cdn.example ${shim.url}`);
  assert.equal(patched("script-src 'none'; object-src 'none'"), `script-src ${shim.url}; object-src 'none'`);
  assert.equal(patched("script-src a.b; script-src-elem 'none'"), `script-src a.b; script-src-elem ${shim.url}`);
});

test('a default is copied for script elements and not widened itself', () => {
  assert.equal(patched("default-src 'none'; img-src *"), `default-src 'none'; img-src *; script-src-elem ${shim.url}`);
});

test('unsafe-inline is not switched off by a hash', () => {
  assert.equal(patched("script-src x.example 'unsafe-inline'"), `script-src x.example 'unsafe-inline' ${shim.url}`);
});

test('strict-dynamic gets the hash, since addresses do not count there', () => {
  assert.equal(patched("script-src 'nonce-abc' 'strict-dynamic'"), "script-src 'nonce-abc' 'strict-dynamic' 'sha256-AAA='");
});

test('our own wrapper may frame the page, nobody else more than before', () => {
  assert.equal(patched("frame-ancestors 'none'"), "frame-ancestors 'self'");
  assert.equal(patched('frame-ancestors https://a.example'), "frame-ancestors https://a.example 'self'");
  assert.equal(patched("frame-ancestors 'self' https://a.example"), "frame-ancestors 'self' https://a.example");
});

test('every policy of every header is patched, and a nonce is found', () => {
  const headers = new Headers({ 'content-security-policy': "script-src 'nonce-Zm9v', default-src 'none'", 'x-frame-options': 'DENY' });
  assert.equal(patchPolicies(headers, shim), 'Zm9v');
  assert.equal(headers.get('content-security-policy'), `script-src 'nonce-Zm9v' ${shim.url}, default-src 'none'; script-src-elem ${shim.url}`);
  assert.equal(headers.get('x-frame-options'), 'SAMEORIGIN');
  assert.equal(patchPolicies(new Headers(), shim), '');
});
