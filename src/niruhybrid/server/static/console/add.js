/** The panel where documents are added: pasted, chosen or dropped; one after the other, each with its progress. */

import { documentsOf, textDocument } from "./documents.js";
import { $, counted, duration, h } from "./dom.js";
import { problem } from "./problems.js";
import { upload } from "./upload.js";

const SHOWN_REFUSALS = 20;
const KEPT_JOBS = 12; // ended ones that are still listed

let before = Promise.resolve(); // the job that the next one waits for

export function startAdd() {
  $("add-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("add-text").value;
    if (!text.trim()) return $("add-text").focus();
    const pasted = textDocument({ id: $("add-id").value.trim(), title: $("add-title-field").value.trim(), text });
    begin($("add-title-field").value.trim() || $("add-id").value.trim() || "Pasted text", pasted.bytes, async function* () { yield pasted; });
    $("add-form").reset();
  });
  $("files").addEventListener("change", () => {
    take([...$("files").files]);
    $("files").value = ""; // so that the same file can be chosen again
  });
  catchDrops();
}

function take(files) {
  for (const file of files) begin(file.name, file.size, () => documentsOf(file));
}

/** Take files wherever on the page they are dropped; elsewhere the browser would leave the page for them. */
function catchDrops() {
  let depth = 0;
  const over = (change) => $("drop").toggleAttribute("data-over", (depth += change) > 0);
  const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => hasFiles(event) && over(1));
  addEventListener("dragleave", (event) => hasFiles(event) && over(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(-depth);
    take([...event.dataTransfer.files]);
  });
}

function begin(name, bytes, documents) {
  const job = { name, bytes, documents, sent: 0, stored: 0, refused: 0, leave: new AbortController(), ...row(name) };
  job.stop.addEventListener("click", () => job.leave.abort());
  $("jobs").prepend(job.item);
  for (const old of [...$("jobs").querySelectorAll("[data-ended]")].slice(KEPT_JOBS)) old.remove();
  before = before.then(() => run(job));
}

async function run(job) {
  const options = {
    signal: job.leave.signal,
    onAnswer: (document, answer) => answered(job, document, answer),
    onRetry: (seconds, { code }) => tell(job, `${code === "unreachable" ? "Connection lost" : "The server is busy"}; again in ${duration(seconds)}…`, "warn"),
  };
  try {
    if (!job.leave.signal.aborted) tell(job, "Sending…");
    options.signal.throwIfAborted();
    await upload(job.documents(), options);
    job.progress.value = 1;
    tell(job, job.stored ? `${summary(job)}. Searchable now.` : summary(job) || "There was nothing in it.", job.refused ? "warn" : "good");
  } catch (error) {
    const stopped = job.leave.signal.aborted;
    tell(job, `${stopped ? "Stopped" : "Broken off"}; ${summary(job) || "nothing was stored"}.`, "warn");
    const again = error.code === "source_unreadable" ? null : () => begin(job.name, job.bytes, job.documents);
    if (!stopped) job.item.append(problem(error, again));
  }
  job.item.dataset.ended = "";
  job.stop.hidden = true;
}

function answered(job, document, { error }) {
  job.sent += document.bytes;
  job.progress.value = job.bytes ? Math.min(1, job.sent / job.bytes) : 1;
  if (error) refused(job, document, error);
  else job.stored += 1;
  tell(job, summary(job));
}

function refused(job, document, error) {
  job.refused += 1;
  job.refusals.hidden = false;
  if (job.refused <= SHOWN_REFUSALS) job.reasons.append(h("li", {}, h("b", {}, document.name), ` ${error.detail} `, h("code", {}, error.code)));
  else job.more.textContent = `and ${counted(job.refused - SHOWN_REFUSALS, "more", "more")}`;
}

function summary({ stored, refused }) {
  return [stored && `${counted(stored, "document")} stored`, refused && `${refused.toLocaleString("en")} refused`].filter(Boolean).join(", ");
}

function tell(job, words, tone = "") {
  job.status.textContent = words;
  job.status.dataset.tone = tone;
}

function row(name) {
  const status = h("p", { class: "small muted", role: "status" }, "Waits for those before it.");
  const progress = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
  const stop = h("button", { type: "button", class: "plain", "aria-label": `Stop adding ${name}` }, "Stop");
  const reasons = h("ul", { class: "reasons" });
  const more = h("p", { class: "small muted" });
  const refusals = h("details", { hidden: true }, h("summary", {}, "What was refused, and why"), reasons, more);
  const item = h("li", { class: "job" }, h("div", { class: "row" }, h("b", { class: "grow name" }, name), stop), progress, status, refusals);
  return { item, status, progress, stop, reasons, more, refusals };
}
