/**
 * The rule by which the build makes one classic script of rooms, for tests; `xtask` has the same.
 */
import { readFileSync } from 'node:fs';

const FOLDER = new URL('../js/', import.meta.url);

/**
 * @param {string} entry e.g. `sw.js`; its first line names the rooms
 * @returns {string}
 */
export function bundle(entry) {
  const main = readFileSync(new URL(entry, FOLDER), 'utf8');
  const [, rooms] = /^\/\/ rooms: (.*)\n/.exec(main) ?? [];
  const files = [...rooms.split(' ').map((room) => readFileSync(new URL(room, FOLDER), 'utf8')), main];
  const code = files.map((text) => text.replace(/^import .*\n/gm, '').replace(/^export /gm, ''));
  return `(() => {\n'use strict';\n${code.join('\n')}})();\n`;
}
