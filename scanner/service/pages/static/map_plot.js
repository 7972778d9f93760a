// The t-SNE map in a canvas: the mean grid value of the candidates in each cell (cividis, as in tsne.png), one of them and its
// neighbours over it. A click on a neighbour opens it.

import { colour, h, onTheme } from "./dom.js";
import { plural, score } from "./text.js";

/** Every 32nd colour of cividis. */
const CIVIDIS = [[0, 34, 78], [26, 56, 111], [67, 78, 108], [99, 100, 113], [125, 124, 120], [155, 148, 119], [190, 175, 109], [225, 203, 89], [254, 232, 56]];

const shade = (value) => {
  const at = Math.min(0.99999, Math.max(0, value)) * (CIVIDIS.length - 1);
  const [low, part] = [Math.floor(at), at % 1];
  return CIVIDIS[low].map((from, i) => Math.round(from + part * (CIVIDIS[low + 1][i] - from)));
};

export class MapPlot {
  /** @param {HTMLElement} host @param {{open?: (id: string) => void}} options `open` is told the id of a neighbour that is clicked. */
  constructor(host, { open = null } = {}) {
    this.map = null;
    this.self = null;
    this.neighbours = [];
    this.canvas = h("canvas", { role: "img", "aria-label": "t-SNE map with the candidate and its neighbours" });
    this.reading = h("p", { class: "reading" });
    host.classList.add("plot");
    host.append(this.canvas, this.reading);
    new ResizeObserver(() => this.paint()).observe(host);
    onTheme(() => this.paint());
    this.canvas.addEventListener("pointermove", (event) => this.read(event));
    this.canvas.addEventListener("click", (event) => {
      const near = this.nearest(event);
      if (near && open) open(near.id);
    });
  }

  set(parts) {
    Object.assign(this, parts);
    this.paint();
  }

  frame() {
    const width = this.canvas.clientWidth || 280;
    // Room for the rings at the rim.
    const pad = 0.05 * Math.max(this.map.x_max - this.map.x_min, this.map.y_max - this.map.y_min) || 1;
    const [left, right, low, high] = [this.map.x_min - pad, this.map.x_max + pad, this.map.y_min - pad, this.map.y_max + pad];
    const height = Math.round(Math.min(width * 1.1, Math.max(width * 0.6, (width * (high - low)) / (right - left))));
    const scale = Math.min(width / (right - left), height / (high - low));
    const [dx, dy] = [(width - scale * (right - left)) / 2, (height - scale * (high - low)) / 2];
    return { width, height, scale, place: (x, y) => [dx + (x - left) * scale, height - dy - (y - low) * scale] };
  }

  paint() {
    if (!this.map?.n_x) return;
    const { width, height, place } = this.frame();
    const dense = devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = width * dense;
    this.canvas.height = height * dense;
    const pen = this.canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.imageSmoothingEnabled = false;
    const [left, top] = place(this.map.x_min, this.map.y_max);
    const [right, bottom] = place(this.map.x_max, this.map.y_min);
    pen.drawImage(this.cells(), left, top, right - left, bottom - top);
    for (const one of this.neighbours) this.ring(pen, place, one, 4.5, colour("chosen"));
    if (this.self) this.ring(pen, place, this.self, 8, colour("chosen"), true);
  }

  cells() {
    const { n_x: columns, n_y: rows, counts, grid_value: values } = this.map;
    const picture = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const pen = picture.getContext("2d");
    const pixels = pen.createImageData(columns, rows);
    counts.forEach((count, i) => {
      if (!count) return;
      const at = 4 * ((rows - 1 - Math.floor(i / columns)) * columns + (i % columns));
      pixels.data.set([...(values[i] === null ? [125, 124, 120] : shade(values[i])), 255], at);
    });
    pen.putImageData(pixels, 0, 0);
    return picture;
  }

  ring(pen, place, { tsne_x: x, tsne_y: y }, radius, ink, cross = false) {
    if (x === null || y === null) return;
    const [px, py] = place(x, y);
    for (const [wide, stroke] of [[4, "#fff"], [2, ink]]) {
      pen.lineWidth = wide;
      pen.strokeStyle = stroke;
      pen.beginPath();
      pen.arc(px, py, radius, 0, 7);
      if (cross) for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { pen.moveTo(px + dx * radius, py + dy * radius); pen.lineTo(px + dx * (radius + 5), py + dy * (radius + 5)); }
      pen.stroke();
    }
  }

  nearest(event) {
    if (!this.map?.n_x) return null;
    const box = this.canvas.getBoundingClientRect();
    const { place } = this.frame();
    const gap = (one) => { const [x, y] = place(one.tsne_x, one.tsne_y); return Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top); };
    const [best] = this.neighbours.filter((one) => one.tsne_x !== null).map((one) => [gap(one), one]).sort((a, b) => a[0] - b[0]);
    return best && best[0] < 10 ? best[1] : null;
  }

  read(event) {
    const near = this.nearest(event);
    this.canvas.style.cursor = near ? "pointer" : "default";
    if (near) { this.reading.textContent = `${near.name} · ${score(near.p_calibrated)}`; return; }
    if (!this.map?.n_x) return;
    const box = this.canvas.getBoundingClientRect();
    const { scale, place } = this.frame();
    const [left, bottom] = place(this.map.x_min, this.map.y_min);
    const i = Math.floor(((event.clientX - box.left - left) / scale / (this.map.x_max - this.map.x_min)) * this.map.n_x);
    const j = Math.floor(((bottom - event.clientY + box.top) / scale / (this.map.y_max - this.map.y_min)) * this.map.n_y);
    const inside = i >= 0 && j >= 0 && i < this.map.n_x && j < this.map.n_y;
    const count = inside ? this.map.counts[j * this.map.n_x + i] : 0;
    this.reading.textContent = count ? `${plural(count, "candidate")}, mean grid value ${score(this.map.grid_value[j * this.map.n_x + i])}` : "";
  }
}
