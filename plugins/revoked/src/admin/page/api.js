// Talks to the daemon. The token is held here, in memory, and sent as `Authorization` alone.

/** Why something was not done. */
export class Refused extends Error {
  constructor(status, said) {
    super(said?.error_description ?? `the daemon answered ${status}`);
    this.status = status;
    this.error = said?.error;
    this.said = said ?? {};
  }
}

let token = null;
let askForToken = async () => false;
let changed = () => {};

/** `ask`: asks the operator for the token, and says whether there is one now; `onChange`: hears of each change. */
export function tokenIs(ask, onChange) {
  askForToken = ask;
  changed = onChange;
}

export const hasToken = () => token !== null;

export function forget() {
  token = null;
  changed();
}

/** Takes a token, once the daemon has. */
export async function take(given) {
  if (!/^[\x21-\x7e]+$/.test(given)) throw new Refused(401, { error_description: 'a token is one line of visible ASCII' });
  const answer = await request('GET', '/api/v1/status', undefined, given);
  await read(answer);
  token = given;
  changed();
}

/** Asks the daemon; where it wants the token, the operator is asked for it. */
export async function call(method, path, body) {
  try {
    return await read(await request(method, path, body, token));
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
    // One that was right may have been replaced.
    if (token !== null) forget();
    if (!await askForToken(error.error === 'token_required' ? 'This needs the admin token.' : 'The token is no longer right.')) throw error;
    return read(await request(method, path, body, token));
  }
}

function request(method, path, body, shown, signal) {
  const headers = {};
  if (shown !== null) headers.Authorization = `Bearer ${shown}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  return fetch(path, {
    method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
    credentials: 'omit', cache: 'no-store', redirect: 'error',
  });
}

async function read(answer) {
  const said = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, said);
  return said;
}

/** The daemon says how it stands each second: after this long the connection is dead. */
const SILENCE = 10_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
let restart = () => {};

/** Follows what happens, for ever. `on(event)`: an event; `state(name)`: `live`, `lost` or `locked`. */
export async function follow(on, state) {
  let wait = FIRST_WAIT;
  for (;;) {
    const stop = new AbortController();
    let silent = setTimeout(() => stop.abort(), SILENCE);
    let anew = false;
    restart = () => {
      anew = true;
      stop.abort();
    };
    try {
      const answer = await request('GET', '/api/v1/feed', undefined, token, stop.signal);
      if (answer.status === 401 && token !== null) forget();
      if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
      state('live');
      wait = FIRST_WAIT;
      for await (const event of events(answer.body)) {
        clearTimeout(silent);
        silent = setTimeout(() => stop.abort(), SILENCE);
        on(event);
      }
      state('lost');
    } catch (error) {
      if (!anew) state(error instanceof Refused && error.status === 401 ? 'locked' : 'lost', error);
    }
    clearTimeout(silent);
    if (anew) continue;
    await new Promise((go) => {
      restart = go;
      setTimeout(go, wait);
    });
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

/** Follows anew, as with a token that was not there before. */
export const followAnew = () => restart();

/** The events of a stream (HTML, section 9.2), as far as the daemon writes them: one line of data each. */
async function* events(body) {
  let rest = '';
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith('data: ')) yield JSON.parse(line.slice(6));
    }
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
