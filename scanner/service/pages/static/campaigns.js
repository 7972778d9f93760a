// The campaigns: how far each is, and, for those who may, how it goes on.

import { get, problem, send } from "./api.js";
import { find, h, root } from "./dom.js";
import { plural, whole } from "./text.js";

const host = find("#list");
const when = (text) => `${new Date(text).toISOString().slice(0, 16).replace("T", " ")} UTC`;

const change = (one, state, words, sure = null) => h("button", { type: "button", onclick: async () => {
  if (sure !== null && !confirm(sure)) return;
  try {
    await send("PUT", `campaigns/${encodeURIComponent(one.name)}/state`, { state });
    await show();
  } catch (error) { host.prepend(problem(error)); }
} }, words);

const progress = (one) => [
  h("p", { class: "row" },
    h("progress", { max: one.n_objects, value: one.n_done, "aria-label": `Objects of ${one.name} that are done` }),
    h("span", { class: "number" }, `${whole(one.n_done)} of ${plural(one.n_objects, "object")} have ${plural(one.votes, "vote")}`)),
  one.graders.length ? h("div", { class: "table" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "Grader"), h("th", { class: "number" }, "Votes"), one.n_known ? h("th", { class: "number" }, "on known answers") : null, h("th", {}, "Last"))),
    h("tbody", {}, one.graders.map((grader) => h("tr", {},
      h("td", {}, grader.grader), h("td", { class: "number" }, whole(grader.n_votes)),
      one.n_known ? h("td", { class: "number" }, whole(grader.n_known)) : null, h("td", {}, grader.last ? when(grader.last) : "–")))))) : null,
];

const panel = (one) => h("section", { class: "panel" },
  h("h2", {}, one.name, " ", h("span", { class: "known" }, one.state)),
  h("p", { class: "quiet small" }, [one.selection, one.blind ? "blind" : null, one.until ? `until ${when(one.until)}` : null, one.n_known ? `${plural(one.n_known, "known answer")} mixed in` : null].filter(Boolean).join("; ")),
  one.takes_part ? h("p", {}, `${plural(one.n_mine, "object")} graded by you.`) : null,
  ...(one.n_objects === null ? [] : progress(one)),
  h("p", { class: "row" },
    one.takes_part && one.state === "running" ? h("a", { class: "button first", href: `${root}/campaigns/${encodeURIComponent(one.name)}` }, "Grade next") : null,
    one.leads && one.state === "running" ? change(one, "paused", "Pause") : null,
    one.leads && one.state === "paused" ? change(one, "running", "Resume") : null,
    one.leads && one.state !== "closed" ? change(one, "closed", "Close", `Close ${one.name} for good?`) : null));

const show = async () => {
  const { campaigns } = await get("campaigns");
  host.replaceChildren(...campaigns.map(panel));
  find("#summary").textContent = campaigns.length ? `${plural(campaigns.length, "campaign")}.` : "There is none; ‘scanner grades campaign create’ begins one.";
};

try {
  await show();
} catch (error) {
  host.replaceChildren(problem(error, () => location.reload()));
}
find("main").dataset.ready = "";
