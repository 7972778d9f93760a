// Two charts as SVG: how many objects have which score, and what purity a list of the best n may expect.

import { svg } from "./dom.js";
import { figures, plural, whole } from "./text.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [560, 240, 52, 40, 12, 12];
const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const power = (exponent) => (exponent === 0 ? "1" : `10${[...String(exponent)].map((digit) => SUPERSCRIPT[digit]).join("")}`);

const frame = (label) => svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
const text = (x, y, anchor, words, more = {}) => svg("text", { x, y, "text-anchor": anchor, ...more }, words);
const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });

const axes = (chart, xTicks, yTicks, xTitle, yTitle) => {
  for (const [x, words] of xTicks) chart.append(line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, "axis"), text(x, HEIGHT - BOTTOM + 16, "middle", words));
  for (const [y, words] of yTicks) chart.append(line(LEFT, y, WIDTH - RIGHT, y, "grid"), text(LEFT - 6, y + 4, "end", words));
  chart.append(
    line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"),
    text((LEFT + WIDTH) / 2, HEIGHT - 6, "middle", xTitle),
    text(12, (TOP + HEIGHT - BOTTOM) / 2, "middle", yTitle, { transform: `rotate(-90 12 ${(TOP + HEIGHT - BOTTOM) / 2})` }),
  );
};

/**
 * Bars of all objects with those of the candidates before them; counts on a logarithmic scale.
 * @param {{edges: number[], objects: number[], candidates: number[]}} counts of the API's histogram
 * @param {{title: string, log: boolean}} options `log`: the edges are spaced by factors.
 */
export const histogram = ({ edges, objects, candidates }, { title, log }) => {
  const total = objects.reduce((sum, n) => sum + n, 0);
  const chosen = candidates.reduce((sum, n) => sum + n, 0);
  const chart = frame(`Histogram of the ${title}: ${plural(total, "object")}, ${plural(chosen, "candidate")}`);
  const decades = Math.max(1, Math.ceil(Math.log10(Math.max(...objects, 1) * 1.5)));
  const scale = log ? Math.log10 : (value) => value;
  const [first, last] = [scale(edges[0]), scale(edges.at(-1))];
  const x = (value) => LEFT + ((scale(value) - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (n) => HEIGHT - BOTTOM - (Math.max(0, Math.log10(Math.max(n, 0.5) / 0.5)) / (decades + Math.log10(2))) * (HEIGHT - BOTTOM - TOP);
  const every = Math.ceil(decades / 5);
  const yTicks = Array.from({ length: decades + 1 }, (_, i) => i).filter((i) => i % every === 0).map((i) => [y(10 ** i), power(i)]);
  const xTicks = log
    ? Array.from({ length: Math.round(last - first) + 1 }, (_, i) => Math.round(first) + i).map((i) => [x(10 ** i), power(i)])
    : [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => [x(edges[0] + value * (edges.at(-1) - edges[0])), figures(edges[0] + value * (edges.at(-1) - edges[0]))]);
  axes(chart, xTicks, yTicks, title, "objects per bin");
  for (const [counts, kind] of [[objects, "all"], [candidates, "chosen"]]) {
    counts.forEach((n, i) => {
      if (!n) return;
      const [from, to] = [x(edges[i]), x(edges[i + 1])];
      const bar = svg("rect", { x: from, width: Math.max(0.6, to - from - 0.6), y: y(n), height: HEIGHT - BOTTOM - y(n), class: kind });
      bar.append(svg("title", {}, `${figures(edges[i])} to ${figures(edges[i + 1])}: ${whole(n)} ${kind === "all" ? "objects" : "candidates"}`));
      chart.append(bar);
    });
  }
  return chart;
};

/**
 * Expected purity of the best n candidates: the mean of their calibrated probabilities, best first.
 * @param {{edges: number[], candidates: number[], candidate_sum: number[]}} counts of the histogram of `p_calibrated`
 * @returns {{chart: SVGElement, expected: number, count: number}} `expected`: lenses among all of them.
 */
export const purity = ({ candidates, candidate_sum: sums }) => {
  let [count, expected] = [0, 0];
  const points = [];
  for (let i = candidates.length - 1; i >= 0; i -= 1) {
    if (!candidates[i]) continue;
    count += candidates[i];
    expected += sums[i];
    points.push([count, expected / count]);
  }
  const chart = frame(`Expected purity: ${figures(expected)} lenses among ${plural(count, "candidate")}`);
  const top = Math.log10(Math.max(count, 10));
  const x = (n) => LEFT + (Math.log10(Math.max(n, 1)) / top) * (WIDTH - LEFT - RIGHT);
  const y = (share) => HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
  const xTicks = Array.from({ length: Math.floor(top) + 1 }, (_, i) => [x(10 ** i), whole(10 ** i)]);
  axes(chart, xTicks, [0, 0.25, 0.5, 0.75, 1].map((share) => [y(share), `${100 * share}%`]), "the best n candidates by calibrated probability", "expected purity");
  chart.append(svg("polyline", { class: "curve", points: points.map(([n, share]) => `${x(n).toFixed(1)},${y(share).toFixed(1)}`).join(" ") }));
  for (const [n, share] of points) {
    const dot = svg("circle", { cx: x(n), cy: y(share), r: 2.5, class: "chosen" });
    dot.append(svg("title", {}, `best ${whole(n)}: ${(100 * share).toFixed(1)}% expected`));
    chart.append(dot);
  }
  return { chart, expected, count };
};
