// The controls of the pictures of one candidate: the service draws them anew while a slider moves.

import { calm, find } from "./dom.js";
import { cutout } from "./pictures.js";

/** The defaults of the form; what equals them is not asked for. */
const FIELDS = ["stretch", "white", "softening", "black", "saturation", "size", "invert", "deflector"];

export class Stretch {
  /**
   * @param {HTMLFormElement} form with the fields above; `white` is a power of ten, or automatic while `auto` is checked
   * @param {NodeListOf<HTMLImageElement>} pictures with data-band and data-zoom
   * @param {string | null} id of the object, as of pictures.js; null: none yet
   */
  constructor(form, pictures, id) {
    Object.assign(this, { form, pictures: [...pictures], id });
    this.loading = new Map();
    const redraw = calm(() => this.draw(), 60);
    form.addEventListener("input", (event) => {
      if (event.target.name === "white") form.elements.auto.checked = false;
      this.tell();
      redraw();
    });
    form.addEventListener("reset", () => setTimeout(() => { this.tell(); this.draw(); }));
    form.addEventListener("submit", (event) => event.preventDefault());
    this.tell();
    if (id !== null) this.draw();
  }

  value(name) {
    const field = this.form.elements[name];
    if (name === "invert") return field.checked ? 1 : "";
    if (name === "deflector") return field.checked ? "" : 0;
    if (name === "white") return this.form.elements.auto.checked ? "" : Math.round(10 ** Number(field.value) * 10) / 10;
    if (field.matches("select")) return field.selectedOptions[0].defaultSelected ? "" : field.value;
    return field.value === field.defaultValue ? "" : Number(field.value);
  }

  /** The chosen look as the query of /cutout. */
  query() {
    return Object.fromEntries(FIELDS.map((name) => [name, this.value(name)]));
  }

  tell() {
    const read = { white: this.value("white") === "" ? "automatic" : `${this.value("white")} σ`, softening: `${this.form.elements.softening.value} σ`, black: `${this.form.elements.black.value} σ`, saturation: `${Math.round(100 * this.form.elements.saturation.value)}%` };
    for (const [name, text] of Object.entries(read)) find(`output[for=${name}]`, this.form).textContent = text;
    const linear = ["linear", "sqrt"].includes(this.form.elements.stretch.value);
    this.form.elements.softening.disabled = linear;
  }

  draw() {
    const { saturation, ...query } = this.query();
    document.body.dataset.size = this.form.elements.size.value;
    for (const picture of this.pictures) {
      const band = picture.dataset.band;
      const source = cutout(this.id, { format: "webp", band, ...query, ...(band === "colour" || band === "nisp" ? { saturation } : {}) });
      this.replace(picture, source);
    }
    this.form.dispatchEvent(new CustomEvent("scanner:look", { detail: this.query(), bubbles: true }));
  }

  /** Show a new picture when it is there; the old one stays until then, and only the last that was asked for is shown. */
  async replace(picture, source) {
    if (this.loading.get(picture) === source) return;
    this.loading.set(picture, source);
    const fresh = new Image();
    fresh.src = source;
    picture.closest("figure").classList.add("loading");
    let failed = false;
    try { await fresh.decode(); } catch { failed = true; }
    if (this.loading.get(picture) !== source) return;
    picture.src = source;
    const figure = picture.closest("figure");
    figure.classList.remove("loading");
    figure.classList.toggle("failed", failed);
  }

  /** Brighter (factor < 1) or darker: moves white, from what is automatic to 100 σ first. */
  brighten(step) {
    const { white, auto } = this.form.elements;
    if (auto.checked) white.value = "2";
    auto.checked = false;
    white.value = String(Number(white.value) + step);
    this.tell();
    this.draw();
  }

  /** Show another object, in the same way. */
  show(id) {
    this.id = id;
    this.draw();
  }

  keys() {
    return [
      { key: "f", group: "Pictures", does: "Close-up or whole field", run: () => this.toggle("size") },
      { key: "i", group: "Pictures", does: "Invert", run: () => this.toggle("invert") },
      { key: "s", group: "Pictures", does: "With or without the light of the galaxy in the middle", run: () => this.toggle("deflector") },
      { key: ["+", "="], group: "Pictures", does: "Brighter", run: () => this.brighten(-0.15) },
      { key: "-", group: "Pictures", does: "Darker", run: () => this.brighten(0.15) },
      { key: "v", group: "Pictures", does: "Next scale: asinh, log, square root, linear", run: () => this.nextScale() },
      { key: "0", group: "Pictures", does: "As it was", run: () => this.form.reset() },
    ];
  }

  nextScale() {
    const { stretch } = this.form.elements;
    stretch.selectedIndex = (stretch.selectedIndex + 1) % stretch.length;
    this.tell();
    this.draw();
  }

  toggle(name) {
    const field = this.form.elements[name];
    if (name === "size") field.value = field.value === "20" ? "10" : "20";
    else field.checked = !field.checked;
    this.tell();
    this.draw();
  }
}
