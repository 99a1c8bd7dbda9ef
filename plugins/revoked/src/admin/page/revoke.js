// The form that revokes: what is asked for is shown as the daemon understands it, and done once that is confirmed.

import { Refused, call } from '/api.js';
import { ask, byId, element, fail, kind, moment, number, say, scope } from '/text.js';
import { issued } from '/revocations.js';

/** The values that each kind of scope has. */
const FIELDS = {
  subject: ['iss', 'sub'],
  session: ['iss', 'sid'],
  subject_client: ['iss', 'sub', 'client_id'],
  client_session: ['iss', 'sid', 'client_id'],
  pasted: ['pasted'],
  token: ['iss', 'jti'],
  client: ['iss', 'client_id'],
  issuer: ['iss'],
};
const NAMES = { iss: 'the issuer', sub: 'the user', sid: 'the session', jti: 'the token id', client_id: 'the client', pasted: 'the token' };
/** Kinds whose tokens are refused whenever they were issued. */
const FOR_EVER = ['pasted', 'token', 'session', 'client_session'];

export function setUp() {
  const form = byId('revoke-form');
  byId('kind').addEventListener('change', arrange);
  byId('until').addEventListener('change', arrange);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  arrange();
}

/** The issuers that there are; the only one needs no choice. */
export function issuersAre(issuers) {
  const select = byId('iss');
  if (issuers.join('\n') === Array.from(select.options, (option) => option.value).join('\n')) return;
  const chosen = select.value;
  select.replaceChildren(...issuers.map((issuer) => element('option', { value: issuer }, issuer)));
  if (issuers.includes(chosen)) select.value = chosen;
  arrange();
}

const checked = () => document.querySelector('input[name="cutoff"]:checked').value;

/** Shows what the chosen kind needs. */
function arrange() {
  const chosen = byId('kind').value;
  if (chosen === 'pasted' && checked() === 'ban') document.querySelector('input[value="usual"]').checked = true;
  for (const field of byId('revoke-form').querySelectorAll('[data-field]')) {
    const name = field.dataset.field;
    const shown = {
      at: checked() === 'time',
      ban: chosen !== 'pasted',
      iss: FIELDS[chosen].includes('iss') && (byId('iss').options.length > 1 || chosen === 'issuer'),
    };
    field.hidden = !(shown[name] ?? FIELDS[chosen].includes(name));
  }
  byId('usual').replaceChildren(FOR_EVER.includes(chosen) ? 'at any time' : 'up to now');
}

/** What the form asks for, as the API has it. */
function read() {
  const chosen = byId('kind').value;
  const wrong = (id, what) => Object.assign(new Error(what), { id });
  const asked = {};
  for (const name of FIELDS[chosen]) {
    const value = byId(name).value;
    const given = name === 'pasted' ? value.trim() : value;
    if (given === '') throw wrong(name, `Say ${NAMES[name]}.`);
    if (name === 'pasted') asked.token = given;
    else asked.scope = { kind: chosen, ...asked.scope, [name]: given };
  }
  if (checked() === 'time') {
    const at = new Date(byId('at').value).getTime();
    if (Number.isNaN(at)) throw wrong('at', 'Say until which time.');
    asked.cutoff = Math.floor(at / 1000);
  }
  if (checked() === 'ban') asked.ban = true;
  return asked;
}

async function submit() {
  const error = byId('revoke-error');
  error.replaceChildren();
  for (const marked of byId('revoke-form').querySelectorAll('[aria-invalid]')) marked.removeAttribute('aria-invalid');
  try {
    const asked = read();
    const preview = await call('POST', '/api/v1/revocations/preview', asked);
    if (await confirmed(preview, asked)) await revoke(asked);
    byId('revoke-form').querySelector('[type=submit]').focus();
  } catch (wrong) {
    error.replaceChildren(wrong.message);
    if (wrong.id) {
      byId(wrong.id).setAttribute('aria-invalid', 'true');
      byId(wrong.id).focus();
    }
  }
}

function confirmed(preview, asked) {
  const { would } = preview;
  const lines = [
    [`Every token of`, element('span', {}, element('span', { class: 'kind' }, kind(preview.scope.kind)), ' ', scope(preview.scope))],
    ['Refused', asked.ban ? 'whenever issued, later ones too' : issued(would.cutoff)],
    ['Kept until', moment(would.retain_until, { lifted: 'it is lifted' })],
    ['Revoked already', preview.revocations === 0 ? 'nothing of it' : element('span', {}, preview.revocations === 1 ? 'once; ' : `${number(preview.revocations)} times; `, issued(preview.cutoff))],
    ['Sessions known', preview.sessions === null ? null : number(preview.sessions)],
    ['Grants that end', preview.grants === null ? null : number(preview.grants)],
    ['Success means', byId('wait').checked ? 'every node refuses' : 'it is durable, and this node refuses'],
  ];
  const wide = { issuer: 'This logs everybody out.', client: 'This logs everybody out at this client.' }[preview.scope.kind];
  const over = typeof would.retain_until === 'number' && would.retain_until * 1000 < Date.now();
  return ask({
    title: asked.ban ? 'Ban this?' : 'Revoke this?',
    body: [
      wide ? element('p', { class: 'warning' }, wide) : null,
      over ? element('p', { class: 'warning' }, 'The token has expired: there is nothing left to record.') : null,
      element('dl', {}, ...lines.filter(([, value]) => value !== null).flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)])),
    ].filter((part) => part !== null),
    yes: asked.ban ? 'Ban' : 'Revoke',
    danger: true,
  });
}

const OUTCOMES = {
  recorded: 'Revoked.', covered: 'It was revoked already: nothing new was recorded.',
  expired: 'The token has expired: nothing was recorded.', widened: 'Revoked; the list of single tokens is full, so all of the user’s at this client are.',
};

async function revoke(asked) {
  const more = {};
  for (const name of ['reason', 'by']) {
    const text = byId(name).value.trim();
    if (text !== '') more[name] = text;
  }
  if (byId('wait').checked) more.wait = 'all';
  try {
    const done = await call('POST', '/api/v1/revocations', { ...asked, ...more });
    const ended = done.grants ? ` Grants ended: ${number(done.grants)}.` : '';
    say(`${OUTCOMES[done.outcome] ?? done.outcome}${done.everywhere ? ' Every node refuses.' : ''}${ended}`);
    byId('pasted').value = '';
    byId('reason').value = '';
  } catch (error) {
    if (error instanceof Refused && error.error === 'not_everywhere') {
      const nodes = (error.said.unconfirmed ?? []).join(', ');
      fail(`Revoked, but not every node has confirmed: ${nodes || error.message}`);
      return;
    }
    const known = error instanceof Refused ? '' : ' It is not known whether it was: look at the list.';
    fail(`Not revoked: ${error.message}.${known}`);
  }
}
