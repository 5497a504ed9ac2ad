/**
 * Lets exactly our script into a page's Content-Security-Policy, and our own wrapper frame it.
 * Nothing else of a policy changes. Pure.
 */

/**
 * @typedef {object} Shim
 * @property {string} url its absolute address
 * @property {string} origin
 * @property {string} integrity `sha256-…`
 */

/**
 * @typedef {{name: string, sources: string[]}} Directive
 */

/**
 * Patches the policy and framing headers of a document, in place.
 * @param {Headers} headers
 * @param {Shim} shim
 * @returns {string} a nonce that the page's policy asks for, or nothing
 */
export function patchPolicies(headers, shim) {
  let nonce = '';
  for (const name of ['content-security-policy', 'content-security-policy-report-only']) {
    const value = headers.get(name);
    if (value === null) continue;
    const policies = value.split(',').filter((policy) => policy.trim() !== '');
    headers.set(name, policies.map((policy) => patchPolicy(policy, shim)).join(', '));
    if (name === 'content-security-policy') nonce = policies.map(nonceOf).find((found) => found !== '') ?? '';
  }
  if (headers.has('x-frame-options')) headers.set('x-frame-options', 'SAMEORIGIN');
  return nonce;
}

/**
 * @param {string} policy one serialised policy
 * @param {Shim} shim
 * @returns {string}
 */
export function patchPolicy(policy, shim) {
  const directives = parse(policy);
  const find = (/** @type {string} */ name) => directives.find((directive) => directive.name === name);
  const scripts = find('script-src-elem') ?? find('script-src');
  const fallback = find('default-src');
  if (scripts) {
    scripts.sources = allowed(scripts.sources, shim);
  } else if (fallback) {
    const sources = allowed(fallback.sources, shim);
    if (sources !== fallback.sources) directives.push({ name: 'script-src-elem', sources });
  }
  const ancestors = find('frame-ancestors');
  if (ancestors) ancestors.sources = framedByUs(ancestors.sources, shim.origin);
  return directives.map(({ name, sources }) => [name, ...sources].join(' ')).join('; ');
}

/**
 * @param {string} policy
 * @returns {Directive[]}
 */
function parse(policy) {
  /** @type {Directive[]} */
  const directives = [];
  for (const part of policy.split(';')) {
    const [name = '', ...sources] = part.trim().split(/[\t\n\f\r ]+/);
    if (name !== '') directives.push({ name: name.toLowerCase(), sources });
  }
  return directives;
}

/**
 * A source list that lets the shim run. A hash is added only where addresses do not count
 * (`strict-dynamic`): elsewhere it would switch the page's own `unsafe-inline` off.
 * @param {string[]} sources
 * @param {Shim} shim
 * @returns {string[]} the same list if nothing had to change
 */
function allowed(sources, shim) {
  const lower = sources.map((source) => source.toLowerCase());
  if (lower.includes("'strict-dynamic'")) return [...sources, `'${shim.integrity}'`];
  if (lower.includes("'self'")) return sources;
  return [...sources.filter((source) => source.toLowerCase() !== "'none'"), shim.url];
}

/**
 * @param {string[]} sources
 * @param {string} origin
 */
function framedByUs(sources, origin) {
  const lower = sources.map((source) => source.toLowerCase());
  if (lower.includes("'self'") || lower.includes('*') || lower.includes(origin)) return sources;
  return [...sources.filter((source) => source.toLowerCase() !== "'none'"), "'self'"];
}

/** @param {string} policy */
function nonceOf(policy) {
  const directives = parse(policy);
  const scripts = ['script-src-elem', 'script-src', 'default-src']
    .map((name) => directives.find((directive) => directive.name === name))
    .find((directive) => directive !== undefined);
  const source = scripts?.sources.find((each) => /^'nonce-[A-Za-z0-9+/_=-]+'$/i.test(each));
  return source ? source.slice(7, -1) : '';
}
