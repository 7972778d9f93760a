// Who moved when the run was scored again: ranks and probabilities by the bundles before and after.

import { candidateHref, get, problem } from "./api.js";
import { find, h, slug } from "./dom.js";
import { cutout } from "./pictures.js";
import { plural, score, whole } from "./text.js";

const body = find("#moved tbody");
const order = find("#order");
let next = 0;

const rank = (value) => (value ? whole(value) : "not among them");
const CANDIDATE = { truetrue: "as before", falsetrue: "now", truefalse: "no longer", falsefalse: "" };

const row = (item) => {
  const picture = item.id && h("img", { src: cutout(item.id, { format: "webp", band: "colour", size: 10 }), alt: "", width: 64, height: 64, loading: "lazy" });
  return h("tr", {},
    h("td", {}, picture),
    h("td", { class: "mono" }, item.id ? h("a", { href: candidateHref(slug, item.id) }, item.name) : item.name),
    ...[rank(item.rank_before), rank(item.rank_after), score(item.p_before), score(item.p_after)].map((text) => h("td", { class: "number" }, text)),
    h("td", {}, CANDIDATE[`${item.candidate_before}${item.candidate_after}`]));
};

const show = async () => {
  const asked = order.value;
  try {
    const answer = await get(`collections/${encodeURIComponent(slug)}/moved`, { order: asked, after: next, limit: 50 });
    if (asked !== order.value) return;
    body.append(...answer.items.map(row));
    next = answer.next;
    find("#summary").textContent = `From ${answer.before} to ${answer.after}: ${plural(answer.total, "object")} among the best before or now.`;
    find("#more").hidden = next === null;
  } catch (error) {
    find("#summary").replaceChildren(problem(error, show));
  }
};
order.addEventListener("change", () => { body.replaceChildren(); next = 0; show(); });
find("#more").addEventListener("click", show);
await show();
find("main").dataset.ready = "";
