// The page of one candidate: pictures with controls, scores, its place in the t-SNE map, what is known, downloads, grading.

import { candidateHref, get, idPath, problem, upload } from "./api.js";
import { find, h, root, slug } from "./dom.js";
import { Enlarged } from "./enlarged.js";
import * as keys from "./keys.js";
import { MapPlot } from "./map_plot.js";
import { cutout } from "./pictures.js";
import { sends } from "./samp.js";
import { meaning, memberBars, modelFacts, verdictBars } from "./scores.js";
import { Stretch } from "./stretch.js";
import { degrees, fixed, whole } from "./text.js";
import { neighboursInList } from "./trail.js";

const id = document.documentElement.dataset.candidate;
const here = `collections/${encodeURIComponent(slug)}`;
const mine = `${here}/candidates/${idPath(id)}`;
const steps = { previous: null, next: null };
/** Resolved when they are known: a key may be pressed, and a grade given, before that. */
let stepsAreKnown;
const stepsKnown = new Promise((resolve) => { stepsAreKnown = resolve; });

const fact = (name, ...value) => [h("dt", {}, name), h("dd", {}, ...value)];
const copy = (text) => h("button", { type: "button", class: "copy", "data-copy": text }, "Copy");

const showScores = ({ row }) => {
  const host = find("#scores");
  if (row.withheld) {
    host.replaceChildren(h("p", { class: "quiet" }, "Withheld until you have graded this object."));
    return;
  }
  const known = row.cell_count > 0 ? `Its cell of the map holds ${whole(row.cell_count)} training object${row.cell_count === 1 ? "" : "s"}.` : null;
  const [standing, likelihood] = meaning(row);
  host.replaceChildren(
    h("p", {}, h("strong", {}, standing), likelihood ? `, ${likelihood}` : "", row.is_candidate ? "; a candidate" : "; below the threshold"),
    h("div", { class: "members" }, memberBars(row)),
    h("div", { class: "verdicts" }, verdictBars(row),
      h("details", { class: "small quiet" }, h("summary", {}, "what the calibrated probability means"), "It is stated for the sky, where lenses are rare: that of an unmistakable lens may be 0.02, which is hundreds of times that of an average object. It orders the list, and is as true as the simulations behind it."),
      known && row.grid_value !== null ? h("p", { class: "quiet small" }, known) : null));
};

const showFacts = ({ row, position, links, flags }) => {
  const bad = ["vis", "y", "j", "h"].filter((band) => row[`bad_${band}`] >= 0.0005).map((band) => `${band.toUpperCase()} ${fixed(100 * row[`bad_${band}`], 1)}%`);
  find("#rank").textContent = row.withheld ? "" : whole(row.rank);
  find("#rank").hidden = Boolean(row.withheld);
  const decimal = degrees(row.ra, row.dec).replace("−", "-");
  find("#facts").replaceChildren(
    ...fact("Position", h("span", { class: "mono" }, `${position.ra_text} ${position.dec_text}`)),
    ...fact("", h("span", { class: "mono" }, decimal), " ", copy(decimal)),
    ...fact("VIS", `${fixed(row.magnitude_vis, 2)} mag`),
    ...fact("Tile", h("a", { href: `${root}/c/${encodeURIComponent(slug)}/candidates?${new URLSearchParams({ tile: row.tile_id })}` }, row.tile_id)),
    // As text: numbers of 19 digits are more than a script can count.
    ...fact("Target", id.split("/").at(-1)),
    ...fact("Run", row.run),
    ...fact("Bundle", row.bundle),
    ...(bad.length ? fact("No data", bad.join(", ")) : []),
    ...flags.flatMap(({ word, explanation }) => fact("Flag", h("span", { class: "flag" }, word), h("span", { class: "quiet small" }, ` ${explanation}`))),
  );
  find("#known").replaceChildren(row.known_name
    ? h("p", {}, h("strong", {}, row.known_name), `, ${fixed(row.known_separation, 2)}″ away`, h("span", { class: "quiet" }, ` (${row.known_reference})`))
    : h("p", { class: "quiet" }, "None near, as far as the run was told of any."));
  find("#links").replaceChildren(...links.map(({ name, href }) => h("a", { href, target: "_blank", rel: "noreferrer", class: "button" }, name)));
};

const showModel = ({ row }) => {
  find("#model-facts").replaceChildren(...modelFacts(row).flatMap(([name, text]) => fact(name, text)));
};

/** Other objects as pictures that lead to them, with a line on each. */
const stamps = (items, words) => items.map((item) =>
  h("a", { href: candidateHref(slug, item.id), title: item.withheld ? item.name : `${item.name}, ${meaning(item).filter(Boolean).join(", ")}` },
    h("img", { src: cutout(item.id, { format: "webp", band: "colour", size: 10 }), alt: item.name, width: 100, height: 100, loading: "lazy" }),
    h("span", { class: "number" }, words(item))));

const showNeighbours = async (row) => {
  const map = new MapPlot(find("#map"), { open: (other) => location.assign(candidateHref(slug, other)) });
  const host = find("#neighbours");
  try {
    const [grid, { items }] = await Promise.all([get(`${here}/tsne`, { bins: find("#map").dataset.bins }), get(`${mine}/neighbours`, { limit: 12 })]);
    map.set({ map: grid, self: row, neighbours: items });
    host.replaceChildren(...stamps(items, (item) => (item.withheld ? "" : `rank ${whole(item.rank)}`)));
    if (!items.length) host.replaceChildren(h("p", { class: "quiet" }, "No other object is near it."));
  } catch (error) {
    host.replaceChildren(problem(error));
  }
};

/** What the networks see alike: to this object, or to a cutout of the reader's own. */
const showSimilar = async (asked, ofWhat) => {
  const host = find("#similar .stamps"), said = find("#similar [role=status]");
  said.textContent = "Looking…";
  try {
    const { items } = await asked;
    host.replaceChildren(...stamps(items, (item) => `${fixed(item.similarity, 2)}, rank ${whole(item.rank)}`));
    said.textContent = items.length ? `Like ${ofWhat}: similarity (1: the same) and rank.` : "There is no other.";
  } catch (error) {
    said.textContent = "";
    host.replaceChildren(problem(error));
  }
};
find("#similar input")?.addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) showSimilar(upload(`${here}/similar?limit=18`, file, "application/octet-stream"), file.name);
});

const showDownloads = (look) => {
  const kept = (band) => Object.fromEntries(Object.entries(look).filter(([name]) => band === "colour" || name !== "saturation"));
  for (const link of document.querySelectorAll("#downloads [data-band]")) link.href = cutout(id, { format: "png", band: link.dataset.band, zoom: 3, ...kept(link.dataset.band) });
};

const go = async (name) => { await stepsKnown; if (steps[name]) location.assign(candidateHref(slug, steps[name])); };

const showSteps = async (answer) => {
  const inList = await neighboursInList(slug, id).catch(() => null);
  steps.previous = inList ? inList.previous : answer.previous;
  steps.next = inList ? inList.next : answer.next;
  stepsAreKnown();
  for (const name of ["previous", "next"]) {
    const link = find(`#${name}`);
    if (steps[name]) link.href = candidateHref(slug, steps[name]);
    else link.removeAttribute("href");
  }
  const query = inList ? Object.entries(inList.query).filter(([name]) => name !== "order") : [];
  find("#back").href = `${root}/c/${encodeURIComponent(slug)}/candidates?${new URLSearchParams(query)}#${encodeURIComponent(id)}`;
  // The next one's pictures, so that going through a list does not wait for them.
  if (steps.next) for (const band of ["VIS", "colour"]) new Image().src = cutout(steps.next, { format: "webp", band, size: 10 });
};

const form = find("#stretch");
form.addEventListener("scanner:look", (event) => showDownloads(event.detail));
const stretch = new Stretch(form, document.querySelectorAll("#pictures img[data-band]"), id);

const enlarged = new Enlarged(find("#large"), [...document.querySelectorAll("#pictures figure")]);

sends(find("#send"), find("#sent"), "image.load.fits", () => ({ url: cutout(id, { format: "fits", band: "VIS" }), name: `${document.title} VIS` }));

const step = (name) => () => { if (enlarged.isOpen) enlarged.step(name === "next" ? 1 : -1); else go(name); };
keys.register([
  { key: ["j", "ArrowRight"], group: "Candidate", does: "Next object", run: step("next") },
  { key: ["k", "ArrowLeft"], group: "Candidate", does: "Previous object", run: step("previous") },
  { key: ["Escape", "l"], group: "Candidate", does: "Back to the list", run: () => { if (enlarged.isOpen) enlarged.toggle(); else location.assign(find("#back").href); } },
  ...enlarged.keys(),
  ...stretch.keys(),
  { key: "d", group: "Pictures", does: "Download the cutouts as FITS", run: () => find("#download-fits").click() },
]);

const panel = find("#grading");
if (panel) {
  const { mount } = await import("./grading.js");
  mount(panel, { candidateId: id, slug, root, keys });
  document.addEventListener("scanner:graded", (event) => { if (event.detail?.advance) go("next"); });
}

try {
  const answer = await get(mine);
  showFacts(answer);
  showScores(answer);
  if (document.querySelector("#model-facts")) showModel(answer);
  // Blind graders have no map: it tells of all scores.
  await Promise.all([
    showSteps(answer),
    find("#map") ? showNeighbours(answer.row) : null,
    find("#similar") ? showSimilar(get(`${mine}/similar`, { limit: 18 }), "this object") : null,
  ]);
} catch (error) {
  find("#scores").replaceChildren(problem(error, () => location.reload()));
}
find("main").dataset.ready = "";
