// The page: puts what the daemon tells in its place.

import { call, follow, followAnew, forget, hasToken, take, tokenIs } from '/api.js';
import * as revocations from '/revocations.js';
import * as revoke from '/revoke.js';
import { ask, byId, element, fail, foreign, kind, number, say, scope, seconds } from '/text.js';

/** Rows of refused requests that are kept. */
const DENIALS = 100;
const DOORS = { proxy: 'proxy', forward_auth: 'forward-auth', ext_authz: 'ext_authz', spoe: 'HAProxy' };

let paused = false;
let statuses = 0;
let refused = [];
let wasLost = true;

revocations.setUp();
revoke.setUp();
tokenIs(askForToken, () => {
  showToken();
  followAnew();
});
byId('token').addEventListener('click', () => (hasToken() ? forget() : askForToken('')));
byId('unlock').addEventListener('click', () => askForToken(''));
byId('pause').addEventListener('click', () => pause(!paused));
byId('check-form').addEventListener('submit', check);
showToken();
follow(happened, stateIs);

function happened(event) {
  switch (event.event) {
    case 'status': return showStatus(event.status);
    case 'nodes': return showNodes(event.nodes);
    case 'denied': return paused ? undefined : showDenied([event.denied]);
    case 'revoked':
    case 'lifted': return revocations.happened(event, paused);
    case 'snapshot': return revocations.load();
    default: return undefined;
  }
}

function stateIs(name, error) {
  const locked = name === 'locked';
  byId('locked').hidden = !locked;
  byId('all').hidden = locked;
  if (name === 'live') {
    trouble(null);
    // The feed tells the refusals that are kept once more, and a daemon that was away has begun to count anew.
    if (wasLost) refused = [];
    wasLost = false;
    statuses = 0;
    if (paused) return;
    byId('denials').replaceChildren();
    revocations.load();
  } else {
    wasLost = true;
    pill(locked ? 'Locked' : 'No connection', locked ? 'wait' : 'bad');
    trouble(locked ? null : `The daemon does not answer${error?.status ? `: ${error.message}` : ''}. What is shown here is old. Trying again…`);
  }
}

function trouble(text) {
  // Said again each second it would shout.
  if (byId('trouble').textContent === (text ?? '')) return;
  byId('trouble').hidden = text === null;
  byId('trouble').replaceChildren(text ?? '');
}

function pill(text, tone) {
  byId('ready').textContent = text;
  byId('ready').dataset.tone = tone;
}

const put = (id, text) => {
  if (byId(id).textContent !== text) byId(id).textContent = text;
};

function showStatus(status) {
  byId('node').replaceChildren(foreign(status.node));
  put('version', status.version);
  document.title = `${status.ready ? '' : '(!) '}revoked: ${status.node}`;
  pill(status.ready ? 'Ready' : 'Not ready', status.ready ? 'good' : 'bad');
  trouble(status.ready ? null : `Not ready: ${status.why.join('; ')}`);

  put('staleness', seconds(status.staleness));
  const then = status.serves_when_stale ? 'then requests pass unchecked' : 'then requests are refused';
  put('stale-after', `stale after ${seconds(status.stale_after)}; ${then}`);
  byId('staleness').dataset.tone = status.staleness === null || status.staleness > status.stale_after ? 'bad' : '';
  put('records', number(status.records));
  put('budget', `of ${number(status.budget)}${status.over_budget ? ': over budget' : ''}`);
  byId('records').dataset.tone = status.over_budget ? 'bad' : '';

  const now = Date.now();
  refused.push([now, status.requests.refused]);
  refused = refused.filter(([at]) => now - at < 60_000);
  put('refused', number(status.requests.refused));
  const would = status.requests.would_refuse > 0 ? `; shadow mode let ${number(status.requests.would_refuse)} pass` : '';
  const lately = now - refused[0][0] > 55_000 ? 'in the last minute' : 'since this page was opened';
  put('refused-lately', `${number(status.requests.refused - refused[0][1])} ${lately}${would}`);

  const scopes = Object.entries(status.scopes).filter(([, count]) => count > 0);
  const chips = scopes.map(([name, count]) => `${kind(name)} ${number(count)}`);
  if (Array.from(byId('scopes').children, (chip) => chip.textContent).join('\n') !== (chips.join('\n') || 'none')) {
    byId('scopes').replaceChildren(...(chips.length === 0 ? ['none'] : chips).map((chip) => element('li', {}, chip)));
  }
  revoke.issuersAre(status.issuers);
  // Others may turn them as well.
  if (statuses++ % 10 === 0) showEndpoints();
}

const STATES = { live: ['live', 'good'], serves_stale: ['goes on while stale', 'wait'], in_shadow: ['in shadow', 'wait'], silent: ['silent', 'bad'] };

function showNodes(nodes) {
  const live = nodes.filter((node) => node.state === 'live').length;
  put('nodes-live', `${number(live)} live`);
  const others = nodes.length - live;
  put('nodes-rest', others === 0 ? 'all that are known' : `${number(others)} silent, or not enforcing`);
  byId('nodes-live').dataset.tone = others === 0 ? '' : 'bad';
  byId('nodes').replaceChildren(...nodes.map((node) => {
    const [text, tone] = STATES[node.state] ?? [node.state, 'wait'];
    return element('li', { class: 'node' },
      element('span', { class: 'strong' }, foreign(node.node)),
      element('span', { class: 'pill', 'data-tone': tone }, text),
      element('span', { class: 'value' }, element('span', { class: 'name' }, 'heard '), `${seconds(node.silent_for)} ago`),
      element('span', { class: 'value' }, element('span', { class: 'name' }, 'lag '), behind(node)),
      element('span', { class: 'value' }, element('span', { class: 'name' }, 'lease '), seconds(node.lease)));
  }));
}

function behind(node) {
  if (node.behind === null) return 'unknown';
  const { amount, unit } = node.behind;
  if (amount === 0) return 'none';
  return unit === 'milliseconds' ? seconds(amount / 1000) : `${number(amount)} ${amount === 1 ? 'change' : 'changes'}`;
}

function showDenied(denials) {
  for (const denied of denials) {
    const iso = new Date(denied.denied_at).toISOString();
    const reason = denied.scope === null ? denied.reason.replaceAll('_', ' ') : `${denied.reason.replaceAll('_', ' ')}: ${kind(denied.scope)}`;
    byId('denials').prepend(element('li', {},
      element('time', { datetime: iso, class: 'quiet' }, `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`),
      element('span', { class: denied.scope === null ? 'kind' : 'kind ban' }, reason),
      element('span', { class: 'path' }, `${denied.method} `, foreign(denied.path)),
      element('span', { class: 'quiet' }, DOORS[denied.door] ?? denied.door)));
  }
  while (byId('denials').children.length > DENIALS) byId('denials').lastElementChild.remove();
  byId('denials-none').hidden = byId('denials').children.length > 0;
}

async function pause(to) {
  paused = to;
  byId('pause').setAttribute('aria-pressed', String(paused));
  if (paused) return;
  revocations.load();
  try {
    const { denials } = await call('GET', '/api/v1/denials');
    byId('denials').replaceChildren();
    showDenied(denials.reverse());
  } catch (error) {
    fail(`What was refused meanwhile could not be read: ${error.message}`);
  }
}

async function showEndpoints() {
  let endpoints;
  try {
    ({ endpoints } = await call('GET', '/api/v1/endpoints'));
  } catch {
    // The banner tells that the daemon does not answer.
    return;
  }
  const [list, told] = [byId('endpoints'), JSON.stringify(endpoints)];
  // A switch that is about to be pressed stays where it is.
  if (list.dataset.told === told) return;
  list.dataset.told = told;
  const focused = list.contains(document.activeElement) ? document.activeElement.id : null;
  list.replaceChildren(...Object.entries(endpoints).map(([name, { enabled, path }]) => {
    const id = `turn-${name}`;
    const button = element('button', { type: 'button', id, role: 'switch', class: 'switch', 'aria-checked': String(enabled), 'aria-labelledby': `${id}-name` },
      element('span', { class: 'switch-text', 'aria-hidden': 'true' }, enabled ? 'on' : 'off'));
    button.addEventListener('click', () => turn(name, !enabled));
    return element('li', { class: 'endpoint' },
      element('span', { id: `${id}-name` }, element('span', { class: 'strong' }, name), ' ', element('code', { class: 'quiet' }, foreign(path))),
      button);
  }));
  if (focused) byId(focused)?.focus();
}

async function turn(name, on) {
  const sure = await ask({
    title: `Turn the ${name} endpoint ${on ? 'on' : 'off'}?`,
    body: [element('p', {}, on ? 'This node answers it again.' : 'Clients can revoke nothing there on this node.'),
      element('p', { class: 'quiet' }, 'It stays so until the configuration is read anew.')],
    yes: on ? 'Turn it on' : 'Turn it off',
    danger: !on,
  });
  if (sure) {
    try {
      await call('PUT', '/api/v1/endpoints', { [name]: on });
      say(`The ${name} endpoint is ${on ? 'on' : 'off'}.`);
    } catch (error) {
      fail(`Not turned: ${error.message}`);
    }
    await showEndpoints();
  }
  byId(`turn-${name}`)?.focus();
}

async function check(event) {
  event.preventDefault();
  const verdict = byId('verdict');
  const token = byId('checked').value.trim();
  if (token === '') {
    verdict.replaceChildren(element('p', { class: 'error' }, 'Paste a token.'));
    byId('checked').focus();
    return;
  }
  try {
    const said = await call('POST', '/api/v1/check', { token });
    const tone = { allow: 'good', deny: 'bad' }[said.verdict] ?? 'wait';
    const found = (said.revocations ?? []).map((one) => element('li', {}, element('span', { class: 'kind' }, kind(one.scope?.kind)), ' ', scope(one.scope)));
    verdict.replaceChildren(
      element('p', {}, element('span', { class: 'pill', 'data-tone': tone }, said.verdict), ' ', said.detail),
      ...(said.identity === null ? [] : [element('p', {}, scope(without(said.identity)))]),
      ...(found.length === 0 ? [] : [element('ul', { class: 'rows dense' }, ...found)]));
    byId('checked').value = '';
  } catch (error) {
    verdict.replaceChildren(element('p', { class: 'error' }, `Not checked: ${error.message}`));
  }
}

/** The claims that are there. */
const without = (claims) => Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== null));

function showToken() {
  byId('token').replaceChildren(hasToken() ? 'Forget admin token' : 'Enter admin token');
}

let asking = null;

/** Asks for the token; `true`: there is one that the daemon has taken. */
function askForToken(why) {
  asking ??= new Promise((answer) => {
    const [dialog, value, error] = [byId('token-ask'), byId('token-value'), byId('token-error')];
    const before = document.activeElement;
    byId('token-why').replaceChildren(why);
    error.replaceChildren();
    const listening = new AbortController();
    const { signal } = listening;
    const done = (said) => {
      listening.abort();
      value.value = '';
      dialog.close();
      before?.focus();
      asking = null;
      answer(said);
    };
    byId('token-form').addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        await take(value.value.trim());
        done(true);
      } catch (wrong) {
        value.value = '';
        error.replaceChildren(`Not taken: ${wrong.message}.`);
        value.focus();
      }
    }, { signal });
    byId('token-no').addEventListener('click', () => done(false), { signal });
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      done(false);
    }, { signal });
    dialog.showModal();
    value.focus();
  });
  return asking;
}
