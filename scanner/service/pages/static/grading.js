// The grading panel: keys and buttons that grade, the history, how far graders agree. Comments are shown as text, never as markup.

import { get, idPath, send } from "./api.js";
import { find, h } from "./dom.js";
import { whole } from "./text.js";
import { listQuery } from "./trail.js";
import { Tags, Votes } from "./votes.js";

const LAST = "scanner last graded";
const SAID = "scanner said of the last grade";
const STAYS = "scanner stays after a grade";

const remembered = (key) => { try { return JSON.parse(sessionStorage.getItem(key) ?? "null"); } catch { return null; } };
const remember = (key, value) => { try { sessionStorage.setItem(key, JSON.stringify(value)); } catch { /* then it is forgotten */ } };

const when = (text) => new Date(text).toISOString().slice(0, 16).replace("T", " ");

/** One entry of the history. */
export const line = (entry, standing) => {
  const stands = standing.includes(entry.number);
  const mark = entry.grade === null ? "took a grade back" : h("span", { class: "mark" }, entry.grade);
  const about = [` ${when(entry.given)}`, entry.blind ? ", blind" : "", entry.catalogue ? `, ${entry.catalogue}` : ""].join("");
  return h("li", { class: stands ? null : "past" },
    `${entry.grader}: `, mark, h("span", { class: "quiet small" }, about),
    entry.tags.length ? h("span", { class: "quiet small" }, `, ${entry.tags.join(", ")}`) : null,
    entry.comment ? h("div", { class: "words" }, entry.comment) : null);
};

const estimate = (found) => (found === null ? "–" : `${found.value.toFixed(2)} [${found.low.toFixed(2)}, ${found.high.toFixed(2)}]`);
const share = (value) => (value === null ? "–" : `${(100 * value).toFixed(0)}%`);

const agreementTable = (found) => {
  const head = ["Graders", "Both", "Same", "Cohen κ", "weighted κ"].map((name) => h("th", {}, name));
  const rows = found.pairs.filter((pair) => pair.n > 0).map((pair) =>
    h("tr", {}, [`${pair.first}, ${pair.second}`, pair.n, share(pair.same), estimate(pair.kappa), estimate(pair.weighted)].map((cell) => h("td", {}, String(cell)))));
  return [
    h("p", {}, `${found.n_objects} graded, ${found.n_shared} by two or more, ${share(found.complete)} of these alike by all. Fleiss κ ${estimate(found.kappa)}.`),
    rows.length ? h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)) : null,
    h("p", { class: "quiet small" }, "κ: 1 complete agreement, 0 what chance gives; 95% intervals."),
  ].filter((part) => part !== null);
};

/** Make the panel work; `keys.register` as of keys.js. */
export const mount = async (section, { candidateId, slug, root, keys }) => {
  const path = `grades/${idPath(candidateId)}`;
  const buttons = [...section.querySelectorAll("[data-grade]")];
  const comment = find("textarea", section);
  const told = find(".told", section);
  const advance = find("[name=advance]", section);
  const nameForm = find("form.grader", section);
  const tags = new Tags(section);
  let state = null;

  const tell = (text, wrong = false) => { told.textContent = text; told.classList.toggle("wrong", wrong); };
  const votes = new Votes({
    changed: (waiting) => { if (waiting === 0 && "waits" in told.dataset) { delete told.dataset.waits; tell("What waited here is kept now."); refresh(); } },
    refused: (sentence) => tell(sentence, true),
  });
  const failing = (action) => async (...given) => {
    try { await action(...given); } catch (error) { tell(error.message, true); }
  };

  const show = (answer) => {
    state = answer;
    const { grader, history, standing, withheld } = answer;
    const ready = grader.may_grade && grader.name !== null;
    for (const button of buttons) {
      button.disabled = !ready;
      button.setAttribute("aria-pressed", String(button.dataset.grade === answer.grade));
    }
    comment.disabled = !ready;
    tags.disabled = !ready;
    tags.value = answer.tags;
    comment.value = answer.comment;
    find(".undo", section).disabled = !ready || (answer.grade === null && remembered(LAST) === null);
    find(".next-ungraded", section).disabled = !ready;
    find(".reader", section).hidden = grader.may_grade;
    nameForm.hidden = !grader.may_grade || grader.named_by_token || grader.name !== null;
    find("h2", section).textContent = ready ? `Grade by ${grader.name}` : "Grade";
    find(".history", section).hidden = history.length === 0 && !withheld;
    find(".history ol", section).replaceChildren(...[...history].reverse().map((entry) => line(entry, standing)));
    find(".withheld", section).hidden = !withheld;
    section.dataset.ready = "";
  };

  const progress = failing(async () => {
    if (!state.grader.may_grade || state.grader.name === null) return;
    const { total, graded } = await get(`collections/${encodeURIComponent(slug)}/candidates`, { ...listQuery(slug), graded: "any", limit: 1 });
    const place = find(".progress", section);
    place.textContent = graded === null ? "" : `${whole(graded)} of ${whole(total)} graded`;
    place.hidden = graded === null;
  });

  const refresh = failing(async () => {
    show(await get(path));
    const { name } = state.grader;
    if (name !== null && votes.grader !== name) votes.begin(name);
    await progress();
  });

  const after = (answer, words) => {
    const wasWithheld = state?.withheld === true;
    show(answer);
    tell(words);
    progress();
    find(".agreement", section).open = false;
    // What was withheld is shown now: the page has to ask for it again.
    if (wasWithheld !== answer.withheld && !(advance.checked && answer.grade !== null)) location.reload();
  };

  const grade = failing(async (mark) => {
    if (!state?.grader.may_grade || state.grader.name === null) {
      tell("Say who you are first.");
      if (!nameForm.hidden) find("[name=name]", nameForm).focus();
      return;
    }
    const answer = await votes.give(path, { grade: mark, comment: comment.value, tags: tags.value });
    if (answer === null) {
      told.dataset.waits = "";
      tell(`The service does not answer: ${mark} waits in this browser, and is sent when it does.`, true);
      return;
    }
    remember(LAST, { id: candidateId, slug });
    // The next page says it: this one is left before a screen reader has spoken.
    if (advance.checked) remember(SAID, `${mark} is kept for ${find("h1").textContent}.`);
    after(answer, `${mark} is kept.`);
    document.dispatchEvent(new CustomEvent("scanner:graded", { detail: { grade: mark, advance: advance.checked } }));
  });

  const undo = failing(async () => {
    const last = remembered(LAST);
    if (state?.grade !== null) {
      after(await send("POST", `${path}/undo`), "Taken back.");
      document.dispatchEvent(new CustomEvent("scanner:graded", { detail: { grade: state.grade, advance: false } }));
    } else if (last !== null && last.id !== candidateId) {
      // A slip is noticed when the next candidate is there already.
      await send("POST", `grades/${idPath(last.id)}/undo`);
      sessionStorage.removeItem(LAST);
      location.assign(`${root}/c/${encodeURIComponent(last.slug)}/candidates/${idPath(last.id)}`);
    }
  });

  const goOn = failing(async () => {
    const { candidate_id: next } = await get("grades/next", { ...listQuery(slug), graded: "any", collection: slug, after: candidateId });
    if (next === null) tell("You have graded every object of this list.");
    else location.assign(`${root}/c/${encodeURIComponent(slug)}/candidates/${idPath(next)}`);
  });

  nameForm.addEventListener("submit", failing(async (event) => {
    event.preventDefault();
    // First: who is quick may have given a grade, and been told of it, before everything is asked for again.
    tell("");
    await send("PUT", "grades/me", { name: find("[name=name]", nameForm).value });
    await refresh();
  }));
  for (const button of buttons) button.addEventListener("click", () => grade(button.dataset.grade));
  find(".undo", section).addEventListener("click", undo);
  find(".next-ungraded", section).addEventListener("click", goOn);
  comment.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (state?.grade) grade(state.grade);
    else tell("Give a grade; the comment goes with it.");
  });
  advance.checked = remembered(STAYS) !== true;
  advance.addEventListener("change", () => remember(STAYS, !advance.checked));
  find(".agreement", section).addEventListener("toggle", failing(async (event) => {
    if (event.target.open) find(".agreement .table", section).replaceChildren(...agreementTable(await get("grades/agreement")));
  }));

  keys.register([
    ...buttons.map((button) => button.dataset.grade).map((mark) => ({ key: mark.toLowerCase(), group: "Grading", does: `Grade ${mark}`, run: () => grade(mark) })),
    ...tags.keys(),
    { key: "m", group: "Grading", does: "Comment; Esc leaves it, a grade takes it along", run: () => comment.focus() },
    { key: "u", group: "Grading", does: "Undo, also of the object before", run: undo },
    { key: "n", group: "Grading", does: "Next ungraded object", run: goOn },
  ]);

  await failing(async () => {
    await refresh();
    const said = remembered(SAID);
    sessionStorage.removeItem(SAID);
    if (said !== null && remembered(LAST)?.id !== candidateId) tell(said);
  })();
};
