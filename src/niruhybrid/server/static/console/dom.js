/** The only way in which this page makes elements: text is always text, so nothing that is stored can become markup. */

export const $ = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {object} [properties] `class`, `on…` listeners, `data` for data attributes; whatever else is an attribute, and
 *   left out where it is null or false
 * @param {...(Node|string|number)} children strings become text
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Show `element` with this text, or hide it without one. */
export function tell(element, text) {
  element.hidden = !text;
  element.textContent = text;
}

/** Return seconds as a person reads them: "0.4 ms", "12 ms", "1.3 s". */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  const ms = seconds * 1000;
  if (ms >= 1000) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return `${ms < 10 ? Number(ms.toFixed(1)) : Math.round(ms)} ms`;
}

/** Return "1 source", "5 sources", "1,200 sources". */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
