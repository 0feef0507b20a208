/** Which words of an answer come from where, as pure decisions about text. */

const MARKER = /^[\s[\](),;\d]*\d[\s[\](),;\d]*$/;
const FEWEST_WORDS = 3;

/** Whether a token is itself a citation, "[2]" or " 3]", as a model writes it. */
export function isMarker(token) {
  return Boolean(token.source) && token.text.length < 12 && MARKER.test(token.text) && /[[\]]/.test(token.text);
}

/**
 * Return where `said` stands in `text`, as [start, end], however blanks and line ends differ; null where it does not.
 */
export function passage(text, said) {
  const words = said.trim().split(/\s+/);
  if (words.length < FEWEST_WORDS && said.trim().length < 12) return null;
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
  const found = new RegExp(pattern).exec(text);
  return found && [found.index, found.index + found[0].length];
}

/**
 * Cut `text` at passages, so that each piece is wholly inside or outside of one.
 *
 * @param {string} text
 * @param {{start: number, end: number, key: number}[]} passages in any order; where two overlap, the first one counts
 * @returns {{text: string, key: number|null}[]}
 */
export function cut(text, passages) {
  const pieces = [];
  let at = 0;
  for (const { start, end, key } of [...passages].sort((a, b) => a.start - b.start)) {
    if (start < at) continue;
    if (start > at) pieces.push({ text: text.slice(at, start), key: null });
    pieces.push({ text: text.slice(start, end), key });
    at = end;
  }
  if (at < text.length) pieces.push({ text: text.slice(at), key: null });
  return pieces;
}
