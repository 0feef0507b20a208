/** Sends documents as lines of JSON, a bounded number at a time, and hears of each that it is stored. */

import { refusal } from "./problems.js";
import { credentials } from "./session.js";

const MOST_LINES = 200; // in one request: what a stop or a broken connection leaves unknown
const MOST_CHARACTERS = 262_144;
const ATTEMPTS = 8;
const PASSING = new Set([429, 502, 503]);

/**
 * Send documents and tell of each once: it is stored and searchable, or refused.
 *
 * What a broken connection left unacknowledged is sent again; since each document has an id, none is stored twice.
 *
 * @param {AsyncIterable<{line: string, name: string, bytes: number}>} documents
 * @param {{signal: AbortSignal, onAnswer: (document: object, answer: object) => void, onRetry: (seconds: number, problem: Error) => void}} options
 */
export async function upload(documents, options) {
  let batch = [];
  let size = 0;
  for await (const document of documents) {
    options.signal.throwIfAborted();
    batch.push(document);
    size += document.line.length;
    if (batch.length < MOST_LINES && size < MOST_CHARACTERS) continue;
    await deliver(batch, options);
    [batch, size] = [[], 0];
  }
  if (batch.length) await deliver(batch, options);
}

async function deliver(batch, { signal, onAnswer, onRetry }) {
  let left = batch;
  for (let failures = 0; left.length; ) {
    const answered = new Set();
    let problem;
    try {
      await post(left, signal, (number, answer) => {
        answered.add(number);
        onAnswer(left[number - 1], answer);
      });
      problem = Object.assign(new Error("the server closed the connection early"), { code: "unreachable" });
    } catch (error) {
      signal.throwIfAborted();
      if (error.status && !PASSING.has(error.status)) throw error;
      problem = error.status ? error : Object.assign(error, { code: "unreachable" });
    }
    failures = answered.size ? 1 : failures + 1;
    left = left.filter((_, index) => !answered.has(index + 1));
    if (!left.length) return;
    if (failures >= ATTEMPTS) throw problem;
    const seconds = Math.max(problem.retryAfter ?? 0, Math.min(5, 0.1 * 2 ** failures));
    onRetry(seconds, problem);
    await pause(seconds, signal);
  }
}

/** Send lines and call `onLine` with the number and the acknowledgement of each. */
async function post(lines, signal, onLine) {
  const body = lines.map(({ line }) => line + "\n").join("");
  const response = await fetch("stream/data", { method: "POST", body, signal, cache: "no-store", headers: { "Content-Type": "application/x-ndjson", ...credentials() } });
  if (response.status !== 200) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const answer of parts.filter(Boolean).map((text) => JSON.parse(text))) {
      if (answer.line) onLine(answer.line, answer);
      else if (answer.error) throw Object.assign(new Error(answer.error.detail), answer.error, { retryAfter: answer.error.retry_after });
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
