// Elements without markup in strings: what comes from the catalogue is only ever text, so no name can become a script.

const SVG = "http://www.w3.org/2000/svg";

const build = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

/** One HTML element: `h("a", {href, class}, "text", child)`; attributes that are null or false are left out, `onclick` listens. */
export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

/** The same in SVG. */
export const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

export const find = (selector, within = document) => within.querySelector(selector);

/** The prefix of all addresses: empty unless the service lies below a path of another server. */
export const root = document.documentElement.dataset.root ?? "";

/** The collection that the page is about, or an empty text. */
export const slug = document.documentElement.dataset.slug ?? "";

/** A place for one of the plots' colours, as the style sheet has it now. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Call `draw` when the page changes between light and dark. */
export const onTheme = (draw) => {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("scanner:theme", draw);
};

/** Wait until calls stop for `milliseconds`, then do the last. */
export const calm = (action, milliseconds) => {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), milliseconds);
  };
};
