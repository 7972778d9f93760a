// The sky in a canvas, without any network: tiles, density of candidates, single candidates, the cone that is asked for.
// Drag moves, the wheel and + − zoom, a click picks; with the keyboard: arrows, + −, 0, Enter picks the middle.

import { h, onTheme } from "./dom.js";
import { bounds, separation, vertices } from "./projection.js";
import * as paint from "./sky_paint.js";
import { SkyView } from "./sky_view.js";
import { angle, degrees, whole } from "./text.js";

const REACH_PIXELS = 12;
const KEY_STEP = 30;

/** Whether a point lies in a polygon (even-odd rule). */
const isInside = (x, y, polygon) => {
  let inside = false;
  polygon.forEach(([x1, y1], i) => {
    const [x2, y2] = polygon[(i + 1) % polygon.length];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  });
  return inside;
};

export class SkyPlot {
  /**
   * @param {HTMLElement} host where it goes; its data-ratio is height / width.
   * @param {{pick?: (ra: number, dec: number, tile: object | null, reach: number) => void, label?: string}} options
   *   `pick` is told the position in degrees, the tile there, and what 12 pixels are in degrees.
   */
  constructor(host, { pick = null, label = "Sky map" } = {}) {
    Object.assign(this, { pick, ratio: Number(host.dataset.ratio ?? 0.62), view: new SkyView() });
    Object.assign(this, { tiles: [], density: { order: 0, cells: [] }, dots: [], cone: null, chosen: null, chosenTile: null });
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": label });
    this.reading = h("p", { class: "reading" });
    const button = (text, title, run) => h("button", { type: "button", title, "aria-label": title, onclick: run }, text);
    host.classList.add("plot");
    host.append(
      this.canvas,
      h("div", { class: "buttons" }, button("+", "Zoom in", () => this.zoom(0.5)), button("−", "Zoom out", () => this.zoom(2)), button("⌂", "Show all", () => this.goHome())),
      this.reading,
    );
    this.listen();
    new ResizeObserver(() => this.draw()).observe(host);
    onTheme(() => this.draw());
  }

  /** Tiles as the API lists them; shows them all. */
  setTiles(tiles) {
    this.tiles = tiles.map((tile) => ({ ...tile, outline: vertices(tile.s_region) })).filter((tile) => tile.outline.length > 2);
    if (this.tiles.length) this.view.setHome(bounds(this.tiles.flatMap((tile) => tile.outline)));
    this.draw();
  }

  /** Change `density` (of the API's sky), `dots`, `cone`, `chosen` (an id) or `chosenTile`. */
  set(parts) {
    Object.assign(this, parts);
    this.draw();
  }

  goHome() {
    this.view.goHome();
    this.draw();
  }

  zoom(factor, towards = null) {
    this.view.zoom(factor, towards);
    this.draw();
  }

  shift(dx, dy) {
    this.view.shift(dx, dy, this.frame());
    this.draw();
  }

  frame() {
    const width = this.canvas.clientWidth;
    return this.view.frame(width, Math.round(width * this.ratio));
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => this.paint());
  }

  paint() {
    const frame = this.frame();
    const dense = devicePixelRatio || 1;
    this.canvas.style.height = `${frame.height}px`;
    this.canvas.width = frame.width * dense;
    this.canvas.height = frame.height * dense;
    const pen = this.canvas.getContext("2d");
    pen.scale(dense, dense);
    paint.grid(pen, frame, this.view);
    paint.tiles(pen, frame, this.tiles, this.chosenTile);
    paint.cells(pen, frame, this.view, this.density);
    paint.dots(pen, frame, this.dots, this.chosen);
    if (this.cone) paint.cone(pen, frame, this.cone);
  }

  tileAt(x, y) {
    const frame = this.frame();
    return this.tiles.find((tile) => { const outline = paint.corners(frame, tile); return outline && isInside(x, y, outline); }) ?? null;
  }

  read(x, y) {
    const { place, position } = this.frame();
    const at = position(x, y);
    const isHere = ({ ra, dec }) => { const there = place(ra, dec); return there && Math.hypot(there[0] - x, there[1] - y) < 5; };
    const tile = this.tileAt(x, y);
    const cell = this.density.cells.find(isHere);
    const here = this.dots.find(isHere)?.name ?? (cell && `${whole(cell.n)} here`);
    const failed = tile?.state === "failed" ? " (failed)" : "";
    const words = at ? [degrees(...at), tile && `tile ${tile.tile_id}${failed}`, here] : [this.view.isWide ? "whole sky" : `${angle(this.view.field)} wide`];
    this.reading.textContent = words.filter(Boolean).join(" · ");
  }

  choose(x, y) {
    const { position } = this.frame();
    const at = position(x, y);
    if (!at || !this.pick) return;
    this.pick(...at, this.tileAt(x, y), separation(...at, ...(position(x + REACH_PIXELS, y) ?? at)));
  }

  listen() {
    const { canvas } = this;
    const where = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      grip = { from: where(event), last: where(event), moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = where(event);
      if (!grip) { this.read(...at); return; }
      grip.moved ||= Math.hypot(at[0] - grip.from[0], at[1] - grip.from[1]) > 4;
      if (grip.moved) this.shift(at[0] - grip.last[0], at[1] - grip.last[1]);
      grip.last = at;
    });
    canvas.addEventListener("pointerup", (event) => {
      if (grip && !grip.moved) this.choose(...where(event));
      grip = null;
    });
    canvas.addEventListener("pointercancel", () => { grip = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.frame().position(...where(event)));
    }, { passive: false });
    const keys = {
      ArrowLeft: () => this.shift(KEY_STEP, 0),
      ArrowRight: () => this.shift(-KEY_STEP, 0),
      ArrowUp: () => this.shift(0, KEY_STEP),
      ArrowDown: () => this.shift(0, -KEY_STEP),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.goHome(),
      Enter: () => { const { width, height } = this.frame(); this.choose(width / 2, height / 2); },
    };
    canvas.addEventListener("keydown", (event) => {
      if (!Object.hasOwn(keys, event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}
