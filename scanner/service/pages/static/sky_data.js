// What a sky plot shows of a collection: its tiles, and its best objects one by one where they are few, else their density.

import { get } from "./api.js";

const FEW = 1000;

/** All tiles, however many pages they come in. */
export const allTiles = async (slug) => {
  const tiles = [];
  for (let after = 0; after !== null;) {
    const { items, next } = await get(`collections/${encodeURIComponent(slug)}/tiles`, { after });
    tiles.push(...items);
    after = next;
  }
  return tiles;
};

/** {dots} or {density}, as SkyPlot.set takes them. */
export const allCandidates = async (slug, maxCells) => {
  const here = `collections/${encodeURIComponent(slug)}`;
  const { n_listed: number } = await get(here);
  if (number > FEW) return { density: await get(`${here}/sky`, { max_cells: maxCells }) };
  return { dots: (await get(`${here}/candidates`, { limit: FEW })).items };
};
