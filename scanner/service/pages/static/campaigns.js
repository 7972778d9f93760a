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

const form = find("#new form");
/** Show what belongs to the kind of objects that is chosen. */
const suit = () => {
  const chosen = [form.elements.which.value, form.elements.order.value];
  for (const part of form.querySelectorAll("[data-of]:not([data-of=painted])")) part.hidden = !part.dataset.of.split(" ").some((one) => chosen.includes(one));
};
for (const name of ["which", "order"]) form.elements[name].addEventListener("change", suit);
suit();

/** The campaign that the form says. */
const wanted = async () => {
  const { which, ...fields } = form.elements;
  const text = (name) => fields[name].value.trim();
  const list = (name, separator) => text(name).split(separator).map((one) => one.trim()).filter(Boolean);
  const known = fields.known.files[0];
  return {
    name: text("name"), collection: fields.collection.value, control: Number(fields.control.value), order: fields.order.value || null,
    top: which.value === "top" ? Number(fields.top.value) : null,
    cone: ["top", "cone"].includes(which.value) && text("cone") ? text("cone") : null,
    sql: which.value === "sql" ? text("sql") : null, names: which.value === "names" ? list("names", "\n") : null,
    votes: Number(fields.votes.value), graders: list("graders", ","), until: fields.until.value ? `${fields.until.value}:00Z` : null,
    blind: fields.blind.checked, rate: Number(fields.rate.value), known: known ? await known.text() : null,
    mix: Object.fromEntries([...form.querySelectorAll(".weights input")].map((field) => [field.name, Number(field.value)])),
    painted: fields.painted.checked, feedback: fields.feedback.checked,
  };
};
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = find("button", form), refused = find("#refused");
  button.disabled = true;
  refused.textContent = "";
  try {
    await send("POST", "campaigns", await wanted());
    form.reset();
    suit();
    find("#new").open = false;
    await show();
  } catch (error) { refused.textContent = error.message; }
  button.disabled = false;
});

const showLearning = async () => {
  const { n_lenses, n_others, n_unclear, fewest, commands } = await get("grades/learning");
  const lacks = [[n_lenses, "lens", "lenses"], [n_others, "other", "others"]].map(([n, one, more]) => [fewest - n, one, more]).filter(([n]) => n > 0).map(([n, one, more]) => `${whole(n)} more ${n === 1 ? one : more}`);
  find("#learning-numbers").textContent = `${plural(n_lenses + n_others, "graded object")} with a clear label: ${whole(n_lenses)} lenses, ${whole(n_others)} others (${whole(n_unclear)} unclear). ${lacks.length ? `Learning takes ${lacks.join(" and ")}.` : "They suffice to learn from:"}`;
  find("#learning-commands").replaceChildren(...(lacks.length ? [] : commands.map((line) => h("p", { class: "row" }, h("code", {}, line), h("button", { type: "button", class: "copy", "data-copy": line }, "Copy")))));
  find("#learning").hidden = commands.length === 0;
};

const show = async () => {
  const { campaigns, may_begin, has_painted } = await get("campaigns");
  host.replaceChildren(...campaigns.map(panel));
  find("#summary").textContent = campaigns.length ? `${plural(campaigns.length, "campaign")}.` : `There is none${may_begin ? "" : "; who leads begins one"}.`;
  find("#new").hidden = !may_begin;
  find("[data-of=painted]").hidden = !has_painted;
  return may_begin;
};

try {
  if (await show()) await showLearning().catch(() => { /* blind graders do not see it */ });
} catch (error) {
  host.replaceChildren(problem(error, () => location.reload()));
}
find("main").dataset.ready = "";
