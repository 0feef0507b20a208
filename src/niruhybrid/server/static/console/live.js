/** Follows the server's counters, for as long as the page is looked at. */

import { EventDecoder } from "../niru-client.js";
import { refusal } from "./problems.js";
import { credentials, onKey } from "./session.js";

const SILENCE_MS = 10_000; // of a stream that speaks every second
const WAITS_MS = [500, 1000, 2000, 5000];

/**
 * Call `onStats` with each snapshot and `onState` whenever that changes, until the page is closed.
 *
 * @param {(stats: object) => void} onStats
 * @param {(state: {name: "connecting"|"live"|"lost"|"refused", problem?: Error}) => void} onState
 */
export async function follow(onStats, onState) {
  let woken = new AbortController();
  const wake = () => woken.abort();
  onKey(wake);
  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  for (let failures = 0; ; ) {
    woken = new AbortController();
    if (document.hidden) {
      await aborted(woken.signal, Infinity);
      continue;
    }
    const problem = await read(woken.signal, onStats, () => ((failures = 0), onState({ name: "live" })));
    if (woken.signal.aborted) continue;
    const refused = problem.code === "unauthorized" || problem.code === "forbidden";
    onState({ name: refused ? "refused" : "lost", problem });
    const wait = Math.max(WAITS_MS[Math.min(failures++, WAITS_MS.length - 1)], 1000 * (problem.retryAfter ?? 0));
    await aborted(woken.signal, refused ? Infinity : wait); // with another key it is tried at once
  }
}

/** Read one connection to its end and return what ended it. */
async function read(signal, onStats, onLive) {
  const leave = new AbortController();
  const watch = silence(leave);
  try {
    const options = { headers: { Accept: "text/event-stream", ...credentials() }, signal: AbortSignal.any([signal, leave.signal]), cache: "no-store" };
    const response = await fetch("stats/stream", options);
    if (response.status !== 200) return await refusal(response);
    onLive();
    const decoder = new EventDecoder();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new Error("the connection ended");
      watch.heard();
      for (const { event, data } of decoder.feed(value)) {
        if (event === "error") return Object.assign(new Error(""), JSON.parse(data));
        onStats(JSON.parse(data));
      }
    }
  } catch (error) {
    return Object.assign(error, { code: "unreachable" });
  } finally {
    watch.end();
    leave.abort();
  }
}

/** End a connection that says nothing. */
function silence(leave) {
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => leave.abort(new Error("the server is silent")), SILENCE_MS);
  };
  heard();
  return { heard, end: () => clearTimeout(timer) };
}

function aborted(signal, ms) {
  return new Promise((resolve) => {
    if (ms !== Infinity) setTimeout(resolve, ms);
    signal.addEventListener("abort", resolve, { once: true });
  });
}
