// Inside the frame: Aladin Lite from the CDS, told by the page around it what to show.
"use strict";
(() => {
  const SOURCE = "https://aladin.cds.unistra.fr/AladinLite/api/v3/latest/aladin.js";
  const say = (word) => parent.postMessage(word, "*");

  // Aladin Lite keeps its settings in storages that a frame without an origin does not have: these last as long as the frame.
  const storage = () => {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => { kept.set(key, String(value)); },
      removeItem: (key) => { kept.delete(key); },
      clear: () => { kept.clear(); },
    };
  };
  for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { value: storage() });

  const show = (aladin, { view, candidates, tiles }) => {
    aladin.gotoRaDec(view.ra, view.dec);
    aladin.setFoV(Math.min(view.field, 180));
    const outlines = A.graphicOverlay({ color: "#56b4e9", lineWidth: 1, name: "Tiles" });
    aladin.addOverlay(outlines);
    outlines.addFootprints(tiles.map((outline) => A.polygon(outline)));
    const sources = A.catalog({ name: "Candidates", shape: "circle", color: "#e69f00", sourceSize: 14, onClick: "showPopup" });
    aladin.addCatalog(sources);
    sources.addSources(candidates.map(({ ra, dec, name }) => A.source(ra, dec, { name })));
  };

  const begin = async () => {
    await A.init;
    const aladin = A.aladin("#sky", { survey: "P/DSS2/color", fov: 1, showReticle: false, cooFrame: "ICRSd" });
    addEventListener("message", (event) => { if (event.source === parent) show(aladin, event.data); });
    say("loaded");
  };

  const script = document.createElement("script");
  script.src = SOURCE;
  script.addEventListener("load", () => begin().catch(() => say("failed")));
  script.addEventListener("error", () => say("failed"));
  document.head.append(script);
})();
