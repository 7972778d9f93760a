// What the sky plot draws: a grid of coordinates, tiles, cells with a number of candidates, single candidates, a cone.
// Each function takes a canvas's pen, the frame of sky_view.js and what it draws.

import { colour } from "./dom.js";
import { turned } from "./projection.js";

const RAD = Math.PI / 180;
const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
const ROOM = 38;

const between = (from, to, parts) => Array.from({ length: parts + 1 }, (_, i) => from + ((to - from) * i) / parts);
const digits = (step) => Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
const multiples = (step, from, to) => Array.from({ length: Math.max(0, Math.floor(to / step + 1e-9) - Math.ceil(from / step - 1e-9) + 1) }, (_, i) => (Math.ceil(from / step - 1e-9) + i) * step);

/** A line through positions on the sky, broken where it leaves the projection or goes round its back. */
const line = (pen, { place, width }, positions) => {
  let last = null;
  pen.beginPath();
  for (const [ra, dec] of positions) {
    const at = place(ra, dec);
    const broken = !at || !last || Math.hypot(at[0] - last[0], at[1] - last[1]) > width / 2;
    if (at) pen[broken ? "moveTo" : "lineTo"](...at);
    last = at;
  }
  pen.stroke();
};

/** Where the first of some positions lies within the canvas. */
const firstInside = ({ place, width, height }, positions) => {
  for (const [ra, dec] of positions) {
    const at = place(ra, dec);
    if (at && at[0] >= 0 && at[0] <= width && at[1] >= 8 && at[1] <= height) return at;
  }
  return null;
};

export const grid = (pen, frame, view) => {
  const { ra, dec, field, isWide } = view;
  const step = isWide ? 30 : STEPS.find((one) => one <= field / 3) ?? STEPS.at(-1);
  const reach = Math.min(75, 0.75 * field * Math.max(frame.width / frame.height, frame.height / frame.width));
  const [south, north] = isWide ? [-90, 90] : [Math.max(-90, dec - reach), Math.min(90, dec + reach)];
  const steepest = Math.max(Math.abs(south), Math.abs(north));
  const across = isWide || steepest > 88 ? 180 : Math.min(180, reach / Math.cos(steepest * RAD));
  const raStep = isWide ? (frame.width < 480 ? 60 : 30) : STEPS.find((one) => one <= (0.4 * field) / Math.max(0.02, Math.cos(dec * RAD))) ?? step;
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.font = "10.5px system-ui, sans-serif";
  for (const d of multiples(step, south, north)) {
    line(pen, frame, between(ra - across + 1e-6, ra + across - 1e-6, 96).map((a) => [a, d]));
    const at = isWide ? frame.place(ra + 179.99, d) : firstInside(frame, between(ra + across, ra, 60).map((a) => [a, d]));
    if (at && Math.abs(d) < 89) pen.fillText(`${d < -1e-9 ? "−" : "+"}${Math.abs(d).toFixed(digits(step))}°`, Math.max(4, at[0] + 4), at[1] - 3);
  }
  for (const a of multiples(raStep, ra - across, ra + across - 1e-6)) {
    line(pen, frame, between(south, north, 48).map((d) => [a, d]));
    const at = isWide ? (Math.abs(a - ra) < 150 ? frame.place(a, 0) : null) : firstInside(frame, between(south, dec, 60).map((d) => [a, d]));
    if (at && at[0] > 2 && at[0] < frame.width - ROOM) pen.fillText(`${turned(a).toFixed(digits(raStep))}°`, at[0] + 3, isWide ? at[1] - 3 : frame.height - 5);
  }
  if (isWide) for (const side of [-180, 180 - 1e-4]) line(pen, frame, between(-90, 90, 96).map((d) => [ra + side, d]));
};

/** The corners of a tile in pixels; null where it is out of sight or goes round the back. */
export const corners = ({ place, width }, tile) => {
  const found = tile.outline.map(([ra, dec]) => place(ra, dec));
  if (found.some((corner) => !corner)) return null;
  const xs = found.map(([x]) => x);
  return Math.max(...xs) - Math.min(...xs) > 4 * width ? null : found;
};

export const tiles = (pen, frame, all, chosen) => {
  const inks = { done: colour("accent"), failed: colour("alarm") };
  for (const tile of all) {
    const outline = corners(frame, tile);
    if (!outline) continue;
    pen.fillStyle = pen.strokeStyle = inks[tile.state];
    // A tile smaller than a pixel or two must still be seen.
    if (Math.hypot(outline[2][0] - outline[0][0], outline[2][1] - outline[0][1]) < 4) {
      pen.globalAlpha = 0.8;
      pen.fillRect(outline[0][0] - 1, outline[0][1] - 1, 2.5, 2.5);
      continue;
    }
    pen.beginPath();
    outline.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](x, y));
    pen.closePath();
    pen.globalAlpha = tile.state === "failed" ? 0.35 : 0.13;
    pen.fill();
    pen.globalAlpha = tile === chosen ? 1 : 0.55;
    pen.lineWidth = tile === chosen ? 2.5 : 1;
    pen.stroke();
  }
  pen.globalAlpha = 1;
};

/** [{ra, dec, n}] of HEALPix cells of an order: the more candidates in a cell, the larger and darker its dot, up to its size. */
export const cells = (pen, frame, view, { order, cells: all }) => {
  const most = all.reduce((top, { n }) => Math.max(top, n), 1);
  const across = view.isWide ? frame.width / 340 : frame.width / view.field;
  const room = Math.min(9, Math.max(0.9, (0.5 * across * 58.6) / 2 ** order));
  pen.fillStyle = colour("chosen");
  for (const { ra, dec, n } of all) {
    const at = frame.place(ra, dec);
    if (!at) continue;
    const share = Math.log1p(n) / Math.log1p(most);
    pen.globalAlpha = 0.2 + 0.65 * share;
    pen.beginPath();
    pen.arc(at[0], at[1], Math.max(0.8, Math.min(room, 1.6 + 3 * share)), 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
};

/** [{ra, dec, id}]: a ring each, a large one for the chosen. */
export const dots = (pen, { place }, all, chosen) => {
  for (const { ra, dec, id } of all) {
    const at = place(ra, dec);
    if (!at) continue;
    const isChosen = id === chosen;
    pen.strokeStyle = colour(isChosen ? "ink" : "chosen");
    pen.lineWidth = isChosen ? 2.5 : 1.3;
    pen.beginPath();
    pen.arc(at[0], at[1], isChosen ? 7 : 3.2, 0, 7);
    pen.stroke();
  }
};

/** The circle {ra, dec, radius} in degrees, dashed. */
export const cone = (pen, frame, { ra, dec, radius }) => {
  const [sin, cos, r] = [Math.sin(dec * RAD), Math.cos(dec * RAD), radius * RAD];
  const ring = between(0, 2 * Math.PI, 72).map((turn) => {
    const d = Math.asin(sin * Math.cos(r) + cos * Math.sin(r) * Math.cos(turn));
    return [ra + Math.atan2(Math.sin(turn) * Math.sin(r) * cos, Math.cos(r) - sin * Math.sin(d)) / RAD, d / RAD];
  });
  pen.strokeStyle = colour("ink");
  pen.lineWidth = 2;
  pen.setLineDash([5, 3]);
  line(pen, frame, ring);
  pen.setLineDash([]);
};
