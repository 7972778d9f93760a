// The scores of one object: what its rank and probability mean, and as bars the members, the grid value, the probability.

import { h } from "./dom.js";
import { figures, fixed, likelihood, score, standing, whole } from "./text.js";
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

/** What the lens model of an object says, as a mark where it speaks for a lens; null elsewhere. */
export const modelTag = (row) => {
  if (row.model_verdict !== "certified" && row.model_verdict !== "consistent") return null;
  const title = `Lens model: Einstein radius ${fixed(row.theta_e, 2)}″ ± ${fixed(row.theta_e_err, 2)}″, ln evidence ratio ${fixed(row.ln_evidence_ratio, 1)}`;
  return row.model_verdict === "certified" ? h("span", { class: "candidate-mark certified", title }, "certified") : h("span", { class: "known", title }, "lens model: consistent");
};

/** The numbers of an object's lens model: [name, text] of each. */
export const modelFacts = (row) => [
  ["Verdict", row.model_verdict],
  ["Status", row.model_status],
  ...(row.theta_e === null ? [] : [
    ["Einstein radius", `${fixed(row.theta_e, 3)}″ ± ${fixed(row.theta_e_err, 3)}″`],
    ["Einstein radius, a network's", `${fixed(row.theta_e_network, 2)}″, agreement ${fixed(row.theta_e_agreement, 2)}`],
    ["Axis ratio", `${fixed(row.mass_q, 2)} ± ${fixed(row.mass_q_err, 2)}`],
    ["Position angle", `${fixed(row.mass_pa, 0)}° east of north`],
    ["Shear", `${fixed(row.shear, 3)} at ${fixed(row.shear_pa, 0)}°`],
    ["ln evidence ratio", fixed(row.ln_evidence_ratio, 1)],
    ["Best without a lens", { ring: "a galaxy with a ring", spiral: "a galaxy with spiral arms" }[row.model_pattern] ?? "galaxies side by side"],
    ["Probability, with the networks", score(row.p_lens_modelled)],
    ["Arc S/N", `${whole(row.arc_snr)}, of the counter-image ${whole(row.counter_image_snr)}`],
    ["Images", `${row.n_images}, magnified ${figures(row.model_magnification)} times`],
    ["Sources", row.n_sources === 2 ? "2, of different colours" : "1"],
    ["Source, unlensed", `VIS ${fixed(row.source_magnitude_vis, 1)}, ${fixed(row.source_radius, 2)}″`],
    ["χ² a pixel", `${fixed(row.chi2_lens / row.n_model_pixels, 2)}, without a lens ${fixed(row.chi2_companions / row.n_model_pixels, 2)}`],
    ["PSF", row.model_psf],
  ]),
];
