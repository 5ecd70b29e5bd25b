// @ts-check
/** Curves of several runs in one picture. */

import { h, svg } from "../dom.js";

/** @typedef {{x: number, y: number, spread?: number|null}} Point */
/** @typedef {{name: string, color: number, points: Point[], smooth: boolean}} Curve */

const HEIGHT = 260;
const EDGE = { left: 56, right: 14, top: 12, bottom: 40 };
let count = 0;

/** @param {number} v @param {number} [digits] */
export function short(v, digits = 4) {
  if (!Number.isFinite(v)) return "–";
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return v.toExponential(2);
  return String(Number(v.toPrecision(size >= 1000 ? 6 : digits)));
}

/** Round numbers between two. @param {number} low @param {number} high @param {number} most */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((f) => f * power >= rough) ?? 10);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return found;
}

/** A running mean, which starts exact. @param {Point[]} points */
function smoothed(points) {
  const keep = 1 - 1 / Math.max(1, Math.min(30, points.length / 6));
  let sum = 0;
  let weight = 0;
  return points.map(({ x, y }) => {
    sum = keep * sum + y;
    weight = keep * weight + 1;
    return { x, y: sum / weight };
  });
}

/** At most so many points. @param {Point[]} points */
function thinned(points, most = 600) {
  const every = Math.ceil(points.length / most);
  return points.filter((_, i) => i % every === 0 || i === points.length - 1);
}

export class Chart {
  /**
   * @param {() => string} title
   * @param {() => string} xLabel
   * @param {(v: number) => string} [format] of values
   */
  constructor(title, xLabel, format = short) {
    this.title = title;
    this.xLabel = xLabel;
    this.format = format;
    /** @type {{color: number, name: string, shown: Point[], raw: Point[]}[]} */
    this.curves = [];
    this.clip = `plot-${count++}`;
    this.at = -1;
    this.head = h("h3");
    this.picture = svg("svg", { height: HEIGHT, role: "img", tabindex: "0" });
    this.note = h("div.readout.hidden");
    this.empty = h("p.soft.nothing", { t: "train.no_curve" });
    this.frame = h("div.frame", {}, this.picture, this.note, this.empty);
    this.element = h("section.chart", {}, this.head, this.frame);
    this.picture.addEventListener("pointermove", (e) => this.hover(/** @type {PointerEvent} */ (e).offsetX));
    this.picture.addEventListener("pointerdown", (e) => this.hover(/** @type {PointerEvent} */ (e).offsetX));
    this.picture.addEventListener("pointerleave", () => this.leave());
    this.picture.addEventListener("blur", () => this.leave());
    this.picture.addEventListener("keydown", (e) => this.key(/** @type {KeyboardEvent} */ (e)));
    this.width = 0;
    new ResizeObserver(() => {
      const width = this.frame.clientWidth;
      if (width === this.width) return;
      this.width = width;
      this.draw();
    }).observe(this.frame);
  }

  /** @param {Curve[]} curves */
  show(curves) {
    this.curves = curves
      .filter((c) => c.points.length)
      .map(({ points, smooth, color, name }) => ({
        color,
        name,
        raw: smooth ? thinned(points) : [],
        shown: thinned(smooth ? smoothed(points) : points),
      }));
    this.draw();
  }

  limits() {
    const all = this.curves.flatMap((c) => c.shown);
    const xs = all.map((p) => p.x);
    let [left, right] = [Math.min(...xs, Infinity), Math.max(...xs, -Infinity)];
    if (left > 0 && left < 0.2 * right) left = 0;
    const low = all.map((p) => p.y - (p.spread ?? 0));
    const high = all.map((p) => p.y + (p.spread ?? 0));
    for (const { raw } of this.curves) {
      const sorted = raw.map((p) => p.y).sort((a, b) => a - b);
      if (sorted.length > 5) {
        low.push(sorted[Math.floor(0.02 * sorted.length)]);
        high.push(sorted[Math.floor(0.97 * (sorted.length - 1))]);
      }
    }
    let [bottom, top] = [Math.min(...low), Math.max(...high)];
    const room = 0.06 * (top - bottom) || Math.abs(top) * 0.1 || 1;
    bottom = bottom >= 0 && bottom < 0.3 * top ? 0 : bottom - room;
    return { left, right: right > left ? right : left + 1, bottom, top: top + room };
  }

  draw() {
    this.head.textContent = this.title();
    const some = this.curves.length > 0;
    this.empty.classList.toggle("hidden", some);
    this.picture.toggleAttribute("hidden", !some);
    this.picture.replaceChildren();
    this.leave();
    if (!some || this.width < 60) return;
    this.picture.setAttribute("width", String(this.width));
    const lines = this.curves.map((c) => `${c.name}: ${this.format(c.shown[c.shown.length - 1].y)}`);
    this.picture.setAttribute("aria-label", `${this.title()}. ${lines.join("; ")}`);
    const limits = this.limits();
    const w = this.width - EDGE.left - EDGE.right;
    const tall = HEIGHT - EDGE.top - EDGE.bottom;
    /** @param {number} x */
    const px = (x) => EDGE.left + ((x - limits.left) / (limits.right - limits.left)) * w;
    /** @param {number} y */
    const py = (y) => EDGE.top + (1 - (y - limits.bottom) / (limits.top - limits.bottom)) * tall;
    this.px = px;
    this.py = py;
    const whole = this.curves.every((c) => c.shown.every((p) => Number.isInteger(p.x)));
    const grid = svg("g", { class: "scale" });
    for (const y of ticks(limits.bottom, limits.top, 4))
      grid.append(
        svg("line", { x1: EDGE.left, x2: EDGE.left + w, y1: py(y), y2: py(y) }),
        svg("text", { x: EDGE.left - 8, y: py(y) + 4, "text-anchor": "end" }, this.format(y)),
      );
    for (const x of ticks(limits.left, limits.right, Math.min(6, w / 70)).filter((x) => !whole || Number.isInteger(x)))
      grid.append(svg("text", { x: px(x), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle" }, short(x)));
    grid.append(svg("text", { x: EDGE.left + w / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "axis" }, this.xLabel()));
    const clip = svg("clipPath", { id: this.clip }, svg("rect", { x: EDGE.left - 5, y: EDGE.top, width: w + 10, height: tall }));
    const plot = svg("g", { "clip-path": `url(#${this.clip})` });
    for (const { color, shown, raw } of this.curves) {
      /** @param {Point[]} points */
      const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${px(p.x).toFixed(1)} ${py(p.y).toFixed(1)}`).join("");
      const group = svg("g", { class: `s${color}` });
      if (raw.length > 5) group.append(svg("path", { class: "raw", d: path(raw) }));
      if (shown.some((p) => p.spread)) {
        const up = shown.map((p) => ({ x: p.x, y: p.y + (p.spread ?? 0) }));
        const down = shown.map((p) => ({ x: p.x, y: p.y - (p.spread ?? 0) })).reverse();
        group.append(svg("path", { class: "band", d: `${path(up)}${path(down).replace("M", "L")}Z` }));
      }
      group.append(svg("path", { class: "curve", d: path(shown) }));
      if (!raw.length || shown.length === 1)
        for (const p of shown) group.append(svg("circle", { class: "mark", cx: px(p.x), cy: py(p.y), r: 3.5 }));
      plot.append(group);
    }
    this.cursor = svg("g", { class: "cursor" });
    this.picture.append(grid, clip, plot, this.cursor);
  }

  /** @param {number} place in pixels */
  hover(place) {
    if (!this.px || !this.cursor || !this.curves.length) return;
    const { px } = this;
    const py = this.py ?? px;
    const near = this.curves.map((c) => c.shown.reduce((a, b) => (Math.abs(px(b.x) - place) < Math.abs(px(a.x) - place) ? b : a)));
    const best = near.reduce((a, b) => (Math.abs(px(b.x) - place) < Math.abs(px(a.x) - place) ? b : a));
    this.at = px(best.x);
    this.cursor.replaceChildren(svg("line", { x1: this.at, x2: this.at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    const rows = this.curves.map((c, i) => {
      const p = near[i];
      this.cursor?.append(svg("g", { class: `s${c.color}` }, svg("circle", { class: "spot", cx: px(p.x), cy: py(p.y), r: 5 })));
      const spread = p.spread ? ` ± ${this.format(p.spread)}` : "";
      return h(`div.s${c.color}`, {}, h("i.swatch"), h("span", {}, c.name), h("b", {}, this.format(p.y) + spread));
    });
    this.note.replaceChildren(h("div.soft", {}, `${this.xLabel()} ${short(best.x)}`), ...rows);
    this.note.classList.remove("hidden");
    const right = this.at > this.width / 2;
    const beside = this.width > 420 ? 12 + (right ? this.width - this.at : this.at) : 0;
    const narrow = this.width <= 420;
    // beside the cursor; where that is too narrow, at the other edge
    this.note.style.left = right === narrow ? `${beside}px` : "auto";
    this.note.style.right = right === narrow ? "auto" : `${beside}px`;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.px) return;
    event.preventDefault();
    const places = [...new Set(this.curves.flatMap((c) => c.shown.map((p) => this.px?.(p.x) ?? 0)))].sort((a, b) => a - b);
    const now = this.at < 0 ? (step > 0 ? -1 : places.length) : places.findIndex((p) => p >= this.at - 0.01);
    this.hover(places[Math.max(0, Math.min(places.length - 1, now + step))]);
  }

  leave() {
    this.at = -1;
    this.note.classList.add("hidden");
    this.cursor?.replaceChildren();
  }
}
