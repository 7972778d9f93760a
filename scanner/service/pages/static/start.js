// The start page: the collections, each with its tiles on the sky.

import { get, problem } from "./api.js";
import { find, h, root } from "./dom.js";
import { allCandidates, allTiles } from "./sky_data.js";
import { SkyPlot } from "./sky_plot.js";
import { figures, plural, whole } from "./text.js";

const fact = (name, value) => [h("dt", {}, name), h("dd", {}, value)];

const panel = (collection) => {
  const here = `${root}/c/${encodeURIComponent(collection.slug)}`;
  const sky = h("div", { class: "sky", "data-ratio": "0.62" });
  const names = (list) => (list.length > 3 ? `${list.slice(0, 3).join(", ")} and ${list.length - 3} more` : list.join(", "));
  const element = h("section", { class: "panel collection" },
    h("div", { class: "words" },
      h("h2", {}, h("a", { href: `${here}/candidates` }, collection.title), collection.version ? h("span", { class: "quiet" }, ` version ${collection.version}`) : null),
      h("p", { class: "large" }, h("strong", { class: "number" }, whole(collection.n_candidates)), ` candidate${collection.n_candidates === 1 ? "" : "s"} among ${whole(collection.n_objects)} objects`),
      h("dl", { class: "facts" },
        ...fact("Tiles", `${whole(collection.n_tiles)}${collection.n_failed ? `, ${whole(collection.n_failed)} of them failed` : ""}`),
        ...fact("Area", `${figures(collection.area_deg2)} deg²`),
        ...fact(collection.runs.length === 1 ? "Run" : "Runs", names(collection.runs)),
        ...fact(collection.bundles.length === 1 ? "Bundle" : "Bundles", names(collection.bundles))),
      h("p", { class: "row" },
        h("a", { class: "button first", href: `${here}/candidates` }, "Look at the best"),
        h("a", { class: "button", href: `${here}/tiles` }, "Tiles and scores"),
        h("a", { class: "button", href: `${root}/moc/${encodeURIComponent(collection.slug)}?format=fits`, download: true }, "Footprint (MOC)"))),
    sky);
  return { element, sky };
};

const host = find("#collections");
try {
  const { collections } = await get("collections");
  const panels = collections.map((collection) => ({ collection, ...panel(collection) }));
  host.replaceChildren(...panels.map(({ element }) => element));
  find("#summary").textContent = `${plural(collections.length, "collection")} with ${plural(collections.reduce((sum, one) => sum + one.n_candidates, 0), "candidate")}.`;
  for (const { collection, sky } of panels) {
    const plot = new SkyPlot(sky, { label: `Tiles and best objects of ${collection.title} on the sky` });
    Promise.all([allTiles(collection.slug), allCandidates(collection.slug, 1500)])
      .then(([tiles, candidates]) => { plot.setTiles(tiles); plot.set(candidates); })
      .catch((error) => { plot.reading.textContent = error.message; });
  }
} catch (error) {
  host.replaceChildren(problem(error, () => location.reload()));
}
find("main").dataset.ready = "";
