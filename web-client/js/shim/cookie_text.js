/**
 * What a script's write does to the text that `document.cookie` shows. The jar at the holder
 * decides; this is the answer until it has. Pure.
 */

/**
 * @param {string} shown
 * @param {string} written the text assigned to `document.cookie`
 * @param {{path: string, now: number}} where path of the document, clock
 * @returns {string}
 */
export function afterWrite(shown, written, { path, now }) {
  const [pair = '', ...rest] = written.split(';');
  const cookie = parsePair(pair);
  if (cookie === null || /[\u0000-\u0008\u000a-\u001f\u007f]/.test(written)) return shown;
  let isGone = false;
  let hasMaxAge = false;
  for (const part of rest) {
    const [name = '', ...values] = part.split('=');
    const value = values.join('=').trim();
    switch (name.trim().toLowerCase()) {
      case 'httponly':
        return shown;
      case 'path':
        if (value.startsWith('/') && !isWithin(path, value)) return shown;
        break;
      case 'max-age':
        if (/^-?\d+$/.test(value)) {
          hasMaxAge = true;
          isGone = Number(value) <= 0;
        }
        break;
      case 'expires':
        if (!hasMaxAge) isGone = Date.parse(value) <= now;
        break;
      default:
        break;
    }
  }
  const cookies = shown === '' ? [] : shown.split('; ');
  const at = cookies.findIndex((each) => parsePair(each)?.name === cookie.name);
  if (isGone) return cookies.filter((_, i) => i !== at).join('; ');
  const text = cookie.name === '' ? cookie.value : `${cookie.name}=${cookie.value}`;
  return (at < 0 ? [...cookies, text] : cookies.map((each, i) => (i === at ? text : each))).join('; ');
}

/**
 * @param {string} text `name=value`
 * @returns {{name: string, value: string} | null}
 */
export function parsePair(text) {
  const equals = text.indexOf('=');
  const name = equals < 0 ? '' : text.slice(0, equals).trim();
  const value = text.slice(equals + 1).trim();
  return name === '' && value === '' ? null : { name, value };
}

/**
 * Path matching of RFC 6265 §5.1.4.
 * @param {string} path
 * @param {string} scope
 */
function isWithin(path, scope) {
  if (!path.startsWith(scope)) return false;
  return path.length === scope.length || scope.endsWith('/') || path[scope.length] === '/';
}
