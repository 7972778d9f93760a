// The gallery: filters and sky map beside an endless list of the best objects, the threshold a line across it.

import { candidateHref, get } from "./api.js";
import { AladinPanel } from "./aladin_panel.js";
import { card } from "./card.js";
import { find, h, root, slug } from "./dom.js";
import { EndlessList } from "./endless_list.js";
import { Filters } from "./filters.js";
import { register } from "./keys.js";
import { Look } from "./pictures.js";
import { allTiles } from "./sky_data.js";
import { sends } from "./samp.js";
import { SkyPlot } from "./sky_plot.js";
import { plural, whole } from "./text.js";
import { remember } from "./trail.js";
import { lastCandidate } from "./words.js";

const PAGE = 60;
/** A list that is longer is drawn, and gone through from candidate to candidate, from its last ones. */
const MOST_REMEMBERED = 2000;
const NOTHING = { order: 0, cells: [] };
const here = `collections/${encodeURIComponent(slug)}`;
const host = find("#candidates");
const count = find("#count");
const look = new Look();
let asking = new AbortController();
/** How many objects the list has, and how many of them the reader has graded; null: not known. */
let [total, graded] = [null, null];
/** Id of the first object below the threshold, where the list is in the order of ranks. */
let belowThreshold = null;
let at = -1;
let density = NOTHING;

const sky = new SkyPlot(find("#sky"), {
  label: "Sky map of the objects: click to ask for what is there",
  pick(ra, dec, tile, reach) {
    filters.set({ cone: `${ra.toFixed(5)} ${dec.toFixed(5)} ${Math.max(reach, 1 / 3600).toPrecision(3)}deg` });
  },
});

const list = new EndlessList(host, {
  async load(cursor) {
    const answer = await get(`${here}/candidates`, { ...filters.query(), limit: PAGE, after: cursor ?? "" }, asking.signal);
    if (cursor === null) [total, graded] = [answer.total, answer.graded];
    return answer;
  },
  render(item) {
    if (belowThreshold === null && filters.isByRank() && item.rank > lastCandidate) belowThreshold = item.id;
    if (item.id !== belowThreshold) return [card(item, look)];
    return [h("p", { class: "threshold" }, lastCandidate ? "Threshold: no object from here on reaches it" : "No object reaches the threshold: these are the best by rank"), card(item, look)];
  },
  changed() {
    const items = list.items();
    if (total !== null) count.textContent = `${plural(total, "object")}${graded === null ? "" : `, ${whole(graded)} graded by you`}`;
    find("#nothing").hidden = items.length > 0 || !list.done;
    const last = items.slice(-MOST_REMEMBERED);
    remember(slug, filters.query(), last.map((item) => item.id), list.next);
    sky.set({ dots: last, density: list.done || filters.narrowing().length ? NOTHING : density });
  },
});

const filters = new Filters(find("#filters"), () => {
  asking.abort();
  asking = new AbortController();
  [total, graded] = [null, null];
  belowThreshold = null;
  at = -1;
  count.textContent = "…";
  find("#seed").hidden = find("[name=sort]").value !== "random";
  find("#chosen-filters").textContent = String(filters.narrowing().length || "");
  for (const link of document.querySelectorAll("[data-table]")) {
    link.href = `${root}/api/v1/${here}/table?${new URLSearchParams({ ...filters.query(), format: link.dataset.table })}`;
  }
  sky.set({ cone: filters.cone(), chosen: null });
  list.restart();
});

/** Mark the candidate that the keyboard is at, and show it. */
const visit = async (index) => {
  if (index >= list.items().length) await list.more();
  const items = list.items();
  if (!items.length) return;
  at = Math.max(0, Math.min(items.length - 1, index));
  host.querySelectorAll(".card.at").forEach((element) => element.classList.remove("at"));
  const element = list.element(at);
  element.classList.add("at");
  find("a.open", element).focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
  sky.set({ chosen: items[at].id });
};

/** How many cards stand side by side. */
const columns = () => {
  const [first] = host.querySelectorAll(".page");
  return first ? getComputedStyle(first).gridTemplateColumns.split(" ").length : 1;
};

const showLook = () => {
  find("#field").value = String(look.size);
  find("#deflector").checked = look.deflector;
};

const restyle = () => {
  showLook();
  for (const page of list.pages) { if (page.filled) { list.drop(page); list.fill(page); } }
};

host.addEventListener("focusin", (event) => {
  const id = event.target.closest(".card")?.dataset.id;
  const index = list.items().findIndex((item) => item.id === id);
  if (index >= 0 && index !== at) { at = index; sky.set({ chosen: id }); }
});
find("#field").addEventListener("change", (event) => { look.set({ size: Number(event.target.value) }); restyle(); });
find("#deflector").addEventListener("change", (event) => { look.set({ deflector: event.target.checked }); restyle(); });
showLook();

sends(find("#send"), find("#sent"), "table.load.votable", () => ({ url: find("[data-table=votable]").href, name: document.title }));

register([
  { key: ["j", "ArrowRight"], group: "Gallery", does: "Next object", run: () => visit(at + 1) },
  { key: ["k", "ArrowLeft"], group: "Gallery", does: "Previous object", run: () => visit(at - 1) },
  { key: "ArrowDown", group: "Gallery", does: "One row down", run: () => visit(at < 0 ? 0 : at + columns()) },
  { key: "ArrowUp", group: "Gallery", does: "One row up", run: () => visit(at - columns()) },
  { key: ["Enter", "o"], group: "Gallery", does: "Open the object", run: () => { const item = list.items()[Math.max(at, 0)]; if (item) location.assign(candidateHref(slug, item.id)); } },
  { key: "f", group: "Gallery", does: "Close-up or whole field", run: () => { look.set({ size: look.size === 10 ? 20 : 10 }); restyle(); } },
  { key: "i", group: "Gallery", does: "Invert the pictures", run: () => { look.set({ invert: !look.invert }); restyle(); } },
  { key: "s", group: "Gallery", does: "VIS with or without the light of the galaxy in the middle", run: () => { look.set({ deflector: !look.deflector }); restyle(); } },
  { key: "/", group: "Gallery", does: "Find by name", run: () => { find("#filter-panel").open = true; find("[name=name]").focus(); } },
  { key: "Escape", group: "Gallery", does: "Forget the filters", run: () => find("#filters").reset() },
]);

// Filters take the room of a whole screen on a telephone: there they are opened by hand.
find("#filter-panel").open = matchMedia("(min-width: 900px)").matches;

new AladinPanel(find("#aladin"), () => ({
  view: { ra: sky.view.ra, dec: sky.view.dec, field: sky.view.field },
  tiles: sky.tiles.map((tile) => tile.outline),
  candidates: list.items().slice(-MOST_REMEMBERED).map(({ ra, dec, name }) => ({ ra, dec, name })),
}));

// The list does not wait for the map.
filters.changed();
const onSky = (asked, show) => asked.then(show, (error) => { sky.reading.textContent = error.message; });
onSky(allTiles(slug), (tiles) => sky.setTiles(tiles));
onSky(get(`${here}/sky`, { max_cells: 4000 }), (counted) => { density = counted; list.changed(); });

// Back from a candidate, whose id is behind the #: to where it stands in the list.
const MOST_PAGES = 20;
const cameFrom = decodeURIComponent(location.hash.slice(1));
if (cameFrom) {
  const place = () => list.items().findIndex((item) => item.id === cameFrom);
  for (let pages = 0; place() < 0 && !list.done && pages < MOST_PAGES; pages += 1) await list.more();
  if (place() >= 0) await visit(place());
}
