/** The sources of an answer: a card for each, with the passages that the answer took from it. */

import { $, h } from "./dom.js";
import { cut, passage } from "./citations.js";

const LONG = 320; // characters above which a text is shown in part
const SHOWN_METADATA = 6;

export class Sources {
  #cards = new Map(); // id of the hit → {hit, card, text, more, passages}

  /** Show these hits in place of those before. */
  show(hits, provisional) {
    this.clear();
    const list = $("sources");
    list.toggleAttribute("data-provisional", provisional);
    $("sources-part").hidden = false;
    $("sources-note").textContent = provisional ? "by words alone, until the search is done" : hits.length ? "" : "nothing in the index is like this";
    for (const hit of hits) {
      const made = card(hit);
      this.#cards.set(hit.id, made);
      list.append(made.card);
    }
  }

  clear() {
    this.#cards.clear();
    $("sources").replaceChildren();
    $("sources-part").hidden = true;
  }

  /** Return the rank of a source, or undefined. */
  rank(id) {
    return this.#cards.get(id)?.hit.rank;
  }

  /** Mark what was said as taken from a source; `key` names it. A longer saying by the same key takes its place. */
  cite(key, id, said) {
    const found = this.#cards.get(id);
    if (!found) return;
    found.card.classList.add("cited");
    const place = passage(found.hit.text, said);
    if (!place) return;
    found.passages.set(key, { start: place[0], end: place[1], key });
    render(found);
  }

  /** Show which passage is meant, and let the keyboard go on from there if `focus`. */
  activate(key, id, focus) {
    this.deactivate();
    const found = this.#cards.get(id);
    if (!found) return;
    found.card.classList.add("active");
    const mark = found.text.querySelector(`mark[data-key="${key}"]`);
    mark?.classList.add("active");
    if (!focus) return;
    open(found, true);
    (mark ?? found.card).scrollIntoView({ block: "center", behavior: calm() ? "auto" : "smooth" });
    found.card.focus({ preventScroll: true });
  }

  deactivate() {
    for (const element of $("sources").querySelectorAll(".active")) element.classList.remove("active");
  }
}

function card(hit) {
  const text = h("p", { class: "text short" });
  const long = hit.text.length > LONG;
  const more = h("button", { type: "button", class: "plain", "aria-expanded": "false", hidden: !long, onclick: () => open(made, text.classList.contains("short")) }, "Show all");
  const name = hit.title || hit.id;
  const card = h("li", { class: "source", tabindex: "-1" },
    h("div", { class: "head" },
      h("span", { class: "rank" }, hit.rank), h("span", { class: "title" }, name),
      h("span", { class: "score", title: "score" }, hit.score.toFixed(3))),
    text,
    h("div", { class: "foot" }, ...about(hit, name), more));
  const made = { hit, card, text, more, passages: new Map() };
  render(made);
  return made;
}

/** Return what else is known of a hit, as short texts. */
function about(hit, name) {
  const known = Object.entries(hit.metadata ?? {}).slice(0, SHOWN_METADATA);
  const shown = known.map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return [...(name === hit.id ? [] : [hit.id]), ...shown].map((text) => h("span", {}, text));
}

function render({ hit, text, passages }) {
  const active = text.querySelector("mark.active")?.dataset.key;
  text.replaceChildren(...cut(hit.text, [...passages.values()]).map((piece) =>
    piece.key === null ? piece.text : h("mark", { data: { key: piece.key }, class: String(piece.key) === active && "active" }, piece.text)));
}

function open({ text, more }, whole) {
  text.classList.toggle("short", !whole);
  more.setAttribute("aria-expanded", String(whole));
  more.textContent = whole ? "Show less" : "Show all";
}

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
