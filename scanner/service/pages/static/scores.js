// The scores of one object: what its rank and probability mean, and as bars the members, the grid value, the probability.

import { h } from "./dom.js";
import { likelihood, score, standing } from "./text.js";
import { flagWords, members, objects, skyPrevalence } from "./words.js";

const bar = (label, title, value, kind) => {
  const share = h("i");
  share.style.width = `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
  return h("p", { class: `score ${kind}`, title }, h("span", { class: "label" }, label), h("span", { class: "bar", "aria-hidden": "true" }, share), h("span", { class: "value" }, score(value)));
};

export const memberBars = (row) => members.map(({ column, name, title, kind }) => bar(name, title, row[column], kind));

/** Its place among all objects, and how it stands beside an average one: [words, words], the second one perhaps null. */
export const meaning = (row) => [standing(row.rank, objects), likelihood(row.p_calibrated, skyPrevalence[row.run])];

/** What decides: the grid value where there is a grid, and the calibrated probability. */
export const verdictBars = (row) => [
  row.grid_value === null || row.grid_value === undefined ? null : bar("grid", "Share of lenses in its cell of the t-SNE grid", row.grid_value, "verdict"),
  bar("calibrated", "All scores as one probability", row.p_calibrated, "verdict"),
].filter(Boolean);

/** The flags of an object as words with their meaning to hover. */
export const flagTags = (row) => flagWords.filter(({ bit }) => row.flags & bit).map(({ word, explanation }) => h("span", { class: "flag", title: explanation }, word));
