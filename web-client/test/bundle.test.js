import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Script } from 'node:vm';
import { readFileSync } from 'node:fs';
import { bundle } from './bundle.js';

for (const entry of ['sw.js', 'shim.js']) {
  test(`${entry} is one valid classic script`, () => {
    const code = bundle(entry);
    assert.doesNotMatch(code, /^(import|export) /m);
    assert.doesNotThrow(() => new Script(code));
  });

  test(`no two rooms of ${entry} use the same name`, () => {
    const names = [...bundle(entry).matchAll(/^(?:async )?(?:function|class|const|let) (\w+)/gm)].map((match) => match[1]);
    assert.deepEqual(names.filter((name, i) => names.indexOf(name) !== i), []);
  });
}

test('every file that a wrapper loads is kept by the service worker', () => {
  const kept = readFileSync(new URL('../js/sw/assets.js', import.meta.url), 'utf8');
  const wrapper = readFileSync(new URL('../js/wrapper.js', import.meta.url), 'utf8');
  const imported = [...wrapper.matchAll(/^import .* from '\.\/(.*)';$/gm)].map((match) => match[1]);
  assert.ok(imported.length > 0);
  for (const name of imported) assert.ok(kept.includes(`'${name}'`), name);
});
