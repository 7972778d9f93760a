// One keyboard handler for the page, and the help that lists what it knows.

import { find, h } from "./dom.js";

const groups = new Map();
const actions = new Map();

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space" };

/**
 * Make keys known.
 * @param {{key: string | string[], group: string, does: string, run: (event: KeyboardEvent) => void}[]} list
 *   `key` as in KeyboardEvent.key; several do the same. A key that is registered again gets the new meaning.
 */
export const register = (list) => {
  for (const { key, group, does, run } of list) {
    const keys = Array.isArray(key) ? key : [key];
    for (const one of keys) actions.set(one, run);
    if (!groups.has(group)) groups.set(group, new Map());
    groups.get(group).set(does, keys);
  }
};

// People who speak to their machine, or hit keys by chance, switch single keys off (WCAG 2.1.4); the buttons do the same.
const OFF = "scanner single keys off";
const areOff = () => { try { return localStorage.getItem(OFF) !== null; } catch { return false; } };
const choice = find("#single-keys");
choice.checked = !areOff();
choice.addEventListener("change", () => {
  try { if (choice.checked) localStorage.removeItem(OFF); else localStorage.setItem(OFF, ""); } catch { /* until the page is left */ }
});

const typing = (target) => target.matches("input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea, [contenteditable]");

const showHelp = () => {
  const dialog = find("#help");
  if (dialog.open) { dialog.close(); return; }
  const sections = [...groups].map(([group, entries]) =>
    h("section", {}, h("h3", {}, group),
      h("dl", {}, [...entries].map(([does, keys]) => [h("dt", {}, keys.map((key) => [h("kbd", {}, NAMES[key] ?? key), " "]).flat()), h("dd", {}, does)]).flat())));
  find(".keys", dialog).replaceChildren(...sections);
  dialog.showModal();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const open = find("dialog[open]");
  if (open && event.key !== "?" && !open.hasAttribute("data-keys")) return;
  if (event.key.length === 1 && !choice.checked) return;
  const run = actions.get(event.key);
  // A focused link or button takes Enter, Space; a focused slider takes the arrows.
  if (!run || (event.key === "Enter" && event.target.matches("a, button, summary"))) return;
  if (event.key.startsWith("Arrow") && event.target.matches("input, canvas")) return;
  event.preventDefault();
  run(event);
});

register([{ key: "?", group: "Everywhere", does: "This help", run: showHelp }]);
find("#help-button").addEventListener("click", showHelp);
// What a number means, one click away from it.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-help]");
  if (!button) return;
  showHelp();
  find(`#${button.dataset.help}`).scrollIntoView({ block: "center" });
});
find("#help .close").addEventListener("click", () => find("#help").close());
