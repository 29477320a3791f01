// What is asked of the job manager. Every request that changes something has a JSON body or a header of its own, which no form of another page can send.

const TOKEN = "standpipe-token";
const PATIENCE = 10000;

// The manager does not answer: it may be another time.
export class Away extends Error {}
// It wants a token, or another one.
export class Unauthorized extends Error {}
// It says no, and why.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  clear: () => sessionStorage.removeItem(TOKEN),
};

async function send(path, options = {}) {
  const headers = new Headers(options.body === undefined ? {} : {"Content-Type": "application/json"});
  // No other character can be in a header.
  if (token.get() && !/^[\x21-\x7e]+$/.test(token.get())) throw new Unauthorized("that is no token");
  if (token.get()) headers.set("Authorization", `Bearer ${token.get()}`);
  const body = options.body === undefined ? undefined : JSON.stringify(options.body);
  let answer;
  try {
    answer = await fetch(path, {method: options.method ?? "GET", headers, body, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE)});
  } catch (error) {
    throw new Away(error.name === "TimeoutError" ? "it does not answer" : "it cannot be reached");
  }
  if (answer.status === 401) throw new Unauthorized("the job manager wants its token");
  if (answer.ok) return answer;
  let why = `${answer.status} ${answer.statusText}`;
  try {
    const said = await answer.json();
    if (Array.isArray(said.errors)) why = said.errors.join("\n");
  } catch {
    // It is not its own answer, and the status has to do.
  }
  if (answer.status >= 502 && answer.status <= 504) throw new Away(why);
  throw new Refused(answer.status, why);
}

export const get = async (path) => (await send(path)).json();
export const getText = async (path) => (await send(path)).text();
export const post = async (path, body) => (await send(path, {method: "POST", body: body ?? {}})).json();
export const patch = async (path, body) => (await send(path, {method: "PATCH", body: body ?? {}})).json();

const sleep = (millis) => new Promise((done) => setTimeout(done, millis));

// Asks until what was asked for has come to an end: {location} or a Refused with the cause.
export async function settle(path) {
  for (;;) {
    const answer = await get(path);
    if (answer.status?.id === "COMPLETED") {
      const failure = answer.operation?.["failure-cause"];
      if (failure) throw new Refused(0, failure["stack-trace"] ?? failure.class);
      return answer.operation ?? {};
    }
    await sleep(500);
  }
}

// Calls again and again, while the page is seen. `link` hears "live" or "away".
export class Poller {
  constructor(work, every, link) {
    Object.assign(this, {work, every, link, ended: false, failures: 0});
    this.wake = () => {};
    this.seen = () => document.hidden || this.wake();
    document.addEventListener("visibilitychange", this.seen);
    this.run();
  }

  async run() {
    while (!this.ended) {
      try {
        await this.work();
        this.failures = 0;
        if (!this.ended) this.link("live");
      } catch (error) {
        if (this.ended) return;
        if (error instanceof Away) this.failures += 1;
        this.link("away", error, Math.min(this.every * 2 ** this.failures, 10000));
      }
      const pause = Math.min(this.every * 2 ** this.failures, 10000);
      await new Promise((done) => {
        this.wake = done;
        if (!document.hidden) setTimeout(done, pause);
      });
    }
  }

  now() {
    this.wake();
  }

  end() {
    this.ended = true;
    document.removeEventListener("visibilitychange", this.seen);
    this.wake();
  }
}
