import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HEAD_LIMIT, extendsAscii, injector, insertionPoint, isHtml, scriptTag } from '../js/sw/html.js';

const bytes = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const split = (html) => {
  const at = insertionPoint(bytes(html), true);
  return `${html.slice(0, at)}|${html.slice(at)}`;
};

async function injected(chunks, contentType = 'text/html') {
  const stream = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  }).pipeThrough(injector(contentType, '<X>'));
  let text = '';
  for await (const chunk of stream) text += String.fromCharCode(...chunk);
  return text;
}

const cases = [
  ['after the head tag', '<!doctype html><html><head>|<title>'],
  ['attributes with > in quotes', '<html lang="a>b"><head data-x=\'>\'>|<meta>'],
  ['upper case, spaces, comments', '\n<!-- <head> --> <!DOCTYPE HTML><HTML>\n<HEAD >|x'],
  ['no head: after html, before the first tag', '<!doctype html><html>|<body>hi'],
  ['header is no head', '<!doctype html>|<header>hi</header>'],
  ['text only', '|hello'],
  ['a doctype stays first', '<!doctype html>|<script>1</script>'],
  ['comments that end at once', '<!--><!--->|<p>'],
  ['a comment ended by --!>', '<!-- a --!>|<p>'],
  ['byte order mark', '\u00ef\u00bb\u00bf<html><head>|'],
  ['an xml declaration', '<?xml version="1.0"?><!doctype html><html><head>|'],
  ['nothing', '|'],
];
for (const [name, expected] of cases) {
  test(`the tag goes in the right place: ${name}`, () => assert.equal(split(expected.replace('|', '')), expected));
}

test('the result does not depend on how the bytes are cut', async () => {
  const html = '<!doctype html><!-- c --><html lang="x"><head id="y"><title>t</title></head><body>\u00e4</body></html>';
  const expected = html.replace('<title>', '<X><title>');
  for (let size = 1; size < html.length; size++) {
    const chunks = [];
    for (let at = 0; at < html.length; at += size) chunks.push(bytes(html.slice(at, at + size)));
    assert.equal(await injected(chunks), expected, `chunks of ${size}`);
  }
});

test('no more than the limit is held back', async () => {
  const long = `<!-- ${'x'.repeat(HEAD_LIMIT)} --><p>`;
  assert.equal(await injected([bytes(long)]), `<X>${long}`);
});

test('the body goes on before it has ended', async () => {
  const { readable, writable } = injector('text/html', '<X>');
  const writer = writable.getWriter();
  void writer.write(bytes('<html><head><title>a'));
  const reader = readable.getReader();
  assert.equal(String.fromCharCode(...(await reader.read()).value), '<html><head>');
  assert.equal(String.fromCharCode(...(await reader.read()).value), '<X>');
});

test('UTF-16 is left alone', async () => {
  assert.equal(extendsAscii('text/html; charset="UTF-16LE"', bytes('<')), false);
  assert.equal(extendsAscii('text/html', Uint8Array.of(0xff, 0xfe)), false);
  assert.equal(await injected([Uint8Array.of(0xfe, 0xff, 0, 60)]), '\u00fe\u00ff\u0000<');
});

test('the tag is ASCII and cannot be broken out of', () => {
  assert.equal(scriptTag('/s.js', { 'data-cookies': 'a="<>&ä€𝄞' }), '<script src="/s.js" data-cookies="a=&#34;&#60;&#62;&#38;&#228;&#8364;&#119070;"></script>');
});

test('only html is html', () => {
  assert.ok(isHtml('text/html; charset=utf-8') && isHtml(' TEXT/HTML'));
  assert.ok(!isHtml('text/html-sandboxed') && !isHtml('application/xhtml+xml') && !isHtml(''));
});
