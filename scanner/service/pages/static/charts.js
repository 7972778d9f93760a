// Two charts as SVG: how many objects have which score, and what purity a list of the best n may expect.

import { svg } from "./dom.js";
import { figures, percent, plural, power, whole } from "./text.js";

const [HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [240, 52, 40, 12, 30];
const FOOT = HEIGHT - BOTTOM;

/** Draw a chart as wide as its host, and again when that changes. */
export const fit = (host, draw) => {
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth === width) return;
    width = host.clientWidth;
    if (width) host.replaceChildren(draw(width));
  }).observe(host);
};

const begin = (width, label) => svg("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
const text = (x, y, anchor, words, more = {}) => svg("text", { x, y, "text-anchor": anchor, ...more }, words);
const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });

/** Ticks are [place in pixels, words]; those of x that would run into one another are left out. */
const axes = (chart, width, xTicks, yTicks, xTitle, yTitle) => {
  const every = Math.ceil(xTicks.length / Math.max(2, Math.floor((width - LEFT) / 52)));
  xTicks.filter((_, i) => i % every === 0).forEach(([x, words]) => chart.append(line(x, FOOT, x, FOOT + 4, "axis"), text(x, FOOT + 16, "middle", words)));
  for (const [y, words] of yTicks) chart.append(line(LEFT, y, width - RIGHT, y, "grid"), text(LEFT - 6, y + 4, "end", words));
  chart.append(
    line(LEFT, FOOT, width - RIGHT, FOOT, "axis"),
    text((LEFT + width) / 2, HEIGHT - 6, "middle", xTitle),
    text(12, (TOP + FOOT) / 2, "middle", yTitle, { transform: `rotate(-90 12 ${(TOP + FOOT) / 2})` }),
  );
};

/**
 * Bars of all objects with those of the candidates before them; counts on a logarithmic scale.
 * @param {{edges: number[], objects: number[], candidates: number[]}} counts of the API's histogram
 * @param {{title: string, log: boolean}} options `log`: the edges are spaced by factors.
 * @returns {(width: number) => SVGElement}
 */
export const histogram = ({ edges, objects, candidates }, { title, log }) => (width) => {
  const sum = (counts) => counts.reduce((total, n) => total + n, 0);
  const chart = begin(width, `Histogram of the ${title}: ${plural(sum(objects), "object")}, ${plural(sum(candidates), "candidate")}`);
  const decades = Math.max(1, Math.ceil(Math.log10(1.5 * Math.max(...objects, 1))));
  const scale = log ? Math.log10 : (value) => value;
  const [first, last] = [scale(edges[0]), scale(edges.at(-1))];
  const x = (value) => LEFT + ((scale(value) - first) / (last - first)) * (width - LEFT - RIGHT);
  // A single object must be seen: the axis begins at a half.
  const y = (n) => FOOT - (Math.log10(2 * Math.max(n, 0.5)) / (decades + Math.log10(2))) * (FOOT - TOP);
  const every = Math.ceil(decades / 5);
  const yTicks = Array.from({ length: decades + 1 }, (_, i) => i).filter((i) => i % every === 0).map((i) => [y(10 ** i), power(i)]);
  const steps = log ? Math.round(last - first) : 5;
  const xTicks = Array.from({ length: steps + 1 }, (_, i) => (log ? 10 ** (Math.round(first) + i) : first + (i * (last - first)) / steps)).map((value) => [x(value), log ? power(Math.round(Math.log10(value))) : figures(value)]);
  axes(chart, width, xTicks, yTicks, title, "objects per bin");
  for (const [counts, kind, words] of [[objects, "all", "object"], [candidates, "chosen", "candidate"]]) {
    counts.forEach((n, i) => {
      if (!n) return;
      const [from, to] = [x(edges[i]), x(edges[i + 1])];
      const bar = svg("rect", { x: from, width: Math.max(0.6, to - from - 0.6), y: y(n), height: FOOT - y(n), class: kind });
      bar.append(svg("title", {}, `${figures(edges[i])} to ${figures(edges[i + 1])}: ${plural(n, words)}`));
      chart.append(bar);
    });
  }
  return chart;
};

/** [n, mean calibrated probability of the best n candidates] by the bins of their histogram, best first. */
export const purity = ({ candidates, candidate_sum: sums }) => {
  let [count, expected] = [0, 0];
  const points = [];
  for (let i = candidates.length - 1; i >= 0; i -= 1) {
    if (!candidates[i]) continue;
    count += candidates[i];
    expected += sums[i];
    points.push([count, expected / count]);
  }
  return { points, expected, count };
};

/** The curve of these points. */
export const purityCurve = ({ points, expected, count }) => (width) => {
  const chart = begin(width, `Expected purity: ${figures(expected)} lenses among ${plural(count, "candidate")}`);
  const best = points.reduce((most, [, share]) => Math.max(most, share), 0.001);
  const top = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((share) => share >= best) ?? 1;
  const decades = Math.log10(Math.max(count, 10));
  const x = (n) => LEFT + (Math.log10(n) / decades) * (width - LEFT - RIGHT);
  const y = (share) => FOOT - (share / top) * (FOOT - TOP);
  const xTicks = Array.from({ length: Math.floor(decades) + 1 }, (_, i) => [x(10 ** i), whole(10 ** i)]);
  axes(chart, width, xTicks, [0, 0.25, 0.5, 0.75, 1].map((part) => [y(part * top), percent(part * top)]), "the best n candidates by calibrated probability", "expected purity");
  chart.append(svg("polyline", { class: "curve", points: points.map(([n, share]) => `${x(n).toFixed(1)},${y(share).toFixed(1)}`).join(" ") }));
  for (const [n, share] of points) {
    const dot = svg("circle", { cx: x(n), cy: y(share), r: 2.5, class: "chosen" });
    dot.append(svg("title", {}, `best ${whole(n)}: ${percent(share)} expected`));
    chart.append(dot);
  }
  return chart;
};
