"use strict";
(() => {
  const main = document.getElementById("candidates");
  const cards = [...main.querySelectorAll(".card")];
  const nothing = document.getElementById("nothing");
  // The threshold stands before a card, and means something only in the order of ranks.
  const line = document.getElementById("threshold"), belowLine = line && line.nextElementSibling;
  const tool = (id) => document.getElementById(id);
  const storageKey = "scanner marks " + location.pathname;

  // Marks: kept in this browser; a browser that forbids it keeps them until the page is closed.
  let marks = new Set();
  try { marks = new Set(JSON.parse(localStorage.getItem(storageKey) || "[]")); } catch { marks = new Set(); }
  const showMark = (card) => {
    const marked = marks.has(card.dataset.name);
    card.classList.toggle("marked", marked);
    const button = card.querySelector(".mark");
    button.setAttribute("aria-pressed", String(marked));
    button.textContent = marked ? "Marked" : "Mark";
  };
  const toggleMark = (card) => {
    const name = card.dataset.name;
    if (!marks.delete(name)) marks.add(name);
    showMark(card);
    try { localStorage.setItem(storageKey, JSON.stringify([...marks])); } catch { /* private window */ }
  };

  // Sort and filter.
  const shown = () => [...main.querySelectorAll(".card:not([hidden])")];
  const number = (text) => (text === "" ? NaN : Number(text));
  const arrange = () => {
    const key = tool("sort").value;
    const sign = tool("sort").selectedOptions[0].hasAttribute("data-down") ? -1 : 1;
    const value = (card) => {
      const v = number(card.getAttribute("data-" + key));
      return Number.isNaN(v) ? Infinity : sign * v;
    };
    const keyed = cards.map((card) => [value(card), Number(card.dataset.rank), card]);
    keyed.sort((a, b) => (a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1));
    keyed.forEach(([, , card]) => main.insertBefore(card, nothing));
    if (line) {
      line.hidden = key !== "rank";
      main.insertBefore(line, belowLine);
    }
  };
  const filter = () => {
    const flag = tool("flags").value, least = Number(tool("least").value) || 0;
    const words = tool("find").value.toLowerCase().split(/\s+/).filter(Boolean), onlyMarked = tool("marked").checked, onlyCandidates = tool("candidates-only").checked;
    let count = 0;
    for (const card of cards) {
      const flags = card.dataset.flags, text = card.dataset.find.toLowerCase();
      const keep = (flag === "" || (flag === "none" ? flags === "" : flags.split("|").includes(flag)))
        && (least <= 0 || number(card.dataset.calibrated) >= least)
        && words.every((word) => text.includes(word))
        && (!onlyCandidates || "candidate" in card.dataset)
        && (!onlyMarked || marks.has(card.dataset.name));
      card.hidden = !keep;
      count += keep;
    }
    nothing.hidden = count > 0;
    tool("count").textContent = count === cards.length ? `${count} shown` : `${count} of ${cards.length} shown`;
  };

  // Copying works from a file on disk too, where the clipboard API may be missing.
  const copy = async (text, button) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = document.createElement("textarea");
      area.value = text;
      (button.closest("dialog") || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label === "Copied" ? "Copy" : label; }, 900);
  };

  const showField = () => document.body.classList.toggle("near", tool("field").value === "near");

  // Where the reader is, and the enlarged view of it.
  const dialog = tool("large");
  let current = null;
  const adjust = () => {
    const filters = `brightness(${tool("brightness").value})` + (tool("invert").checked ? " invert(1)" : "");
    dialog.querySelectorAll("img").forEach((image) => { image.style.filter = filters; });
  };
  const enlarge = (card) => {
    const figures = [...card.querySelectorAll("figure")].map((figure) => figure.cloneNode(true));
    figures.forEach((figure) => figure.querySelector("img").removeAttribute("loading"));
    dialog.querySelector("h2").textContent = `${card.dataset.rank}  ${card.dataset.name}`;
    const verdict = [...card.querySelectorAll(".verdict")].map((score) => score.textContent.trim().replace(/\s+/g, " "));
    dialog.querySelector(".note").textContent = verdict.join(" · ");
    dialog.querySelector(".pictures").replaceChildren(...figures);
    adjust();
    if (!dialog.open) dialog.showModal();
  };
  const visit = (card) => {
    current = card;
    if (dialog.open) { enlarge(card); card.scrollIntoView({ block: "nearest" }); return; }
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  };
  const step = (by) => {
    const list = shown();
    if (!list.length) return;
    const at = list.indexOf(current);
    visit(list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))]);
  };

  main.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    current = card;
    if (event.target.closest(".zoom")) enlarge(card);
    if (event.target.closest(".mark")) toggleMark(card);
  });
  main.addEventListener("focusin", (event) => { current = event.target.closest(".card") || current; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) copy(button.dataset.copy, button);
  });
  tool("copy-marked").addEventListener("click", (event) => {
    const lines = cards.filter((card) => marks.has(card.dataset.name)).map((card) => {
      const [ra, dec] = card.dataset.position.split(" ");
      return [card.dataset.rank, card.dataset.name, ra, dec].join(",");
    });
    copy(["rank,name,ra,dec", ...lines].join("\n") + "\n", event.currentTarget);
  });
  tool("field").addEventListener("change", showField);
  tool("sort").addEventListener("change", arrange);
  for (const id of ["flags", "least", "find", "marked", "candidates-only"]) tool(id).addEventListener("input", filter);
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  tool("brightness").addEventListener("input", adjust);
  tool("invert").addEventListener("input", adjust);
  tool("previous").addEventListener("click", () => step(-1));
  tool("next").addEventListener("click", () => step(1));
  tool("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (current) current.focus({ preventScroll: true }); });

  document.addEventListener("click", (event) => { if (event.target.closest('a[href="#about-p"]')) document.querySelector(".legend").open = true; });
  const brighten = (by) => { tool("brightness").valueAsNumber *= by; adjust(); };
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    z: () => { if (dialog.open) dialog.close(); else if (current || shown()[0]) { current = current || shown()[0]; enlarge(current); } },
    c: () => { tool("field").value = tool("field").value ? "" : "near"; showField(); },
    m: () => { if (current) toggleMark(current); },
    i: () => { tool("invert").checked = !tool("invert").checked; adjust(); },
    "+": () => brighten(1.25),
    "=": () => brighten(1.25),
    "-": () => brighten(0.8),
    "/": () => tool("find").focus(),
  };
  // People who speak to their machine, or hit keys by chance, switch single keys off (WCAG 2.1.4); the buttons do the same.
  const singleKeys = tool("single-keys"), OFF = "scanner single keys off";
  try { singleKeys.checked = localStorage.getItem(OFF) === null; } catch { /* private window */ }
  singleKeys.addEventListener("change", () => {
    try { if (singleKeys.checked) localStorage.removeItem(OFF); else localStorage.setItem(OFF, ""); } catch { /* until the page is left */ }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (!singleKeys.checked || event.ctrlKey || event.metaKey || event.altKey || typing || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  showField();
  cards.forEach(showMark);
})();
