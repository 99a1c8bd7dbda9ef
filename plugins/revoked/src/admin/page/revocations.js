// The list of revocations: searched, kept up to date, and taken back from.

import { Refused, call } from '/api.js';
import { KIND_NAMES, ask, byId, element, fail, foreign, kind, moment, number, say, scope } from '/text.js';

const PAGE = 50;
/** More rows than that are no longer read, but waited for. */
const MOST_ROWS = 500;

let shownFor = '';
let next = null;
let newer = 0;
let reading = 0;
/** What happened while the list was being read: it may lack that. */
let meanwhile = null;

export function setUp() {
  for (const name of KIND_NAMES) byId('scope').append(element('option', { value: name }, name));
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    load();
  });
  byId('scope').addEventListener('change', () => load());
  byId('more').addEventListener('click', more);
  byId('newer').addEventListener('click', () => load());
}

const wanted = () => {
  const query = new URLSearchParams({ limit: PAGE });
  if (byId('q').value.trim() !== '') query.set('q', byId('q').value.trim());
  if (byId('scope').value !== '') query.set('scope', byId('scope').value);
  return query.toString();
};

/** Reads the list anew. */
export async function load() {
  const mine = ++reading;
  shownFor = wanted();
  meanwhile ??= [];
  try {
    const page = await call('GET', `/api/v1/revocations?${shownFor}`);
    // Another search has begun meanwhile.
    if (mine !== reading) return;
    newer = 0;
    byId('list').replaceChildren(...page.revocations.map(row));
    const missed = meanwhile;
    meanwhile = null;
    for (const [event, paused] of missed) happened(event, paused);
    after(page);
  } catch (error) {
    if (mine !== reading) return;
    meanwhile = null;
    byId('list-said').replaceChildren(`The list could not be read: ${error.message}`);
  }
}

async function more() {
  const [mine, first] = [reading, byId('list').children.length];
  try {
    const page = await call('GET', `/api/v1/revocations?${shownFor}&after=${encodeURIComponent(next)}`);
    if (mine !== reading) return;
    const there = new Set(Array.from(byId('list').children, (item) => item.dataset.id));
    byId('list').append(...page.revocations.filter((one) => !there.has(one.id)).map(row));
    after(page);
    // The button may be gone: whoever pressed it goes on with what it brought.
    byId('list').children[first]?.focus();
  } catch (error) {
    fail(`The list could not be read on: ${error.message}`);
  }
}

function after(page) {
  next = page.next;
  byId('more').hidden = next === null;
  if (page.unreadable > 0) fail(`The store holds ${page.unreadable} records that this node cannot read.`);
  count();
}

function count() {
  const rows = byId('list').children.length;
  const searched = byId('q').value.trim() !== '' || byId('scope').value !== '';
  const none = searched ? 'Nothing that is revoked matches.' : 'Nothing is revoked.';
  byId('list-said').replaceChildren(rows === 0 ? none : `${number(rows)} shown${next === null ? '' : ', newest first'}`);
  byId('newer').hidden = newer === 0;
  byId('newer').replaceChildren(`${number(newer)} newer: show`);
}

/** What happened while the list is there. `paused`: it must not move. */
export function happened(event, paused) {
  if (meanwhile !== null) {
    meanwhile.push([event, paused]);
    if (meanwhile.length > MOST_ROWS) meanwhile.shift();
    return;
  }
  if (event.event === 'revoked') {
    const one = event.revocation;
    if (row.of(one.id)) return;
    const whole = shownFor === `limit=${PAGE}`;
    if (whole && !paused && byId('list').children.length < MOST_ROWS) {
      byId('list').prepend(row(one));
    } else {
      newer += 1;
    }
  } else if (event.event === 'lifted') {
    for (const id of event.ids) row.of(id)?.remove();
  }
  count();
}

row.of = (id) => Array.from(byId('list').children).find((item) => item.dataset.id === id);

function row(one) {
  const ban = one.retain_until === 'lifted';
  const meta = (name, value) => element('span', { class: 'value' }, element('span', { class: 'name' }, `${name} `), value);
  const lift = element('button', { type: 'button', class: 'small', 'aria-describedby': `of-${one.id}` }, ban ? 'End ban…' : 'Lift…');
  lift.addEventListener('click', () => takeBack(one, ban));
  return element('li', { 'data-id': one.id, tabindex: '-1' },
    element('div', { class: 'row-main', id: `of-${one.id}` },
      element('span', { class: ban ? 'kind ban' : 'kind' }, ban ? `ban: ${kind(one.scope?.kind)}` : kind(one.scope?.kind)),
      scope(one.scope)),
    one.reason === null ? null : element('p', { class: 'reason' }, foreign(one.reason)),
    element('p', { class: 'meta' },
      meta('revoked', moment(one.revoked_at)),
      one.revoked_by === null ? null : meta('by', foreign(one.revoked_by)),
      meta('refuses', ban ? 'everything' : issued(one.cutoff)),
      meta('kept until', moment(one.retain_until, { lifted: 'it is lifted' })),
      meta('id', element('code', {}, one.id))),
    one.scope === null ? null : element('div', { class: 'row-act' }, lift));
}

/** Which tokens a cutoff refuses. */
export const issued = (cutoff) =>
  cutoff === 'forever' ? 'whenever issued' : element('span', {}, 'issued until ', moment(cutoff));

async function takeBack(one, ban) {
  const what = ban
    ? 'New tokens are accepted again. Those that were issued until now stay refused.'
    : 'Tokens that only this revocation refuses are accepted again, on every node.';
  const sure = await ask({
    title: ban ? 'End this ban?' : 'Lift this revocation?',
    body: [element('p', {}, element('span', { class: 'kind' }, kind(one.scope.kind)), ' ', scope(one.scope)), element('p', {}, what)],
    yes: ban ? 'End the ban' : 'Lift it',
    danger: true,
  });
  const item = () => row.of(one.id);
  if (!sure) {
    item()?.querySelector('button').focus();
    return;
  }
  const by = byId('by').value.trim();
  // The feed may take the row away first, and the focus with it.
  const beside = item()?.nextElementSibling ?? item()?.previousElementSibling;
  const asked = { scope: one.scope, ...(ban ? { enable: true } : { ids: [one.id] }), ...(by === '' ? {} : { by }) };
  try {
    await call('POST', '/api/v1/revocations/lift', asked);
    item()?.remove();
    (beside?.isConnected ? beside : byId('q')).focus();
    count();
    say(ban ? 'The ban has ended.' : 'The revocation is lifted.');
  } catch (error) {
    const known = error instanceof Refused ? '' : ' It is not known whether it was.';
    fail(`Not lifted: ${error.message}.${known}`);
    item()?.querySelector('button').focus();
  }
}
