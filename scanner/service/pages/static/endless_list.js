// A list without end in a page of bounded size: pages are fetched by cursor as the reader comes near; those that are far away
// keep their height and lose their elements, and get them back when the reader returns.

import { h } from "./dom.js";
import { problem } from "./api.js";

/** How far beyond the window pages are kept whole. */
const NEAR = "1500px 0px";

export class EndlessList {
  /**
   * @param {HTMLElement} host
   * @param {{load: (cursor: string | null) => Promise<{items: object[], next: string | null}>, render: (item: object) => HTMLElement[], changed?: () => void}} options
   */
  constructor(host, { load, render, changed = () => {} }) {
    Object.assign(this, { host, load, render, changed, pages: [], next: null, busy: null, turn: 0, done: true });
    this.end = h("p", { class: "end", role: "status" });
    host.append(this.end);
    this.watch = new IntersectionObserver((entries) => entries.forEach((entry) => this.show(entry.target, entry.isIntersecting)), { rootMargin: NEAR });
    this.watchEnd = new IntersectionObserver((entries) => { if (entries.at(-1).isIntersecting) this.more(); }, { rootMargin: NEAR });
    this.watchEnd.observe(this.end);
  }

  /** Begin, or begin anew. */
  async restart() {
    this.turn += 1;
    this.pages.forEach((page) => { this.watch.unobserve(page.element); this.drop(page); page.element.remove(); });
    this.pages = [];
    this.next = null;
    this.done = false;
    this.busy = null;
    await this.more();
  }

  items() {
    return this.pages.flatMap((page) => page.items);
  }

  /** The element of an item, drawn again if it was dropped. */
  element(index) {
    for (const page of this.pages) {
      if (index < page.items.length) {
        this.fill(page);
        return page.element.querySelectorAll("[data-id]")[index];
      }
      index -= page.items.length;
    }
    return null;
  }

  more() {
    if (this.done) return Promise.resolve();
    if (!this.busy) {
      const run = this.append(this.turn).finally(() => { if (this.busy === run) this.busy = null; });
      this.busy = run;
    }
    return this.busy;
  }

  async append(turn) {
    this.end.textContent = "Loading…";
    try {
      const { items, next } = await this.load(this.next);
      if (turn !== this.turn) return;
      this.next = next;
      this.done = next === null;
      if (items.length) {
        const page = { items, element: h("div", { class: "page" }), filled: false };
        this.pages.push(page);
        this.fill(page);
        this.end.before(page.element);
        this.watch.observe(page.element);
      }
      this.end.textContent = this.done ? (this.pages.length ? "That is all." : "") : "";
      this.changed();
    } catch (error) {
      if (error.name === "AbortError" || turn !== this.turn) return;
      this.end.replaceChildren(problem(error, () => this.more()));
      return;
    }
    // The observer tells of changes only, and a short page leaves the end in sight: asked anew, it says where the end is now.
    this.watchEnd.unobserve(this.end);
    this.watchEnd.observe(this.end);
  }

  fill(page) {
    if (page.filled) return;
    page.element.replaceChildren(...page.items.flatMap((item) => this.render(item)));
    page.element.style.height = "";
    page.filled = true;
  }

  /** Pictures on their way to elements that have gone would keep those that are wanted waiting. */
  drop(page) {
    page.element.querySelectorAll("img").forEach((image) => image.removeAttribute("src"));
    page.element.replaceChildren();
    page.filled = false;
  }

  show(element, isNear) {
    const page = this.pages.find((one) => one.element === element);
    if (!page) return;
    if (isNear) this.fill(page);
    else if (page.filled && !element.contains(document.activeElement)) {
      element.style.height = `${element.offsetHeight}px`;
      this.drop(page);
    }
  }
}
