// What is asked for: the form, the page's address and the API's query say the same.

import { calm, find } from "./dom.js";

/** Sorted downwards by themselves: the best first. */
const UPWARDS = new Set(["rank", "place", "random", "magnitude_vis", "ra", "dec"]);

export class Filters {
  /** @param {HTMLFormElement} form with fields named as the API's parameters @param {() => void} changed */
  constructor(form, changed) {
    this.form = form;
    this.changed = changed;
    this.read(new URLSearchParams(location.search));
    const later = calm(() => this.tell(), 350);
    form.addEventListener("input", (event) => { if (event.target.matches("input")) later(); });
    form.addEventListener("change", (event) => { if (event.target.matches("select")) this.tell(); });
    form.addEventListener("submit", (event) => { event.preventDefault(); this.tell(); });
    form.addEventListener("reset", () => setTimeout(() => { for (const field of this.fields()) field.value = field.dataset.default ?? ""; this.tell(); }));
    addEventListener("popstate", () => { this.read(new URLSearchParams(location.search)); this.changed(); });
  }

  fields() {
    return [...this.form.elements].filter((element) => element.name);
  }

  read(query) {
    for (const field of this.fields()) {
      field.value = query.get(field.name) ?? field.dataset.default ?? "";
      // A choice that the form does not offer: the default.
      if (field.matches("select") && field.selectedIndex < 0) field.value = field.dataset.default ?? "";
    }
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) this.form.elements[name].value = value;
    this.tell();
  }

  /** What differs from the defaults, by name. */
  chosen() {
    return Object.fromEntries(this.fields().map((field) => [field.name, field.value.trim(), field.dataset.default ?? ""]).filter(([, value, usual]) => value !== usual).map(([name, value]) => [name, value]));
  }

  /** Names of the filters that leave candidates out. */
  narrowing() {
    return Object.keys(this.chosen()).filter((name) => name !== "sort" && name !== "seed");
  }

  /** Whether the list is in the order of ranks, and blind to none of them. */
  isByRank() {
    return this.form.elements.sort.value === "rank";
  }

  /** The query for the API: the chosen, what a list of systems needs, and the order that goes with the column to sort by. */
  query() {
    const chosen = this.chosen(), { systems } = this.form.elements;
    return { ...(systems ? { systems: systems.value } : {}), ...chosen, ...(chosen.sort ? { order: UPWARDS.has(chosen.sort) ? "asc" : "desc" } : {}) };
  }

  /** The circle that is asked for, as {ra, dec, radius} in degrees where it is written in degrees; else null. */
  cone() {
    const numbers = (find("[name=cone]", this.form).value.trim().match(/^([\d.]+)[\s,]+([+-]?[\d.]+)[\s,]+([\d.]+)\s*(deg|°|'|′|arcmin|"|″|arcsec)?$/) ?? []).slice(1);
    if (numbers.length < 3) return null;
    const unit = { "'": 60, "′": 60, arcmin: 60, '"': 3600, "″": 3600, arcsec: 3600 }[numbers[3]] ?? 1;
    return { ra: Number(numbers[0]), dec: Number(numbers[1]), radius: Number(numbers[2]) / unit };
  }

  tell() {
    const text = new URLSearchParams(this.chosen()).toString();
    history.pushState(null, "", text ? `?${text}` : location.pathname);
    this.changed();
  }
}
