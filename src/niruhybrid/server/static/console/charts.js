/** Small charts of the last two minutes, one for each quantity; drawn by uPlot, told in words beside it. */

import { $, h } from "./dom.js";

const SPAN = 120; // seconds shown
const HEIGHT = 96;
const NONE = "–";

/** What a chart shows: of each lane one line. */
const CHARTS = [
  { title: "Waiting", field: "waiting", show: whole, least: 4 },
  { title: "Arriving, per second", field: "arrived", show: rate, least: 4 },
  { title: "Items in a batch", field: "batch", show: rate, least: 4 },
  { title: "Refused or dropped, per second", field: "lost", show: rate, least: 4 },
  { title: "Wait, 95 % within", field: "wait", show: milliseconds, least: 0.01 },
  { title: "Encode, 95 % within", field: "encode", show: milliseconds, least: 0.01 },
];

export class Charts {
  #charts = [];
  #times = [];
  #samples = [];

  /** @param {HTMLElement} root where the charts go */
  constructor(root) {
    for (const chart of CHARTS) {
      const words = { queries: h("b", {}, NONE), data: h("b", {}, NONE) };
      const canvas = h("div", { class: "canvas", "aria-hidden": "true" });
      root.append(h("figure", { class: "chart" },
        h("figcaption", {}, h("span", {}, chart.title),
          h("span", { class: "values" }, h("span", { class: "queries" }, "queries ", words.queries), h("span", { class: "data" }, "data ", words.data))),
        canvas));
      this.#charts.push({ ...chart, words, canvas, plot: plot(chart, canvas, (index) => this.#tell(index)) });
    }
    new ResizeObserver(() => this.#fit()).observe(root);
    const redraw = () => this.#charts.forEach(({ plot }) => plot.redraw(false, true));
    document.addEventListener("theme", redraw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  /** Add what was at `at` (seconds): by lane what the charts show, null where there is nothing to show. */
  add(at, lanes) {
    this.#times.push(at);
    this.#samples.push(lanes);
    while (this.#times[0] < at - SPAN) {
      this.#times.shift();
      this.#samples.shift();
    }
    const x = this.#times.map((time) => time - at);
    for (const { field, plot } of this.#charts) {
      plot.setData([x, this.#samples.map(({ interactive }) => interactive[field]), this.#samples.map(({ bulk }) => bulk[field])]);
    }
    this.#tell(null);
  }

  /** Forget all: the server is another one. */
  clear() {
    this.#times = [];
    this.#samples = [];
  }

  /** Say in words what was at the sample under the pointer, or now. */
  #tell(index) {
    const sample = this.#samples[index ?? this.#samples.length - 1];
    for (const { field, words, show } of this.#charts) {
      words.queries.textContent = show(sample?.interactive[field]);
      words.data.textContent = show(sample?.bulk[field]);
    }
  }

  #fit() {
    for (const { canvas, plot } of this.#charts) {
      if (canvas.clientWidth) plot.setSize({ width: canvas.clientWidth, height: HEIGHT });
    }
  }
}

function plot({ show, least }, root, onPoint) {
  const line = (name, dash) => ({ stroke: () => colour(name), width: 1.5, dash, points: { size: 4, fill: () => colour(name) }, spanGaps: false });
  const axis = { stroke: () => colour("muted"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: "10px system-ui, sans-serif" };
  return new uPlot({
    width: root.clientWidth || 200,
    height: HEIGHT,
    padding: [6, 14, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "niru" }, y: false, drag: { setScale: false, x: false } },
    hooks: { setCursor: [({ cursor }) => onPoint(cursor.idx)] },
    scales: { x: { time: false, range: [-SPAN, 0] }, y: { range: (_plot, _min, max) => [0, Math.max(least, max * 1.15)] } },
    series: [{}, line("queries"), line("data", [4, 3])],
    axes: [
      { ...axis, grid: { show: false }, size: 18, gap: 2, splits: () => [-SPAN / 2, 0], values: () => ["1 min ago", "now"] },
      { ...axis, size: 42, gap: 4, space: 28, values: (_plot, values) => values.map((value) => (value === null ? "" : show(value))) },
    ],
  }, [[], [], []], root);
}

/** Return a colour of the theme; a canvas knows no style sheets. */
function colour(name) {
  return getComputedStyle($(`colour-${name}`)).color;
}

function whole(value) {
  return value == null ? NONE : Math.round(value).toLocaleString("en");
}

function rate(value) {
  if (value == null) return NONE;
  return value >= 10 ? Math.round(value).toLocaleString("en") : String(Number(value.toFixed(1)));
}

function milliseconds(value) {
  if (value == null) return NONE;
  return value >= 1 ? `${Number(value.toFixed(1))} s` : `${value < 0.01 ? Number((value * 1000).toFixed(1)) : Math.round(value * 1000)} ms`;
}
