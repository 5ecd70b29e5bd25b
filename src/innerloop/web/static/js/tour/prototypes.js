// @ts-check
/** Examples of three classes in the plane, whose regions move with them. */

import { post } from "../api.js";
import { h, latest, set, svg } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { Plot, button, caption, choice, number, spoken } from "./plot.js";

const CLASSES = [0, 1, 2];
const START = [
  [[-1.05, 0.5], [-0.7, 0.72], [-0.55, 0.3], [-0.9, 0.05]],
  [[0.75, 0.7], [1.1, 0.45], [0.6, 0.25], [1.2, 0.8]],
  [[-0.25, -0.45], [0.2, -0.7], [0.5, -0.4], [0.1, -0.2]],
];
const QUERY = { x: 0.05, y: 0.3 };
const DENSITY = 1.5; // most pixels of the regions in one of the page

/** @typedef {{columns: number, rows: number, outputs: number[][], means: number[][]}} Answer */

/** @param {number} label @param {number} size */
function shape(label, size) {
  const kind = { class: `shape c${label}` };
  if (label === 0) return svg("circle", { ...kind, r: size });
  if (label === 1) return svg("rect", { ...kind, x: -size, y: -size, width: 2 * size, height: 2 * size, rx: 2 });
  const up = size * 1.25;
  return svg("path", { ...kind, d: `M0 ${-up}L${up} ${0.8 * up}L${-up} ${0.8 * up}Z` });
}

const fresh = () => [
  ...START.flatMap((places, label) => places.map(([x, y]) => ({ x, y, label }))),
  { ...QUERY, label: -1 },
];

/** The outputs of a class between the points of the grid. */
class Field {
  /** @param {Answer} answer @param {Plot} plot */
  constructor({ columns, rows, outputs }, plot) {
    this.columns = columns;
    this.rows = rows;
    this.outputs = outputs;
    this.plot = plot;
  }

  /** @param {number} across 0..1 @param {number} up 0..1 @returns {number[]} */
  at(across, up) {
    const [c, r] = [across * (this.columns - 1), up * (this.rows - 1)];
    const [left, low] = [Math.min(Math.floor(c), this.columns - 2), Math.min(Math.floor(r), this.rows - 2)];
    const [a, b, start] = [c - left, r - low, low * this.columns + left];
    return this.outputs.map((values) => {
      const below = values[start] * (1 - a) + values[start + 1] * a;
      const above = values[start + this.columns] * (1 - a) + values[start + this.columns + 1] * a;
      return below * (1 - b) + above * b;
    });
  }

  /** @param {number} x @param {number} y @returns {number[]} probabilities */
  probabilities(x, y) {
    const { plot } = this;
    const logits = this.at((x - plot.x[0]) / (plot.x[1] - plot.x[0]), (y - plot.y[0]) / (plot.y[1] - plot.y[0]));
    const shares = logits.map((value) => Math.exp(value - Math.max(...logits)));
    const sum = shares.reduce((a, b) => a + b);
    return shares.map((share) => share / sum);
  }

  /** @param {HTMLCanvasElement} canvas @param {number[][]} colors */
  draw(canvas, colors) {
    const { width, height } = canvas;
    const image = new ImageData(width, height);
    const cells = Array.from({ length: width }, (_, i) => (i / Math.max(1, width - 1)) * (this.columns - 1));
    const left = Int32Array.from(cells, (c) => Math.min(Math.floor(c), this.columns - 2));
    const share = Float32Array.from(cells, (c, i) => c - left[i]);
    const line = CLASSES.map(() => new Float32Array(this.columns));
    for (let j = 0, pixel = 0; j < height; j++) {
      const r = (1 - j / (height - 1)) * (this.rows - 1);
      const low = Math.min(Math.floor(r), this.rows - 2);
      for (const k of CLASSES)
        for (let c = 0, from = low * this.columns; c < this.columns; c++, from++)
          line[k][c] = this.outputs[k][from] * (1 - (r - low)) + this.outputs[k][from + this.columns] * (r - low);
      for (let i = 0; i < width; i++, pixel += 4) {
        let [best, first, second] = [0, -Infinity, -Infinity];
        for (let k = 0; k < 3; k++) {
          const value = line[k][left[i]] * (1 - share[i]) + line[k][left[i] + 1] * share[i];
          if (value > first) [best, second, first] = [k, first, value];
          else if (value > second) second = value;
        }
        const margin = first - second;
        image.data.set(colors[best], pixel);
        image.data[pixel + 3] = 34 + 74 * (margin / (margin + 2));
      }
    }
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  }
}

/** The colors of the classes, as the theme has them. @param {Element} element */
function palette(element) {
  const style = getComputedStyle(element);
  return CLASSES.map((k) => {
    const code = parseInt(style.getPropertyValue(`--c${k}`).trim().slice(1), 16);
    return [code >> 16, (code >> 8) & 255, code & 255];
  });
}

/** @param {HTMLElement} element */
export async function mount(element) {
  let points = fresh();
  let head = "mean";
  /** @type {Field|null} */
  let field = null;
  /** @type {number[][]} */
  let means = [];
  const words = caption();
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas.regions", { "aria-hidden": "true" }));
  const bars = CLASSES.map((k) => h("b", {}));
  const fills = CLASSES.map((k) => h(`i.c${k}`));
  const kind = (/** @type {number} */ label) => t(`tour.prototypes.class${label}`);

  const plot = new Plot(
    [-1.5, 1.5],
    [-1, 1],
    {
      move(index, x, y) {
        Object.assign(points[index], { x, y });
        plot.points(points);
        if (points[index].label < 0) show();
        else ask().catch(complain);
      },
      name(index) {
        const { x, y, label } = points[index];
        const who = label < 0 ? t("tour.prototypes.query") : t("tour.prototypes.example", { kind: kind(label) });
        return t("tour.at", { what: who, x: number(x), y: number(y) });
      },
      mark(index) {
        const { label } = points[index];
        if (label >= 0) return [shape(label, 8)];
        return [svg("circle", { class: "query", r: 15 }), svg("text", { class: "query", y: 6 }, "?")];
      },
    },
    { ratio: 2 / 3, label: "tour.prototypes.picture" },
  );
  plot.element.prepend(canvas);

  function links() {
    const lines = points.slice(0, -1).map(({ x, y, label }) => {
      const [a, b] = means[label];
      return svg("line", { class: `link c${label}`, x1: plot.left(x), y1: plot.top(y), x2: plot.left(a), y2: plot.top(b) });
    });
    const marks = means.map(([x, y], k) => {
      const at = `translate(${plot.left(x)} ${plot.top(y)})`;
      return svg("g", { class: "mean", transform: at }, svg("circle", { class: "halo", r: 17 }), shape(k, 10));
    });
    plot.layers[2].replaceChildren(...lines, ...marks);
  }

  function show() {
    if (!field) return;
    const { x, y } = points[points.length - 1];
    const shares = field.probabilities(x, y);
    shares.forEach((share, k) => {
      bars[k].textContent = `${Math.round(100 * share)}%`;
      fills[k].style.transform = `scaleX(${share})`;
    });
    const best = shares.indexOf(Math.max(...shares));
    words.say(t("tour.prototypes.seen", { kind: kind(best), percent: Math.round(100 * shares[best]) }));
  }

  function paint() {
    if (!field || !plot.width) return;
    const density = Math.min(DENSITY, devicePixelRatio);
    const [width, height] = [Math.round(plot.width * density), Math.round(plot.height * density)];
    if (canvas.width !== width || canvas.height !== height) set(canvas, { width, height });
    field.draw(canvas, palette(element));
    links();
  }

  const ask = latest(async () => {
    const examples = points.slice(0, -1).map(({ x, y, label }) => ({ x, y, label }));
    const answer = await post("tour/prototypes", { points: examples, head });
    field = new Field(answer, plot);
    means = answer.means;
    paint();
    show();
  });

  function reset() {
    points = fresh();
    plot.points(points);
    ask().catch(complain);
  }

  const rows = CLASSES.map((k) =>
    h(
      "div.share",
      {},
      svgIcon(k),
      h("span", { t: `tour.prototypes.class${k}` }),
      h("span.track", {}, fills[k]),
      bars[k],
    ),
  );
  element.append(
    h(
      "div.tools",
      {},
      choice(
        "tour.prototypes.head",
        ["mean", "ridge", "mahalanobis"].map((name) => [name, `tour.prototypes.${name}`]),
        (value) => {
          head = value;
          ask().catch(complain);
        },
      ),
      button("tour.reset", reset),
    ),
    plot.element,
    h("div.shares", { role: "group", "data-t-label": "tour.prototypes.shares" }, ...rows),
    words.element,
    h("p.hint.soft", { t: "tour.prototypes.hint" }),
  );
  plot.resized = paint;
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  plot.points(points);
  await ask();
  spoken(() => {
    plot.points(points);
    show();
  });
}

/** @param {number} label */
const svgIcon = (label) => svg("svg", { class: "icon", viewBox: "-12 -12 24 24", "aria-hidden": "true" }, shape(label, 8));
