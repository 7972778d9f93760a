// Which colours: what the reader chose, else what the system says. Runs before the page is drawn, so it is no module.
"use strict";
(() => {
  const root = document.documentElement;
  let chosen = null;
  try { chosen = localStorage.getItem("scanner theme"); } catch { /* a browser that keeps nothing follows the system */ }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
})();
