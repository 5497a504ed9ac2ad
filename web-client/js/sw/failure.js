/**
 * A request that got no answer from the service, and what the page is given instead.
 */

/** Why a request failed. */
export class Failure extends Error {
  /**
   * @param {string} reason reason code
   * @param {string} message plain words
   * @param {{portLost?: boolean}} [how] `portLost`: the way to the connection worker died
   */
  constructor(reason, message, how = {}) {
    super(message);
    this.name = 'Failure';
    this.reason = reason;
    this.portLost = how.portLost ?? false;
  }
}

/** @returns {Failure} */
export function portLost() {
  return new Failure('SESSION_LOST', 'The connection to the machine was lost.', { portLost: true });
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
export function asFailure(error) {
  if (error instanceof Failure) return error;
  console.error('portway: a request failed', error);
  return new Failure('INTERNAL', 'Portway failed.');
}

/**
 * A readable answer that is not the service's.
 * @param {Failure} failure
 * @param {{page: boolean, retry: boolean}} kind `page`: a document is shown; `retry`: the wrapper may load it again
 * @returns {Response}
 */
export function failureResponse(failure, kind) {
  const status = failure.reason.endsWith('_TIMEOUT') ? 504 : 503;
  const headers = new Headers({ 'cache-control': 'no-store', 'portway-reason': failure.reason });
  if (!kind.page) {
    headers.set('content-type', 'text/plain; charset=utf-8');
    return new Response(`${failure.message} (${failure.reason})\n`, { status, headers });
  }
  headers.set('content-type', 'text/html; charset=utf-8');
  headers.set('content-security-policy', "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-ancestors 'self'");
  return new Response(failurePage(failure, kind.retry), { status, headers });
}

/**
 * @param {Failure} failure
 * @param {boolean} retry
 */
function failurePage(failure, retry) {
  const mark = retry ? `<meta name="portway-reason" content="${escapeText(failure.reason)}">` : '';
  const next = retry ? 'This page loads again by itself as soon as that helps.' : 'What was sent may not have arrived: go back and try again.';
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">${mark}<title>Not connected</title><link rel="stylesheet" href="/_portway/style.css"></head>
<body class="pw-page"><main class="pw-card"><h1>${escapeText(failure.message)}</h1><p>${next}</p>
<p class="pw-code">${escapeText(failure.reason)}</p></main></body></html>`;
}

/** @param {string} text */
function escapeText(text) {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}
