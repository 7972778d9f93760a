// One object in the gallery: two pictures, its place, name, score, and what speaks against or for it.

import { candidateHref } from "./api.js";
import { h, slug } from "./dom.js";
import { cutout } from "./pictures.js";
import { flagTags, meaning, modelTag } from "./scores.js";
import { fixed, score, whole } from "./text.js";

/** How long to wait, in milliseconds, before a picture is asked for again: who scrolls fast is told to come later. */
const WAITS = [1500, 5000, 12000];

const again = (image) => {
  const wait = WAITS[Number(image.dataset.tries ?? 0)];
  if (wait === undefined) { image.classList.add("failed"); return; }
  image.dataset.tries = String(Number(image.dataset.tries ?? 0) + 1);
  const source = image.src;
  setTimeout(() => { if (image.isConnected && image.src === source) image.src = source; }, wait);
};

const picture = (item, band, look, words) =>
  h("img", { src: cutout(item.id, { format: "webp", band, ...look.query(band) }), alt: `${words} of ${item.name}`, width: 200, height: 200, loading: "lazy", decoding: "async", fetchpriority: "low", "data-band": band, onerror: (event) => again(event.target) });

/**
 * @param {object} item of the API's list of candidates
 * @param {import("./pictures.js").Look} look
 */
export const card = (item, look) => {
  const verdict = item.withheld
    ? h("span", { class: "quiet" }, "withheld until graded")
    : h("button", { type: "button", class: "number", "data-help": "about-p", title: "Calibrated lens probability: what it means" }, `p ${score(item.p_calibrated)}`);
  const [standing, likelihood] = item.withheld ? [] : meaning(item);
  const grid = item.withheld || item.grid_value === null ? null : h("span", { class: "number quiet", title: "Share of lenses in its cell of the t-SNE grid" }, `grid ${score(item.grid_value)}`);
  return h("article", { class: "card", "data-id": item.id },
    h("a", { href: candidateHref(slug, item.id), class: "open", "aria-label": `Open ${item.name}` },
      h("span", { class: "pictures" }, picture(item, "VIS", look, "VIS image"), picture(item, "colour", look, "Colour image"))),
    h("div", { class: "title" },
      item.withheld ? null : h("span", { class: "rank" }, whole(item.rank)),
      h("span", { class: "name mono" }, item.name),
      item.grade ? h("span", { class: "grade", title: "Your grade" }, item.grade) : null),
    standing ? h("div", { class: "line" }, h("strong", {}, likelihood ?? standing), likelihood ? h("span", { class: "quiet" }, standing) : null) : null,
    h("div", { class: "line" }, verdict, grid, h("span", { class: "number quiet" }, `VIS ${fixed(item.magnitude_vis, 2)}`)),
    h("div", { class: "line tags" },
      item.is_candidate ? h("span", { class: "candidate-mark", title: "It reaches the threshold" }, "candidate") : null,
      modelTag(item),
      item.known_name ? h("span", { class: "known", title: `${fixed(item.known_separation, 2)}″ away, ${item.known_reference}` }, `known: ${item.known_name}`) : null,
      flagTags(item)));
};
