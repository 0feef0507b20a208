/** What went wrong, in words, each with what can be done about it. */

import { h } from "./dom.js";
import { askForKey } from "./session.js";

const WORDS = {
  unauthorized: ["This server needs an API key", "Enter one that it knows; it stays in this tab."],
  forbidden: ["This API key is not for this", "Use a key with the scope that is named here."],
  rate_limited: ["Too many requests with this API key", "Wait a moment, then try again."],
  queue_full: ["Too much is waiting already", "The server refuses early rather than late. Wait a moment, then try again."],
  overloaded: ["The server is busy", "It refuses early rather than late. Wait a moment, then try again."],
  starting: ["The server is starting", "The model and the store are being opened. Try again in a moment."],
  unreachable: ["The server can't be reached", "See that it runs, and that the network is there. Then try again."],
  stream_lost: ["The connection was lost, and the rest with it", "What is shown is true and not all of it. Ask again for the whole."],
  deadline_exceeded: ["It was not finished in time", "Ask for less, or try again when less is going on."],
  generation_failed: ["The answer broke off", "The sources stand. Try again; the server's log says more."],
  internal: ["Something failed inside the server", "Its log says more."],
  shutting_down: ["The server is shutting down", "Try again when it is back."],
};

/**
 * Return an element that tells of a problem.
 *
 * @param {{code?: string, message: string, title?: string, retryAfter?: number}} error
 * @param {(() => void)|null} again what "Try again" does; null offers no such thing
 */
export function problem(error, again = null) {
  const [title, remedy] = WORDS[error.code] ?? [error.title ?? "This can't be done", ""];
  const box = h("div", { class: "problem", data: { code: error.code ?? "" } },
    h("strong", {}, title),
    h("p", {}, ...marked(sentence(error.message))),
    h("p", {}, remedy, error.retryAfter ? ` The server asks for ${Math.ceil(error.retryAfter)} s.` : ""));
  const row = h("div", { class: "row" });
  if (error.code === "unauthorized" || error.code === "forbidden") {
    row.append(h("button", { type: "button", onclick: askForKey }, "Enter an API key"));
  }
  if (again) row.append(h("button", { type: "button", onclick: again }, "Try again"));
  row.append(h("code", { class: "muted" }, error.code ?? "error"));
  box.append(row);
  return box;
}

/** Return the error of a response that is none of success, as its problem object tells it. */
export async function refusal(response) {
  let said = {};
  try {
    said = (await response.json()) ?? {};
  } catch {
    // a proxy's page says nothing that the status does not
  }
  const retryAfter = Number(response.headers.get("Retry-After") ?? said.retry_after) || 0;
  const message = said.detail ?? `the server answered with status ${response.status}`;
  return Object.assign(new Error(message), { code: said.code ?? "http_error", title: said.title, status: response.status, retryAfter });
}

function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/** Return a text whose `names` between back-ticks are set as such. */
function marked(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}
