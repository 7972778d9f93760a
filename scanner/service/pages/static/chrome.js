// What every page does besides its own: keys for going about, the choice of colours, buttons that copy.

import { find, root, slug } from "./dom.js";
import { register } from "./keys.js";

const go = (path) => () => { location.assign(root + path); };
const here = `/c/${encodeURIComponent(slug)}`;
register([
  { key: "H", group: "Everywhere", does: "Start page", run: go("/") },
  { key: "C", group: "Everywhere", does: "Campaigns", run: go("/campaigns") },
  ...(slug ? [
    { key: "L", group: "Everywhere", does: "Candidates", run: go(`${here}/candidates`) },
    { key: "T", group: "Everywhere", does: "Tiles", run: go(`${here}/tiles`) },
  ] : []),
]);

const html = document.documentElement;
find("#theme").addEventListener("click", () => {
  const dark = html.dataset.theme ? html.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  html.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("scanner theme", html.dataset.theme); } catch { /* kept until the page is left */ }
  document.dispatchEvent(new Event("scanner:theme"));
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = button.dataset.copy;
    return;
  }
  setTimeout(() => { button.textContent = label; }, 900);
});
