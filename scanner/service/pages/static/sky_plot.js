// The sky in a canvas, without any network: tiles, density of candidates, single candidates, the cone that is asked for.
// Drag moves, the wheel and + − zoom, a click picks; with the keyboard: arrows, + −, 0, Enter picks the middle.

import { calm, colour, h, onTheme } from "./dom.js";
import { bounds, gnomonic, mollweide, separation, turned, vertices } from "./projection.js";
import { angle, degrees, whole } from "./text.js";

const WHOLE_SKY = 180;
const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005];

/**
 * @param {HTMLElement} host where it goes; its data-ratio is height / width.
 * @param {{pick?: (ra: number, dec: number, tile: object | null, reach: number) => void, label?: string}} options
 *   `pick` is told the position in degrees, the tile there, and what 12 pixels are in degrees.
 */
export class SkyPlot {
  constructor(host, { pick = null, label = "Sky map" } = {}) {
    this.host = host;
    this.pick = pick;
    this.ratio = Number(host.dataset.ratio ?? 0.62);
    this.tiles = [];
    this.cells = [];
    this.dots = [];
    this.cone = null;
    this.chosen = null;
    this.view = { ra: 0, dec: 0, field: 2 * WHOLE_SKY };
    this.home = { ...this.view };
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": label });
    this.reading = h("p", { class: "reading", "aria-live": "off" });
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

  setTiles(tiles) {
    this.tiles = tiles.map((tile) => ({ ...tile, outline: vertices(tile.s_region) })).filter((tile) => tile.outline.length > 2);
    const middles = this.tiles.flatMap((tile) => tile.outline);
    if (middles.length) this.setHome(bounds(middles));
    this.draw();
  }

  /** What "show all" shows. */
  setHome({ ra, dec, radius }) {
    this.home = { ra, dec, field: radius > 40 ? 2 * WHOLE_SKY : Math.max(2.3 * radius, 0.02) };
    if (this.home.field >= WHOLE_SKY) this.home.dec = 0;
    this.view = { ...this.home };
  }

  set(parts) {
    Object.assign(this, parts);
    this.draw();
  }

  goHome() {
    this.view = { ...this.home };
    this.draw();
  }

  /** Look at a position, no wider than `field` degrees. */
  look(ra, dec, field) {
    this.view = { ra, dec, field: Math.min(this.view.field, field) };
    this.draw();
  }

  zoom(factor, at = null) {
    const { field } = this.view;
    const wide = field > 100;
    let next = wide ? (factor < 1 ? 90 : field) : field * factor;
    if (next > 100) next = 2 * WHOLE_SKY;
    next = Math.max(0.002, next);
    const middle = at ?? [this.view.ra, this.view.dec];
    const keep = wide || next > 100 ? 1 : next / field;
    // Towards the position under the pointer, so that it stays there.
    const towards = ([ra, dec]) => {
      let d = turned(ra - this.view.ra + 180) - 180;
      d = this.view.ra + d * (1 - keep);
      return [turned(d), this.view.dec + (dec - this.view.dec) * (1 - keep)];
    };
    const [ra, dec] = wide ? middle : at ? towards(at) : middle;
    this.view = { ra, dec: next > 100 ? 0 : Math.max(-90, Math.min(90, dec)), field: next };
    this.draw();
  }

  get isWide() {
    return this.view.field > 100;
  }

  frame() {
    const width = this.canvas.clientWidth || 300;
    const height = Math.round(width * this.ratio);
    const plane = this.isWide ? mollweide(this.view.ra) : gnomonic(this.view.ra, this.view.dec);
    const scale = this.isWide
      ? Math.min(width / (4 * Math.SQRT2 + 0.3), height / (2 * Math.SQRT2 + 0.3))
      : Math.min(width, height) / (2 * Math.tan(((this.view.field / 2) * Math.PI) / 180));
    const place = (ra, dec) => {
      const at = plane.forward(ra, dec);
      return at && [width / 2 + at[0] * scale, height / 2 - at[1] * scale];
    };
    const position = (x, y) => plane.inverse((x - width / 2) / scale, (height / 2 - y) / scale);
    return { width, height, scale, place, position };
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => this.paint());
  }

  paint() {
    const { width, height, place } = this.frame();
    const dense = devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = width * dense;
    this.canvas.height = height * dense;
    const pen = this.canvas.getContext("2d");
    pen.scale(dense, dense);
    this.paintGrid(pen, place, width, height);
    this.paintTiles(pen, place);
    this.paintCells(pen, place);
    this.paintDots(pen, place);
    this.paintCone(pen, place);
  }

  line(pen, place, points) {
    let last = null;
    pen.beginPath();
    for (const [ra, dec] of points) {
      const at = place(ra, dec);
      const broken = !at || !last || Math.hypot(at[0] - last[0], at[1] - last[1]) > this.canvas.clientWidth / 2;
      if (at) pen[broken ? "moveTo" : "lineTo"](...at);
      last = at;
    }
    pen.stroke();
  }

  paintGrid(pen, place, width, height) {
    const { ra, dec, field } = this.view;
    const step = this.isWide ? 30 : STEPS.find((one) => one <= field / 3) ?? STEPS.at(-1);
    const reach = this.isWide ? 180 : Math.min(75, field * 0.75 * Math.max(1, width / height));
    const [south, north] = this.isWide ? [-90, 90] : [Math.max(-90, dec - reach), Math.min(90, dec + reach)];
    const nearPole = Math.max(Math.abs(south), Math.abs(north)) > 88;
    const acrossStep = this.isWide ? 30 : STEPS.find((one) => one <= (field / 3) / Math.max(0.02, Math.cos((dec * Math.PI) / 180)) * 1.2) ?? step;
    const across = nearPole ? 180 : Math.min(180, reach / Math.cos((Math.max(Math.abs(south), Math.abs(north)) * Math.PI) / 180));
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("quiet");
    pen.lineWidth = 1;
    pen.font = "10.5px system-ui, sans-serif";
    const between = (from, to, n = 48) => Array.from({ length: n + 1 }, (_, i) => from + ((to - from) * i) / n);
    const digits = (value) => Math.max(0, Math.ceil(-Math.log10(value) - 1e-9));
    for (let d = Math.ceil(south / step) * step; d <= north + 1e-9; d += step) {
      this.line(pen, place, between(ra - across, ra + across - (across >= 180 ? 1e-6 : 0), 96).map((a) => [a, d]));
      const at = this.isWide ? place(ra + 179.99, d) : this.onEdge(place, width, height, (a) => [a, d], ra + across, ra);
      if (at && Math.abs(d) < 89) pen.fillText(`${d < 0 ? "−" : "+"}${Math.abs(d).toFixed(digits(step))}°`, Math.max(4, at[0] + 4), at[1] - 3);
    }
    for (let a = Math.ceil((ra - across) / acrossStep) * acrossStep; a <= ra + across + 1e-9; a += acrossStep) {
      if (this.isWide && a - ra >= 180) continue;
      this.line(pen, place, between(south, north).map((d) => [a, d]));
      const at = this.isWide ? place(a, 0) : this.onEdge(place, width, height, (d) => [a, d], south, dec);
      if (at && at[0] < width - 38 && at[0] > 2) pen.fillText(`${turned(a).toFixed(digits(acrossStep))}°`, at[0] + 3, this.isWide ? at[1] - 3 : height - 5);
    }
    if (this.isWide) {
      for (const side of [-180, 179.9999]) this.line(pen, place, between(-90, 90, 96).map((d) => [ra + side, d]));
    }
  }

  /** Where a line comes into the canvas, going from `outside` to `inside`. */
  onEdge(place, width, height, point, outside, inside) {
    for (let i = 0; i <= 60; i += 1) {
      const at = place(...point(outside + ((inside - outside) * i) / 60));
      if (at && at[0] >= 0 && at[0] <= width && at[1] >= 8 && at[1] <= height) return at;
    }
    return null;
  }

  paintTiles(pen, place) {
    for (const tile of this.tiles) {
      const corners = tile.outline.map(([ra, dec]) => place(ra, dec));
      if (corners.some((corner) => !corner)) continue;
      const xs = corners.map(([x]) => x);
      if (Math.max(...xs) - Math.min(...xs) > this.canvas.clientWidth) continue;
      const ink = colour(tile.state === "failed" ? "alarm" : "accent");
      pen.beginPath();
      corners.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](x, y));
      pen.closePath();
      pen.fillStyle = pen.strokeStyle = ink;
      pen.globalAlpha = tile.state === "failed" ? 0.35 : 0.13;
      pen.fill();
      pen.globalAlpha = tile === this.chosenTile ? 1 : 0.55;
      pen.lineWidth = tile === this.chosenTile ? 2.5 : 1;
      pen.stroke();
      // A tile smaller than a pixel or two must still be seen.
      if (Math.max(...xs) - Math.min(...xs) < 3) pen.fillRect(corners[0][0] - 1, corners[0][1] - 1, 2.5, 2.5);
      pen.globalAlpha = 1;
    }
  }

  paintCells(pen, place) {
    const most = this.cells.reduce((top, cell) => Math.max(top, cell.n), 1);
    pen.fillStyle = colour("chosen");
    for (const { ra, dec, n } of this.cells) {
      const at = place(ra, dec);
      if (!at) continue;
      pen.globalAlpha = 0.35 + 0.5 * (Math.log1p(n) / Math.log1p(most));
      pen.beginPath();
      pen.arc(at[0], at[1], 1.3 + (most > 1 ? 3.2 * Math.sqrt(n / most) : 0.9), 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  paintDots(pen, place) {
    pen.lineWidth = 1.5;
    for (const dot of this.dots) {
      const at = place(dot.ra, dot.dec);
      if (!at) continue;
      const chosen = dot.id === this.chosen;
      pen.strokeStyle = colour(chosen ? "ink" : "chosen");
      pen.lineWidth = chosen ? 2.5 : 1.3;
      pen.beginPath();
      pen.arc(at[0], at[1], chosen ? 7 : 3.2, 0, 7);
      pen.stroke();
    }
  }

  paintCone(pen, place) {
    if (!this.cone) return;
    const { ra, dec, radius } = this.cone;
    const [sin, cos] = [Math.sin((dec * Math.PI) / 180), Math.cos((dec * Math.PI) / 180)];
    const r = (radius * Math.PI) / 180;
    const ring = Array.from({ length: 73 }, (_, i) => {
      const turn = (i * Math.PI) / 36;
      const d = Math.asin(sin * Math.cos(r) + cos * Math.sin(r) * Math.cos(turn));
      return [ra + (Math.atan2(Math.sin(turn) * Math.sin(r) * cos, Math.cos(r) - sin * Math.sin(d)) * 180) / Math.PI, (d * 180) / Math.PI];
    });
    pen.strokeStyle = colour("ink");
    pen.lineWidth = 2;
    pen.setLineDash([5, 3]);
    this.line(pen, place, ring);
    pen.setLineDash([]);
  }

  tileAt(x, y) {
    const { place } = this.frame();
    const pen = this.canvas.getContext("2d");
    const inside = (tile) => {
      const corners = tile.outline.map(([ra, dec]) => place(ra, dec));
      if (corners.some((corner) => !corner)) return false;
      const path = new Path2D();
      corners.forEach(([cx, cy], i) => path[i ? "lineTo" : "moveTo"](cx, cy));
      const dense = devicePixelRatio || 1;
      pen.save();
      pen.setTransform(1, 0, 0, 1, 0, 0);
      const hit = pen.isPointInPath(path, x, y);
      pen.restore();
      return hit && dense > 0;
    };
    return this.tiles.find(inside) ?? null;
  }

  read(x, y) {
    const at = this.frame().position(x, y);
    if (!at) { this.reading.textContent = `${this.isWide ? "whole sky" : `${angle(this.view.field)} field`}`; return; }
    const near = this.dots.find((dot) => { const p = this.frame().place(dot.ra, dot.dec); return p && Math.hypot(p[0] - x, p[1] - y) < 5; });
    const cell = this.cells.find((one) => { const p = this.frame().place(one.ra, one.dec); return p && Math.hypot(p[0] - x, p[1] - y) < 4; });
    const tile = this.tileAt(x, y);
    this.reading.textContent = [degrees(...at), tile && `tile ${tile.tile_id}${tile.state === "failed" ? " (failed)" : ""}`, near?.name ?? (cell && `${whole(cell.n)} here`)].filter(Boolean).join(" · ");
  }

  choose(x, y) {
    const { position } = this.frame();
    const at = position(x, y);
    if (!at || !this.pick) return;
    const beside = position(x + 12, y) ?? at;
    this.pick(at[0], at[1], this.tileAt(x, y), separation(...at, ...beside));
  }

  listen() {
    const canvas = this.canvas;
    const where = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let from = null;
    const read = calm((x, y) => this.read(x, y), 16);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      from = { at: where(event), last: where(event), moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = where(event);
      if (!from) { read(...at); return; }
      if (Math.hypot(at[0] - from.at[0], at[1] - from.at[1]) > 4) from.moved = true;
      if (from.moved) this.shift(at[0] - from.last[0], at[1] - from.last[1]);
      from.last = at;
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from && !from.moved) this.choose(...where(event));
      from = null;
    });
    canvas.addEventListener("pointercancel", () => { from = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.frame().position(...where(event)));
    }, { passive: false });
    const keys = {
      ArrowLeft: () => this.shift(30, 0), ArrowRight: () => this.shift(-30, 0), ArrowUp: () => this.shift(0, 30), ArrowDown: () => this.shift(0, -30),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), 0: () => this.goHome(),
      Enter: () => { const { width, height } = this.frame(); this.choose(width / 2, height / 2); },
    };
    canvas.addEventListener("keydown", (event) => {
      if (!Object.hasOwn(keys, event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  shift(dx, dy) {
    const { width, height, position } = this.frame();
    if (this.isWide) this.view.ra = turned(this.view.ra + (dx / width) * 400);
    else {
      const at = position(width / 2 - dx, height / 2 - dy);
      if (at) [this.view.ra, this.view.dec] = [at[0], Math.max(-89.9, Math.min(89.9, at[1]))];
    }
    this.draw();
  }
}
