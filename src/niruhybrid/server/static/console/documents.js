/** Files and texts as documents: one line of JSON for each, read no faster than they are sent. */

const JSON_LINES = /\.(jsonl|ndjson)$/i;
const JSON_FILE = /\.json$/i;
const MARKUP = /\.(html?|xhtml|xml|pdf|docx?|odt|epub)$/i;

/**
 * Yield the documents of a file.
 *
 * @param {File} file `.jsonl` and `.ndjson` are a document a line, `.json` is one or an array; whatever else is text,
 *   and one document with the file's name as its id
 * @yields {{line: string, name: string, bytes: number}} the line to send, what to call it, and its share of the file
 * @throws {Error} the file is no text, or of a format that is not read here
 */
export async function* documentsOf(file) {
  if (MARKUP.test(file.name)) throw unreadable("is markup or a binary format, and only its text is wanted", "use `niru ingest`, or paste the text");
  if (JSON_LINES.test(file.name)) yield* jsonLines(file);
  else if (JSON_FILE.test(file.name)) yield* jsonFile(file);
  else yield textDocument({ id: file.name, title: file.name, text: await textOf(file), metadata: { source: file.name } }, file.size);
}

/** Return what is to be sent for a text. */
export function textDocument({ id, title, text, metadata }, bytes = text.length) {
  const document = { id: id || madeUp(), text, ...(title && { title }), ...(metadata && { metadata }) };
  return { line: JSON.stringify(document), name: document.id, bytes };
}

async function* jsonFile(file) {
  let value;
  try {
    value = JSON.parse(await textOf(file));
  } catch (error) {
    if (error.code) throw error;
    throw unreadable(`is not JSON (${error.message})`, "correct it; lines of JSON are read from a `.jsonl` file");
  }
  const values = Array.isArray(value) ? value : [value];
  for (const [index, each] of values.entries()) yield named(each, `element ${index + 1}`, file.size / values.length);
}

async function* jsonLines(file) {
  let [rest, number] = ["", 0];
  const reader = file.stream().pipeThrough(new TextDecoderStream("utf-8", { fatal: true })).getReader();
  const line = (text) => {
    number += 1;
    return text.trim() ? parsed(text, number) : null;
  };
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => { throw notText(); });
      const lines = (rest + (value ?? "")).split("\n");
      rest = done ? "" : lines.pop();
      for (const each of lines.map(line)) if (each) yield each;
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** A line that is not JSON is sent as it is: the server says what is wrong with it. */
function parsed(text, number) {
  const bytes = new Blob([text]).size + 1;
  try {
    return named(JSON.parse(text), `line ${number}`, bytes);
  } catch {
    return { line: text.trim(), name: `line ${number}`, bytes };
  }
}

/** Give a document an id if it has none: sent again after a broken connection it then takes its own place. */
function named(value, place, bytes) {
  const given = typeof value === "string" ? { text: value } : value;
  const isObject = typeof given === "object" && given !== null && !Array.isArray(given);
  const document = isObject && given.id === undefined ? { id: madeUp(), ...given } : given;
  return { line: JSON.stringify(document), name: isObject && value.id ? String(value.id) : place, bytes };
}

async function textOf(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return text;
  } catch {
    // said below
  }
  throw notText();
}

function notText() {
  return unreadable("is not UTF-8 text", "save it as UTF-8, or use `niru ingest`");
}

function unreadable(what, remedy) {
  return Object.assign(new Error(`the file ${what}: ${remedy}`), { code: "source_unreadable", title: "This file can't be read here" });
}

function madeUp() {
  return `console-${[...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
