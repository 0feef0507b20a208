/** The pipeline as it runs: what waits in both lanes, what is being done, what has come of it. */

import { Charts } from "./charts.js";
import { $, counted, duration, h } from "./dom.js";
import { follow } from "./live.js";
import { problem } from "./problems.js";
import { between, lost, reasons } from "./rates.js";

let charts;
let last = null;

export function startPipeline() {
  charts = new Charts($("charts"));
  follow(take, tell);
}

function take(stats) {
  const rates = last && between(last, stats);
  if (last && !rates) charts.clear();
  last = stats;
  $("flow").hidden = $("charts").hidden = false;
  draw(stats, rates);
  const { interactive, bulk } = stats.processor;
  const lane = (values, name) => ({ waiting: values.waiting, ...rates?.[name] });
  charts.add(stats.at, { interactive: lane(interactive, "interactive"), bulk: lane(bulk, "bulk") });
}

function draw({ documents, answers, open_streams, processor }, rates) {
  const { interactive, bulk, cache } = processor;
  showLane("queries", interactive, rates?.interactive);
  showLane("data", bulk, rates?.bulk);
  const being = interactive.in_flight + bulk.in_flight;
  box("encoder", being, processor.degraded ? "the last encode hung" : `${counted(processor.encoding, "batch", "batches")} encoding, to ${processor.token_ceiling} tokens`, being > 0);
  $("box-encoder").toggleAttribute("data-trouble", processor.degraded);
  box("answers", open_streams, `${answers.done.toLocaleString("en")} done, ${answers.cancelled.toLocaleString("en")} stopped, ${answers.error.toLocaleString("en")} failed`, open_streams > 0);
  box("store", documents, rates ? `${perSecond(rates.bulk.delivered)} written` : "", rates?.bulk.delivered > 0);
  showLosses(interactive, bulk);
  $("cache").textContent = cache.hits + cache.misses ? `${Math.round(100 * cache.hit_rate)} % of queries found their vector in the cache.` : "";
  health("ready", processor.degraded ? "Degraded: the last encode hung" : "Ready");
  $("health").dataset.state = processor.degraded ? "trouble" : "ready";
  $("documents").textContent = counted(documents, "document");
  document.dispatchEvent(new CustomEvent("documents", { detail: documents }));
}

function showLane(name, lane, rate) {
  const arriving = rate ? `${perSecond(rate.arrived)} in` : "";
  const oldest = lane.waiting ? `oldest ${duration(lane.oldest_age)}` : "";
  box(name, lane.waiting, [arriving, oldest].filter(Boolean).join(", "), lane.waiting > 0 || rate?.arrived > 0);
  const meter = $(`meter-${name}`);
  meter.value = lane.waiting;
  meter.max = Math.max(meter.max, lane.waiting); // the most there has been since the page was opened
}

function box(name, number, words, busy) {
  const element = $(`box-${name}`);
  element.querySelector(".big").textContent = number.toLocaleString("en");
  element.querySelector(".sub").textContent = words || "\u00a0";
  element.toggleAttribute("data-busy", Boolean(busy));
}

function showLosses(...lanes) {
  const all = reasons(lanes);
  const total = lanes.reduce((sum, lane) => sum + lost(lane), 0);
  $("losses").dataset.tone = total ? "warn" : "";
  $("losses").replaceChildren(total ? `${counted(total, "item")} refused, dropped or failed: ` : "Nothing refused, dropped or failed.",
    ...all.flatMap(([reason, number], index) => [index ? ", " : "", h("code", {}, reason), ` ${number.toLocaleString("en")}`]));
}

function perSecond(value) {
  return `${value >= 10 ? Math.round(value) : Number(value.toFixed(1))}/s`;
}

function tell({ name, problem: reason }) {
  $("pipeline").toggleAttribute("data-stale", name !== "live");
  $("pipeline-problem").replaceChildren(...(name === "refused" ? [problem(reason)] : []));
  if (name === "live") return;
  const words = { unauthorized: "API key needed", forbidden: "API key refused", starting: "Starting…", overloaded: "Counters are watched by too many" };
  health(reason.code === "starting" ? "waiting" : "trouble", words[reason.code] ?? "Not reachable, trying again…");
}

/** Say in the bar how the server is; written only when it changes, since it is read aloud. */
function health(state, words) {
  $("health").dataset.state = state;
  if ($("health").textContent !== words) $("health").textContent = words;
}
