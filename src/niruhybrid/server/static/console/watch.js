/** The panel of standing queries: each stays, and shows what arrives and matches. */

import { ask } from "../niru-client.js";
import { $, counted, h } from "./dom.js";
import { problem } from "./problems.js";
import { apiKey } from "./session.js";

const MOST = 3; // a browser has six connections to a server, and the counters, a question and an upload need theirs
const KEPT_MATCHES = 30; // of each; what is older makes room
const ATTEMPTS = 20;

const open = new Set();

export function startWatch() {
  $("watch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = $("watch-query").value.trim();
    if (!query) return $("watch-query").focus();
    const least = $("watch-score").value;
    begin({ query, ...(least !== "" && { min_score: Number(least) }) });
    $("watch-query").value = "";
  });
}

function begin(asked) {
  const watch = { asked, leave: new AbortController(), matches: 0, missed: 0, ...card(asked) };
  watch.stop.addEventListener("click", () => (watch.leave.abort(), watch.item.remove(), count()));
  $("watches").prepend(watch.item);
  open.add(watch);
  count();
  run(watch).finally(() => (open.delete(watch), count()));
}

async function run(watch) {
  const options = {
    apiKey: apiKey(),
    signal: watch.leave.signal,
    attempts: ATTEMPTS,
    onRetry: ({ problem: { code } }) => tell(watch, code === "unreachable" ? "Connection lost. Resuming…" : "The server is busy. Asking again…", "warn"),
  };
  try {
    for await (const event of ask("stream/subscribe", watch.asked, options)) happened(watch, event);
  } catch (error) {
    if (watch.leave.signal.aborted) return;
    tell(watch, "It has ended; what arrives now is not shown.", "warn");
    watch.item.append(problem(error, () => (watch.item.remove(), begin(watch.asked))));
  }
}

function happened(watch, { event, data }) {
  if (event === "dropped") watch.missed += data.count;
  if (event === "match") {
    watch.matches += 1;
    watch.list.prepend(match(data.hit));
    while (watch.list.children.length > KEPT_MATCHES) watch.list.lastChild.remove();
  }
  const missed = watch.missed ? `, ${watch.missed.toLocaleString("en")} left out: they came too fast` : "";
  tell(watch, watch.matches ? counted(watch.matches, "match", "matches") + missed : "Listening. What is added from now on is looked at.");
}

function tell(watch, words, tone = "") {
  watch.status.textContent = words;
  watch.status.dataset.tone = tone;
}

function count() {
  const full = open.size >= MOST;
  $("watch-button").disabled = full;
  $("watch-limit").hidden = !full;
  $("watch-empty").hidden = $("watches").children.length > 0;
}

function card({ query, min_score: least }) {
  const status = h("p", { class: "small muted", role: "status" }, "Connecting…");
  const stop = h("button", { type: "button", class: "plain", "aria-label": `Stop watching ${query}` }, "Stop");
  const list = h("ol", { class: "matches" });
  const title = h("div", { class: "row" }, h("b", { class: "grow name" }, query), h("span", { class: "small muted" }, least === undefined ? "" : `score from ${least}`), stop);
  return { item: h("li", { class: "watch" }, title, status, list), status, stop, list };
}

function match(hit) {
  const name = hit.title || hit.id;
  const time = new Date().toLocaleTimeString("en-GB");
  return h("li", { class: "match arrived" },
    h("div", { class: "head" }, h("span", { class: "title" }, name), h("span", { class: "score", title: "score" }, hit.score.toFixed(3)), h("time", {}, time)),
    h("p", { class: "text" }, hit.text));
}
