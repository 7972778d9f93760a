// Grading in a campaign: what was handed out, one object at a time or many, all of it by keys, and on when the server is away.

import { candidateHref, get, idPath, problem, send } from "./api.js";
import { find, h, root } from "./dom.js";
import { Enlarged } from "./enlarged.js";
import { line } from "./grading.js";
import * as keys from "./keys.js";
import { cutout, handedId } from "./pictures.js";
import { Stretch } from "./stretch.js";
import { plural } from "./text.js";
import { Tags, Votes } from "./votes.js";

const name = find("main").dataset.campaign;
const here = `campaigns/${encodeURIComponent(name)}`;
const GRADES = ["X", "C", "B", "A"];
/** How many are handed out at a time, and how few are left when more are asked for. */
const PORTION = { single: 8, many: 24 };
const FEW = 4;
const VIEW = "scanner campaign view";

/** What is in hand and has no vote yet, in order; what had one, the last at the end; ids that had one. */
let hand = [];
const past = [];
const voted = new Set();
/** What is marked of many, by id. */
const marks = new Map();
let campaign = null;
let view = "single";
try { if (localStorage.getItem(VIEW) === "many") view = "many"; } catch { /* one at a time */ }
/** Pictures on their way: so long as they are held, the browser keeps them. */
const held = new Map();

const said = find("#said");
const tell = (text, wrong = false) => { said.textContent = text; said.classList.toggle("wrong", wrong); };
const comment = find("#grading textarea");
const tags = new Tags(find("#grading"));
const stretch = new Stretch(find("#stretch"), document.querySelectorAll("#pictures img[data-band]"), null);
const enlarged = new Enlarged(find("#large"), [...document.querySelectorAll("#pictures figure")]);

const pathOf = (one) => `${here}/votes/${one.id}`;
const votes = new Votes({
  changed: (waiting) => {
    const place = find("#waiting");
    place.hidden = waiting === 0;
    place.textContent = waiting ? `The service does not answer: ${plural(waiting, "grade")} of yours ${waiting === 1 ? "waits" : "wait"} in this browser, and ${waiting === 1 ? "is" : "are"} sent when it does.` : "";
    if (waiting === 0 && hand.length < FEW) more();
  },
  refused: (sentence) => tell(sentence, true),
});

const showProgress = () => {
  if (!campaign) return;
  const all = campaign.n_objects === null ? "" : `; ${campaign.n_done} of ${plural(campaign.n_objects, "object")} have ${plural(campaign.votes, "vote")}`;
  find("#progress").textContent = `${plural(campaign.n_mine, "object")} graded by you${all}`;
};

const preload = () => {
  for (const one of hand.slice(0, PORTION[view])) {
    for (const band of view === "many" ? [find("#band").value] : ["VIS", "colour"]) {
      const source = cutout(handedId(name, one.id), { format: "webp", band, size: 10 });
      if (held.has(source)) continue;
      const image = new Image();
      image.src = source;
      held.set(source, image);
    }
  }
};

let asking = null;
/** Ask for what is to be graded next; what waits to be sent is known here already. */
const more = () => {
  asking ??= (async () => {
    // What is on its way would be handed out again.
    await votes.flush();
    const answer = await send("POST", `${here}/next?n=${PORTION[view]}`);
    campaign = answer.campaign;
    const known = new Set([...hand.map((one) => one.id), ...voted]);
    for (const vote of votes.waiting()) known.add(vote.path.split("/").at(-1));
    const wasEmpty = hand.length === 0;
    hand.push(...answer.handed.filter((one) => !known.has(one.id)));
    preload();
    showProgress();
    if (wasEmpty) show();
  })().catch((error) => { if (hand.length === 0) tell(error.message, true); }).finally(() => { asking = null; });
  return asking;
};

const nothing = () => {
  const words = { paused: "The campaign is paused.", closed: "The campaign is closed.", over: "The campaign is over." };
  tell(words[campaign?.state] ?? "Nothing is left for you here: thank you.");
};

const showHistory = async ({ candidate }) => {
  const host = find("#candidate .history");
  if (!host || !candidate) return;
  find("#candidate h2").replaceChildren(h("a", { href: candidateHref(candidate.slug, candidate.id) }, candidate.name));
  host.replaceChildren();
  try {
    const { history, standing } = await get(`grades/${idPath(candidate.id)}`);
    if (hand[0]?.candidate?.id !== candidate.id) return;
    host.replaceChildren(h("ol", { class: "plain" }, [...history].reverse().map((entry) => line(entry, standing))));
  } catch (error) { host.replaceChildren(problem(error)); }
};

const showSingle = () => {
  find("#single").hidden = hand.length === 0;
  find("#back").disabled = past.length === 0 || campaign?.feedback;
  if (hand.length === 0) return;
  stretch.show(handedId(name, hand[0].id));
  if (enlarged.isOpen) enlarged.open();
  comment.value = hand[0].comment ?? "";
  tags.value = hand[0].tags ?? [];
  for (const button of document.querySelectorAll("#grading [data-grade]")) button.setAttribute("aria-pressed", String(button.dataset.grade === hand[0].grade));
  showHistory(hand[0]);
};

const mark = (button, grade) => {
  button.dataset.mark = grade;
  marks.set(button.dataset.id, grade);
  find(".mark", button).textContent = grade === "X" ? "" : grade;
  const place = [...button.parentElement.children].indexOf(button) + 1;
  button.setAttribute("aria-label", `Object ${place}: ${grade === "X" ? "not marked" : grade}`);
};

const stamps = () => [...document.querySelectorAll(".stamps button")];

const showMany = () => {
  find("#many").hidden = hand.length === 0;
  const shown = hand.slice(0, PORTION.many).map((one) =>
    h("button", { type: "button", "data-id": one.id, onclick: (event) => { const button = event.currentTarget; mark(button, GRADES[(GRADES.indexOf(button.dataset.mark) + 1) % GRADES.length]); } },
      h("img", { alt: "", width: 100, height: 100, src: cutout(handedId(name, one.id), { format: "webp", band: find("#band").value, size: 10 }) }),
      h("span", { class: "mark" })));
  find(".stamps").replaceChildren(...shown);
  for (const button of shown) mark(button, marks.get(button.dataset.id) ?? "X");
  find("#send").textContent = `Send ${plural(shown.length, "grade")}`;
  shown[0]?.focus({ preventScroll: true });
};

const show = () => {
  find("#view").textContent = view === "many" ? "One at a time" : "Many at a time";
  find("#single").hidden = find("#many").hidden = true;
  if (view === "many") showMany(); else showSingle();
  if (hand.length === 0 && campaign && !asking) nothing();
};

/** Give a vote and go on; what comes back later is said then. */
const give = (one, grade, rest = {}) => {
  voted.add(one.id);
  past.push({ ...one, grade, ...rest });
  votes.give(pathOf(one), { grade, ...rest }).then((answer) => {
    if (answer === null) return;
    if (campaign) campaign.n_mine = answer.n_mine;
    showProgress();
    if (answer.answer !== null) tell(`${grade}: it was known before, and is ${answer.answer === "lens" ? "a lens" : "no lens"}.`);
  }).catch((error) => tell(error.message, true));
};

const gradeOne = (grade) => {
  if (view === "many") { markHere(grade); return; }
  if (hand.length === 0) return;
  const one = hand.shift();
  tell(`${grade} is kept.`);
  give(one, grade, { comment: comment.value, tags: tags.value });
  goOn();
};

/** On with what is in hand, or with what is asked for now. */
const goOn = () => {
  show();
  if (hand.length < FEW) more().then(() => { if (hand.length === 0) show(); });
  else preload();
};

const sendAll = () => {
  if (view !== "many" || hand.length === 0) return;
  const grades = new Map(stamps().map((button) => [button.dataset.id, button.dataset.mark]));
  const sent = hand.filter((one) => grades.has(one.id));
  hand = hand.filter((one) => !grades.has(one.id));
  for (const one of sent) give(one, grades.get(one.id));
  tell(`${plural(sent.length, "grade")} kept.`);
  goOn();
};

const markHere = (grade) => {
  const all = stamps(), at = all.indexOf(document.activeElement);
  if (at < 0) return;
  mark(all[at], grade);
  all[at + 1]?.focus();
};

const step = (by) => () => {
  if (enlarged.isOpen) { enlarged.step(by); return; }
  const all = stamps(), at = all.indexOf(document.activeElement);
  if (view === "many") all[Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
};

const back = () => {
  if (view === "many" || past.length === 0 || campaign?.feedback) return;
  const one = past.pop();
  voted.delete(one.id);
  hand.unshift(one);
  tell(`You gave ${one.grade}.`);
  show();
};

const changeView = () => {
  view = view === "many" ? "single" : "many";
  try { localStorage.setItem(VIEW, view); } catch { /* until the page is left */ }
  show();
  more().then(() => { if (view === "many") showMany(); });
};

for (const button of document.querySelectorAll("#grading [data-grade]")) button.addEventListener("click", () => gradeOne(button.dataset.grade));
find("#back").addEventListener("click", back);
find("#view").addEventListener("click", changeView);
find("#send").addEventListener("click", sendAll);
find("#band").addEventListener("change", () => { preload(); showMany(); });
const columns = () => getComputedStyle(find(".stamps")).gridTemplateColumns.split(" ").length;
find(".stamps").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
  event.preventDefault();
  step(event.key === "ArrowUp" ? -columns() : columns())();
});
keys.register([
  ...["A", "B", "C", "X"].map((grade) => ({ key: grade.toLowerCase(), group: "Grading", does: `Grade ${grade}; of many: mark it`, run: () => gradeOne(grade) })),
  { key: "m", group: "Grading", does: "Comment; Esc leaves it, a grade takes it along", run: () => comment.focus() },
  { key: "u", group: "Grading", does: "Back to the one before, to think again", run: back },
  { key: "g", group: "Grading", does: "One at a time, or many", run: changeView },
  { key: "S", group: "Grading", does: "Of many: send these grades", run: sendAll },
  { key: "ArrowRight", group: "Many", does: "The next (with ↑ and ↓ the row)", run: step(1) },
  { key: "ArrowLeft", group: "Many", does: "The one before", run: step(-1) },
  ...tags.keys(),
  ...enlarged.keys(),
  ...stretch.keys(),
]);

const begin = async () => {
  const me = await get("grades/me");
  find("#who").hidden = me.name !== null || !me.may_grade;
  if (!me.may_grade) tell("You may read here, not grade.");
  if (me.name === null) return;
  await votes.begin(me.name);
  await more();
  show();
};
find("#who").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await send("PUT", "grades/me", { name: find("#who [name=name]").value });
    await begin();
  } catch (error) { tell(error.message, true); }
});
try {
  await begin();
} catch (error) {
  tell(error.message, true);
}
find("main").dataset.ready = "";
