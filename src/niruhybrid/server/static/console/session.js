/** What this tab knows: the API key, for as long as the tab is open, and the theme. */

import { $ } from "./dom.js";

const KEY = "niru-api-key";
const THEMES = ["auto", "light", "dark"];
const waiting = new Set();
const [forTab, forBrowser] = [storage("sessionStorage"), storage("localStorage")];

/** Return the API key, or undefined. */
export function apiKey() {
  return forTab.getItem(KEY) ?? undefined;
}

/** Return the headers that say who asks. */
export function credentials() {
  return apiKey() ? { Authorization: `Bearer ${apiKey()}` } : {};
}

/** Call `listener` whenever another key is used. */
export function onKey(listener) {
  waiting.add(listener);
}

/** Ask for the key. */
export function askForKey() {
  const dialog = $("key-dialog");
  if (dialog.open) return;
  $("key").value = apiKey() ?? "";
  dialog.returnValue = "cancel"; // Escape leaves what was
  dialog.showModal();
}

export function startSession() {
  $("key-button").addEventListener("click", askForKey);
  $("key-dialog").addEventListener("close", taken);
  showKey();
  showTheme(forBrowser.getItem("niru-theme") ?? "auto");
  $("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    forBrowser.setItem("niru-theme", next);
    showTheme(next);
  });
}

function taken() {
  const choice = $("key-dialog").returnValue;
  if (choice === "cancel") return;
  const key = choice === "use" ? $("key").value.trim() : "";
  if (key) forTab.setItem(KEY, key);
  else forTab.removeItem(KEY);
  $("key").value = "";
  showKey();
  for (const listener of waiting) listener();
}

function showKey() {
  $("key-button").textContent = apiKey() ? "API key: set" : "API key";
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  document.dispatchEvent(new Event("theme"));
}

/** Return a storage of the browser, or, where it is forbidden, one that lasts as long as the page. */
function storage(name) {
  try {
    return globalThis[name];
  } catch {
    const kept = new Map();
    return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  }
}
