/** The answer as it arrives: runs of text, each with a button that leads to its source. */

import { $, h } from "./dom.js";
import { isMarker } from "./citations.js";

export class Answer {
  #sources;
  #runs = []; // {source, text, said, cite}
  #plain = ""; // what was said since the last citation, where a model cites after the fact
  #chosen = null; // key of the run whose citation was clicked: it stays marked when the mouse leaves

  /** @param {import("./sources.js").Sources} sources where the passages are */
  constructor(sources) {
    this.#sources = sources;
    $("answer").addEventListener("keydown", (event) => event.key === "Escape" && this.#choose(null));
    $("sources").addEventListener("keydown", (event) => event.key === "Escape" && this.#back());
  }

  clear() {
    this.#runs = [];
    this.#plain = "";
    this.#chosen = null;
    $("answer").replaceChildren();
  }

  /** Add a token; one that goes on with the source of the one before goes on with its run, too. */
  append(token) {
    if (isMarker(token)) return this.#marker(token);
    const last = this.#runs.at(-1);
    if (last && last.source === token.source && !last.marker) {
      last.text += token.text;
      fill(last);
    } else {
      this.#begin(token);
    }
    if (token.source) this.#cited(this.#runs.length - 1, token);
    else this.#plain += token.text;
  }

  /** Say below the text that it is not all there is. */
  close(words) {
    if (words) $("answer").append(h("p", { class: "end-mark" }, words));
  }

  #begin(token) {
    const said = h("span", { class: token.source && "said" });
    const run = { source: token.source, text: token.text, said, blank: [new Text(), new Text()], cite: null, marker: false };
    const key = this.#runs.push(run) - 1;
    $("answer").append(run.blank[0], said, run.blank[1]);
    fill(run);
    if (token.source) this.#button(run, key, this.#sources.rank(token.source) ?? "?");
  }

  #cited(key, token) {
    const run = this.#runs[key];
    this.#sources.cite(`${key}`, run.source, run.text);
    if (run.text !== token.text) this.#sources.cite(`${key}.${run.text.length}`, run.source, token.text);
  }

  #marker(token) {
    const run = { source: token.source, text: token.text, said: null, cite: null, marker: true };
    const key = this.#runs.push(run) - 1;
    this.#button(run, key, token.text.replace(/[^\d]/g, ""));
    this.#sources.cite(`${key}`, token.source, this.#plain.split(/(?<=[.!?])\s+/).at(-1) ?? "");
    if (token.text.includes("]")) this.#plain = "";
  }

  #button(run, key, label) {
    run.cite = h("button", {
      type: "button", class: "cite", "aria-label": `Source ${label}`, data: { key, source: run.source },
      onclick: () => this.#choose(key),
      onmouseenter: () => this.#mark(key),
      onmouseleave: () => this.#mark(this.#chosen),
    }, String(label));
    (run.said ?? $("answer").lastChild)?.after(run.cite);
    if (!run.cite.parentNode) $("answer").append(run.cite);
  }

  /** Mark a run until another is chosen, and move to its source; null chooses none. */
  #choose(key) {
    this.#chosen = key;
    this.#mark(key, true);
  }

  /** Mark a run and its passage in the source, and nothing else; null marks none. */
  #mark(key, focus = false) {
    for (const element of $("answer").querySelectorAll(".active")) element.classList.remove("active");
    this.#sources.deactivate();
    if (key === null) return;
    const run = this.#runs[key];
    run.said?.classList.add("active");
    run.cite.classList.add("active");
    this.#sources.activate(key, run.source, focus);
  }

  /** From a source, go back to the citation that led there. */
  #back() {
    const cite = $("answer").querySelector(".cite.active");
    this.#choose(null);
    cite?.focus();
  }
}

/** Write a run's text, the blanks around it outside of what is highlighted: its citation stands at the last word. */
function fill({ text, said, blank }) {
  const words = text.trim();
  const start = words ? text.indexOf(words) : text.length;
  said.textContent = words;
  blank[0].data = text.slice(0, start);
  blank[1].data = text.slice(start + words.length);
}
