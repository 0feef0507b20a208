/** The panel where one asks: runs one question at a time and shows every state that it can be in. */

import { ask } from "../niru-client.js";
import { Answer } from "./answer.js";
import { after, IDLE, running } from "./ask-state.js";
import { $, counted, duration, h, tell } from "./dom.js";
import { problem } from "./problems.js";
import { apiKey } from "./session.js";
import { Sources } from "./sources.js";

const ATTEMPTS = 8; // failures in a row, about ten seconds
const PHASES = [["asking", "Queued"], ["sources", "Sources"], ["answering", "Answer"], ["done", "Done"]];

const sources = new Sources();
const answer = new Answer(sources);
let state = IDLE;
let current = null; // AbortController of the question under way

export function startAsk() {
  $("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask-form").requestSubmit();
  });
  $("stop").addEventListener("click", () => current?.abort());
  document.addEventListener("documents", ({ detail: number }) => {
    $("ask-empty").textContent = number
      ? "Sources arrive first, then the answer, each sentence with where it comes from."
      : "Nothing is stored yet. Add a document, and it can be asked about at once.";
  });
}

function submit() {
  const question = $("question").value.trim();
  if (!question) return $("question").focus();
  let filter;
  try {
    filter = $("filter").value.trim() ? JSON.parse($("filter").value) : undefined;
  } catch (error) {
    return $("ask-problem").replaceChildren(problem({ code: "invalid_input", title: "The filter is not JSON", message: error.message }));
  }
  current?.abort();
  run({ query: question, top_k: Number($("top-k").value), mode: $("mode").value, filter, progressive: $("progressive").checked });
}

async function run(asked) {
  const mine = (current = new AbortController());
  const began = performance.now();
  const happened = (action) => mine === current && move({ ...action, ms: performance.now() - began });
  sources.clear();
  answer.clear();
  $("ask-problem").replaceChildren();
  happened({ type: "ask" });
  const options = { apiKey: apiKey(), signal: mine.signal, attempts: ATTEMPTS, onRetry: (retry) => happened({ type: "retry", ...retry }) };
  try {
    for await (const { event, data } of ask("stream/query", asked, options)) happened({ type: "event", event, data });
  } catch (error) {
    if (mine.signal.aborted) happened({ type: "stop" });
    else happened({ type: "fail", problem: error });
  }
}

function move(action) {
  const before = state;
  state = after(state, action);
  if (state.hits && state.hits !== before.hits) sources.show(state.hits, state.provisional);
  if (action.event === "token") answer.append(action.data);
  if (state.phase !== before.phase) ended();
  show();
}

/** Say with the answer itself when it is not whole; who copies it should know. */
function ended() {
  if (state.phase === "stopped" && state.at.answering) answer.close("Stopped here.");
  if (state.phase === "failed") {
    if (state.at.answering) answer.close("The answer broke off here.");
    $("ask-problem").replaceChildren(problem(state.problem, submit));
  }
}

function show() {
  const busy = running(state);
  $("stop").hidden = !busy;
  $("ask-button").textContent = busy ? "Ask instead" : "Ask";
  $("ask-empty").hidden = state.phase !== "idle";
  $("answer").hidden = !state.at.answering;
  $("answer").setAttribute("aria-busy", String(busy));
  showPhases();
  const [words, tone] = said();
  if ($("ask-status").textContent !== words) $("ask-status").textContent = words;
  $("ask-status").dataset.tone = tone;
  tell($("notes"), state.notes.length ? `Note: ${state.notes.join("; ")}` : "");
  showTimings();
}

function showPhases() {
  const reached = PHASES.findLastIndex(([phase]) => phase === "asking" || phase in state.at);
  $("phases").hidden = state.phase === "idle";
  $("phases").replaceChildren(...PHASES.map(([phase, name], index) => {
    const last = index === reached;
    const look = index > reached ? "later" : !last || state.phase === "done" ? "done" : running(state) ? "now" : "broken";
    const when = phase in state.at ? ` ${duration(state.at[phase] / 1000)}` : "";
    return h("li", { data: { state: look }, "aria-current": look === "now" && "step" }, name + when);
  }));
}

/** Return what is going on in one sentence, and its tone. */
function said() {
  const found = counted(state.hits?.length ?? 0, "source");
  const { retry, phase } = state;
  if (retry && phase === "asking") return [`${reason(retry)} Asking again in ${duration(retry.seconds)}…`, "warn"];
  if (retry) return ["Connection lost. Resuming where it broke…", "warn"];
  const again = state.resumed ? ` Resumed ${counted(state.resumed, "time")}; nothing is missing or repeated.` : "";
  switch (phase) {
    case "asking": return [state.provisional ? `${found} by words alone. Searching by meaning…` : "Waiting for its turn…", ""];
    case "sources": return [`${found}. Writing the answer…${again}`, ""];
    case "answering": return [`${found}. The answer is arriving…${again}`, ""];
    case "done": return [(state.finish === "stop" ? "The answer is complete." : `The answer ended early: ${state.finish}.`) + again, ""];
    case "stopped": return ["Stopped. What is shown is not the whole answer.", "warn"];
    default: return ["", ""];
  }
}

function reason({ problem: { code } }) {
  return { starting: "The server is starting.", unreachable: "The server can't be reached.", rate_limited: "Too many requests." }[code] ?? "The server is busy.";
}

function showTimings() {
  const times = state.timings ?? {};
  $("timings").hidden = !state.timings;
  $("timings").replaceChildren(...["queued", "encode", "search", "generate", "total"]
    .filter((name) => name in times)
    .map((name) => h("span", {}, `${name} `, h("b", {}, duration(times[name])))));
}
