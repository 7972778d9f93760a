// Votes: the tags that go with them, and how they reach the server. A vote is kept in this browser before it is sent, and until the
// server has said that it has it; sent again, it has the same key, under which the server keeps it once.

import { send } from "./api.js";

const PREFIX = "scanner vote ";
const LONGEST_WAIT_S = 30;
/** What may pass: no answer, not logged in, somebody else at the machine, too many, the server's own troubles. */
const passes = (error) => [0, 401, 403, 408, 429].includes(error.status) || error.status >= 500;

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Runs an action in one tab at a time, where the browser knows how; elsewhere the keys alone see to it that nothing counts twice. */
const alone = (action) => (navigator.locks ? navigator.locks.request("scanner votes", action) : action());

export class Votes {
  /**
   * @param {{changed?: (waiting: number) => void, refused?: (sentence: string) => void}} options
   *   `changed`: how many wait, whenever that changes; `refused`: what the server will never take, and why
   */
  constructor({ changed = () => {}, refused = () => {} } = {}) {
    Object.assign(this, { changed, refused, grader: null, unsaved: new Map(), asking: new Map(), wait: 1, timer: 0, sent: 0 });
    addEventListener("online", () => this.flush());
  }

  /** Say who is here, and send what of theirs still waits. */
  begin(grader) {
    this.grader = grader;
    return this.flush();
  }

  /** Keep a vote and send it: what the server answers, or null where it waits. */
  async give(path, said) {
    const key = newKey();
    this.sent += 1;
    const vote = { path, order: `${Date.now()}`.padStart(15, "0") + `${this.sent}`.padStart(6, "0"), body: { ...said, key, grader: this.grader } };
    try { localStorage.setItem(PREFIX + key, JSON.stringify(vote)); } catch { this.unsaved.set(key, vote); }
    const answered = new Promise((resolve, reject) => { this.asking.set(key, { resolve, reject }); });
    this.flush();
    return answered;
  }

  /** This grader's votes that the server has not got yet, the oldest first. */
  waiting() {
    const kept = [...this.unsaved.values()];
    try {
      for (const name of Object.keys(localStorage)) if (name.startsWith(PREFIX)) kept.push(JSON.parse(localStorage.getItem(name)));
    } catch { /* a browser that keeps nothing */ }
    return kept.filter((vote) => vote?.body?.grader === this.grader).sort((a, b) => (a.order < b.order ? -1 : 1));
  }

  flush() {
    clearTimeout(this.timer);
    this.flushing ??= alone(() => this.sendAll()).finally(() => {
      this.flushing = null;
      const left = this.waiting().length;
      this.changed(left);
      if (left) this.timer = setTimeout(() => this.flush(), 1000 * this.wait);
    });
    return this.flushing;
  }

  async sendAll() {
    for (let vote = this.waiting()[0]; vote; vote = this.waiting()[0]) {
      const { key } = vote.body;
      const asking = this.asking.get(key);
      try {
        const answer = await send("POST", vote.path, vote.body);
        this.forget(key);
        this.wait = 1;
        asking?.resolve(answer);
      } catch (error) {
        if (passes(error)) {
          this.wait = Math.min(2 * this.wait, LONGEST_WAIT_S);
          for (const one of this.asking.values()) one.resolve(null);
          this.asking.clear();
          return;
        }
        this.forget(key);
        if (asking) asking.reject(error); else this.refused(error.message);
      }
    }
  }

  forget(key) {
    this.unsaved.delete(key);
    this.asking.delete(key);
    try { localStorage.removeItem(PREFIX + key); } catch { /* it was never there */ }
  }
}

/** The tags of a panel: buttons with data-tag that are pressed or not. */
export class Tags {
  constructor(host) {
    this.buttons = [...host.querySelectorAll("[data-tag]")];
    for (const button of this.buttons) button.addEventListener("click", () => this.toggle(button.dataset.tag));
  }

  get value() {
    return this.buttons.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset.tag);
  }

  set value(tags) {
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(tags.includes(button.dataset.tag)));
  }

  set disabled(value) {
    for (const button of this.buttons) button.disabled = value;
  }

  toggle(tag) {
    const button = this.buttons.find((one) => one.dataset.tag === tag);
    if (!button.disabled) button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  }

  /** Their keys: 1 to 6. */
  keys() {
    return this.buttons.map((button, index) => ({ key: String(index + 1), group: "Tags", does: button.textContent, run: () => this.toggle(button.dataset.tag) }));
  }
}
