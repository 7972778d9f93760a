// The tiles of a collection on the sky and in a table, what failed and why, and the scores of all objects.

import { get, problem } from "./api.js";
import { fit, histogram, purity, purityCurve } from "./charts.js";
import { calm, find, h, root, slug } from "./dom.js";
import { register } from "./keys.js";
import { allCandidates, allTiles } from "./sky_data.js";
import { SkyPlot } from "./sky_plot.js";
import { figures, percent, plural, whole } from "./text.js";

const here = `collections/${encodeURIComponent(slug)}`;
const AT_ONCE = 100;
let tiles = [];
let most = AT_ONCE;

const sky = new SkyPlot(find("#sky"), {
  label: "Tiles on the sky: click one to find it in the table",
  pick(ra, dec, tile) {
    if (!tile) return;
    find("#find").value = tile.tile_id;
    showTable();
  },
});

const candidatesOf = (tile) => `${root}/c/${encodeURIComponent(slug)}/candidates?${new URLSearchParams({ tile: tile.tile_id })}`;

const row = (tile) => h("tr", { class: tile.state },
  h("td", {}, tile.tile_id),
  h("td", {}, tile.state === "failed" ? h("span", { class: "failed" }, "failed") : "done"),
  h("td", { class: "number" }, tile.state === "failed" ? "" : tile.n_candidates ? h("a", { href: candidatesOf(tile) }, whole(tile.n_candidates)) : "0"),
  h("td", { class: "number" }, tile.state === "failed" ? "" : whole(tile.n_scored)),
  h("td", { class: "number" }, tile.state === "failed" ? "" : `${figures(tile.sky_area_deg2)}`),
  h("td", {}, tile.reason || ""));

const ORDERS = {
  candidates: (a, b) => b.n_candidates - a.n_candidates || a.tile_id.localeCompare(b.tile_id),
  scored: (a, b) => b.n_scored - a.n_scored || a.tile_id.localeCompare(b.tile_id),
  tile: (a, b) => a.tile_id.localeCompare(b.tile_id),
};

const showTable = () => {
  const words = find("#find").value.trim().toLowerCase();
  const state = find("#state").value;
  const kept = tiles.filter((tile) => (!state || tile.state === state) && (!words || `${tile.tile_id} ${tile.reason ?? ""}`.toLowerCase().includes(words)));
  kept.sort(ORDERS[find("#order").value]);
  find("#tiles tbody").replaceChildren(...kept.slice(0, most).map(row));
  find("#tile-count").textContent = kept.length > most ? `${whole(most)} of ${plural(kept.length, "tile")}` : plural(kept.length, "tile");
  find("#more").hidden = kept.length <= most;
  sky.set({ chosenTile: kept.length === 1 ? sky.tiles.find((tile) => tile.tile_id === kept[0].tile_id) : null });
};

find("#find").addEventListener("input", calm(() => { most = AT_ONCE; showTable(); }, 120));
for (const name of ["#state", "#order"]) find(name).addEventListener("change", () => { most = AT_ONCE; showTable(); });
find("#more").addEventListener("click", () => { most += 10 * AT_ONCE; showTable(); });
register([{ key: "/", group: "Tiles", does: "Find a tile", run: () => find("#find").focus() }]);

const showTiles = async () => {
  tiles = await allTiles(slug);
  const failed = tiles.filter((tile) => tile.state === "failed").length;
  sky.setTiles(tiles);
  const lost = tiles.length - sky.tiles.length;
  find("#summary").textContent = `${plural(tiles.length - failed, "tile")} scanned, ${whole(failed)} failed.${lost ? ` The place of ${whole(lost)} of them is not known.` : ""}`;
  if (failed) find("#state").value = "failed";
  showTable();
  sky.set(await allCandidates(slug, 3000));
};

const showScores = async () => {
  const [calibrated, grid] = await Promise.all([
    get(`${here}/histogram`, { column: "p_calibrated", bins: 50, scale: "log" }),
    get(`${here}/histogram`, { column: "grid_value", bins: 50, scale: "linear" }),
  ]);
  fit(find("#calibrated"), histogram(calibrated, { title: "calibrated lens probability", log: true }));
  if (grid.objects.some((n) => n > 0)) fit(find("#grid"), histogram(grid, { title: "grid value", log: false }));
  else find("#grid-panel").hidden = true;
  const best = purity(calibrated);
  find("#expected").textContent = best.count ? `${figures(best.expected)} lenses expected among ${plural(best.count, "candidate")}: ${percent(best.expected / best.count)}.` : "There are no candidates.";
  if (best.count) fit(find("#purity"), purityCurve(best));
};

await Promise.all([
  showTiles().catch((error) => find("#summary").replaceChildren(problem(error, () => location.reload()))),
  // Blind graders have no place for them.
  find("#calibrated") && showScores().catch((error) => find("#calibrated").replaceChildren(problem(error, () => location.reload()))),
]);
find("main").dataset.ready = "";
