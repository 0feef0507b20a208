/**
 * NiruHybrid in a browser: answers and standing queries over POST that go on where a connection broke.
 *
 *   import { ask } from "./niru-client.js";
 *   for await (const { event, data } of ask("/stream/query", { query: "why?" })) …
 *
 * EventSource can neither POST nor send an API key. No dependency, no build step; runs in Node 18 and later too.
 * Decisions are those of the Python client: the events are those of one clean run, or it throws.
 */

/** Something went wrong; `code` is the server's own, or `unreachable`, `stream_lost` or `deadline_exceeded`. */
export class NiruError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {object} [more] status, retryAfter (seconds), partial (text of the answer so far), lastEventId
   */
  constructor(code, message, more = {}) {
    super(message);
    this.name = "NiruError";
    this.code = code;
    Object.assign(this, more);
  }
}

const TERMINAL = new Set(["done", "error"]);
const PASSING = new Set([429, 502, 503]);

/** Events out of text, however it was cut: the algorithm of the HTML standard. */
export class EventDecoder {
  #rest = "";
  #fields = { id: "", event: "", data: [] };

  /** @returns {{id: string, event: string, data: string}[]} the events that are whole with this text */
  feed(text) {
    const events = [];
    this.#rest += text;
    let start = 0;
    for (const end of this.#rest.matchAll(/\r\n|\n|\r(?=[^])/g)) {
      const line = this.#rest.slice(start, end.index);
      start = end.index + end[0].length;
      if (line) this.#field(line);
      else {
        const { id, event, data } = this.#fields;
        if (data.length) events.push({ id, event: event || "message", data: data.join("\n") });
        this.#fields = { id: "", event: "", data: [] };
      }
    }
    this.#rest = this.#rest.slice(start);
    return events;
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#fields.data.push(value);
    else if (name === "event" || (name === "id" && !value.includes("\0"))) this.#fields[name] = value;
  }
}

/**
 * Yield the events of a stream as `{id, event, data}`, each once and in order; `error` is thrown.
 *
 * Until the first event the request is repeated as a whole, after it from the last whole event on. What the server has
 * not kept is `stream_lost`, with the text so far in `partial`: an answer never begins anew by itself.
 *
 * @param {string} url such as "/stream/query" or "/stream/subscribe"
 * @param {object} body what is asked; sent as JSON
 * @param {object} [options]
 * @param {string} [options.apiKey] sent as `Authorization: Bearer …`
 * @param {AbortSignal} [options.signal] ends it
 * @param {number} [options.attempts] failures in a row before it gives up
 * @param {number} [options.wait] seconds before the second try, doubled each time
 * @param {number} [options.maxWait] seconds between two tries at the most, unless the server asks for more
 * @param {number} [options.silence] seconds without a byte after which a connection counts as lost
 * @param {number} [options.timeout] seconds in all; none by default
 * @param {(retry: {problem: NiruError, seconds: number, lastEventId: string}) => void} [options.onRetry] told of each
 *   failure that is followed by another try, before the wait for it
 */
export async function* ask(url, body, options = {}) {
  const { attempts = 5, timeout = Infinity } = options;
  const progress = { stream: "", number: 0, id: "", text: "", finished: false };
  const request = { ...body };
  if (request.id === undefined && typeof crypto !== "undefined" && crypto.randomUUID) request.id = crypto.randomUUID();
  const deadline = now() + timeout;
  for (let failures = 0; ; ) {
    let problem;
    try {
      for await (const event of connection(url, request, options, progress.id, deadline)) {
        if (!isNext(event, progress)) continue;
        failures = 0;
        yield taken(event, progress);
        if (progress.finished) return;
      }
      problem = new NiruError("unreachable", "the server closed the connection early");
    } catch (error) {
      if (options.signal?.aborted || !(error instanceof NiruError) || !error.passing) throw error;
      problem = error;
    }
    failures += 1;
    const wait = waitBefore(failures, problem, options);
    if (failures >= attempts || now() + wait >= deadline) throw final(problem, progress);
    options.onRetry?.({ problem, seconds: wait, lastEventId: progress.id });
    await pause(wait, options.signal);
  }
}

/** One connection: its events, as far as they come; throws what broke it, `passing` if another may do better. */
async function* connection(url, body, options, lastEventId, deadline) {
  const leave = new AbortController();
  const stop = () => leave.abort(options.signal.reason);
  options.signal?.addEventListener("abort", stop, { once: true });
  if (options.signal?.aborted) stop();
  try {
    const response = await within(
      fetch(url, { method: "POST", body: JSON.stringify(body), headers: headers(options, lastEventId), signal: leave.signal, cache: "no-store" }),
      options, deadline,
    );
    if (response.status !== 200) throw await refusal(response, lastEventId);
    const reader = response.body.getReader();
    const decoder = new EventDecoder();
    const text = new TextDecoder();
    for (;;) {
      const { done, value } = await within(reader.read(), options, deadline);
      if (done) return;
      yield* decoder.feed(text.decode(value, { stream: true }));
    }
  } catch (error) {
    if (error instanceof NiruError || options.signal?.aborted) throw error;
    throw new NiruError("unreachable", `the server can't be reached (${error.message})`, { passing: true, cause: error });
  } finally {
    options.signal?.removeEventListener("abort", stop);
    leave.abort();
  }
}

function headers(options, lastEventId) {
  return {
    Accept: "text/event-stream",
    "Content-Type": "application/json",
    ...(options.apiKey && { Authorization: `Bearer ${options.apiKey}` }),
    ...(lastEventId && { "Last-Event-ID": lastEventId }),
  };
}

async function refusal(response, lastEventId) {
  let problem = {};
  try {
    problem = (await response.json()) ?? {};
  } catch {
    // a proxy's page says nothing that the status does not
  }
  const passing = PASSING.has(response.status);
  const retryAfter = Number(response.headers.get("Retry-After") ?? problem.retry_after) || 0;
  const code = problem.code ?? "http_error";
  const message = problem.detail ?? `the server answered with status ${response.status}`;
  const lost = lastEventId && !passing;
  return new NiruError(lost ? "stream_lost" : code, message, { status: response.status, retryAfter, passing });
}

/** Whether an event follows the last one; throws if the stream can't go on. */
function isNext({ id, event }, progress) {
  if (event === "stale") throw lost("the server has not kept what follows: ask again", progress);
  const found = /^(.+):(\d+)$/.exec(id);
  if (!found) throw lost("an event has no id of the form <stream>:<n>", progress);
  const number = Number(found[2]);
  if (progress.stream && found[1] !== progress.stream) throw lost("the server began another stream: ask again", progress);
  if (number > progress.number + 1) throw lost(`event ${progress.number + 1} is missing: ask again`, progress);
  progress.stream = found[1];
  return number === progress.number + 1;
}

/** Take the next event into account and return it with its data read; throws the error that it is. */
function taken({ id, event, data }, progress) {
  let value;
  try {
    value = JSON.parse(data);
  } catch {
    throw lost(`event ${progress.number + 1} can't be read`, progress);
  }
  progress.number += 1;
  progress.id = id;
  progress.finished = TERMINAL.has(event);
  if (event === "token") progress.text += value.text;
  if (event === "error") throw new NiruError(value.code ?? "internal", value.detail ?? "", { ...value, partial: progress.text });
  return { id, event, data: value };
}

function lost(message, progress) {
  return new NiruError("stream_lost", message, { partial: progress.text, lastEventId: progress.id });
}

function final(problem, progress) {
  return progress.id ? Object.assign(lost(problem.message, progress), { cause: problem }) : problem;
}

function waitBefore(failures, problem, { wait = 0.1, maxWait = 5 }) {
  const doubled = Math.min(maxWait, wait * 2 ** (failures - 1)) + Math.random() * wait;
  return Math.max(doubled, problem.retryAfter ?? 0);
}

const now = () => performance.now() / 1000;

/** Return what `promise` brings, unless it takes too long. */
async function within(promise, { silence = 45 }, deadline) {
  const left = deadline - now();
  let timer;
  const late = new Promise((_, reject) => {
    const error =
      left <= silence
        ? new NiruError("deadline_exceeded", "the call was not finished in time: raise `timeout`")
        : new NiruError("unreachable", `the server was silent for ${silence} s`, { passing: true });
    timer = setTimeout(() => reject(error), 1000 * Math.max(0, Math.min(silence, left)));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    promise.catch(() => {}); // one that is given up may still fail
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(ended, 1000 * seconds, resolve);
    const stop = () => ended(reject);
    function ended(settle) {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      settle(signal?.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}
