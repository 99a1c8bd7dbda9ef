// What is shown. All text becomes text nodes: nothing here, and nothing that others chose, is ever read as markup.

/** What cannot be seen, or turns the text around it. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;
/** Longer texts are folded. */
const LONG = 160;

export const byId = (id) => document.getElementById(id);

/** An element with these attributes and children; texts become text nodes. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(attribute, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text that somebody else chose: apart from what is around it, and with all that is in it to be seen. */
export function foreign(text) {
  const all = seen(String(text));
  if (text.length <= LONG) return element('bdi', {}, ...all);
  const begin = Array.from(text).slice(0, LONG / 2).join('');
  const count = Array.from(text).length;
  return element('details', { class: 'long' },
    element('summary', {}, element('bdi', {}, ...seen(begin)), `… ${number(count)} characters`),
    element('bdi', {}, ...all));
}

function seen(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) parts.push(text.slice(from, match.index));
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
    parts.push(element('span', { class: 'unseen' }, `U+${code}`));
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

const KINDS = {
  token: 'token', signing_input: 'token', opaque_token: 'opaque token', session: 'session',
  client_session: 'session at a client', subject: 'user', subject_client: 'user at a client',
  client: 'client', issuer: 'issuer',
};
/** The kinds of scopes, by the names that the API has for them. */
export const KIND_NAMES = Object.keys(KINDS);
export const kind = (name) => KINDS[name] ?? name;

const MEMBERS = ['sub', 'sid', 'jti', 'client_id', 'sha256', 'digest', 'iss'];

/** The values of a scope. */
export function scope(of) {
  if (!of) return element('span', { class: 'quiet' }, 'only its key is known');
  const values = MEMBERS.filter((name) => of[name] !== undefined).map((name) =>
    element('span', { class: name === 'iss' ? 'value quiet' : 'value' }, element('span', { class: 'name' }, `${name} `), foreign(of[name])));
  return element('span', { class: 'scope' }, ...values);
}

export const number = (value) => new Intl.NumberFormat('en').format(value);

/** How long, in the unit that says most. */
export function seconds(value) {
  if (value === null || value === undefined) return '–';
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(1)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

/** A moment in Unix seconds, or the word that stands there. */
export function moment(value, words = {}) {
  if (typeof value !== 'number') return words[value] ?? String(value);
  const date = new Date(value * 1000);
  if (Number.isNaN(date.getTime())) return String(value);
  const iso = date.toISOString();
  return element('time', { datetime: iso }, `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`);
}

/** Says what was done, aloud too; what went wrong stays until the next. */
export function say(text) {
  byId('failed').replaceChildren();
  byId('said').replaceChildren(text);
}

export function fail(text) {
  byId('said').replaceChildren();
  byId('failed').replaceChildren(text);
}

/** Asks before something is done. The way out has the focus: a key too many does no harm. */
export function ask({ title, body, yes, danger = false }) {
  const dialog = byId('ask');
  const [go, stay] = [byId('ask-yes'), byId('ask-no')];
  byId('ask-head').replaceChildren(title);
  byId('ask-body').replaceChildren(...body);
  go.replaceChildren(yes);
  go.className = danger ? 'danger' : 'main';
  return new Promise((answer) => {
    const listening = new AbortController();
    const { signal } = listening;
    const done = (said) => {
      listening.abort();
      dialog.close();
      answer(said);
    };
    go.addEventListener('click', () => done(true), { signal });
    stay.addEventListener('click', () => done(false), { signal });
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      done(false);
    }, { signal });
    dialog.showModal();
    stay.focus();
  });
}
