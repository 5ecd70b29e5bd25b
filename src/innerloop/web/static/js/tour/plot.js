// @ts-check
/** What the live pictures share: a plot with points that move, its words, its switches. */

import { h, set, svg } from "../dom.js";
import { language, t } from "../text.js";

const MARGIN = { left: 34, right: 10, top: 10, bottom: 24 };
const HIT = 22; // radius in which a point is touched
/** @type {Record<string, number[]>} */
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** A number for people. @param {number} value @param {number} [digits] */
export function number(value, digits = 2) {
  const locale = language === "zh" ? "zh-Hans" : "en";
  return value.toLocaleString(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/**
 * @typedef {{x: number, y: number, label?: number}} Point
 * @typedef {object} Handlers
 * @property {(index: number, x: number, y: number) => void} move
 * @property {(x: number, y: number) => void} [add]
 * @property {(index: number) => void} [remove]
 * @property {(index: number) => string} name what a screen reader says
 * @property {(index: number) => (Node|string)[]} mark what is drawn
 */

export class Plot {
  /**
   * @param {[number, number]} x from, to
   * @param {[number, number]} y
   * @param {Handlers} handlers
   * @param {{ticks?: [number[], number[]], ratio?: number, label: string}} options
   *   numbers at the axes, height by width, and the key of its name
   */
  constructor(x, y, handlers, { ticks, ratio = 0.6, label }) {
    this.x = x;
    this.y = y;
    this.handlers = handlers;
    this.ticks = ticks;
    this.ratio = ratio;
    this.margin = ticks ? MARGIN : { left: 0, right: 0, top: 0, bottom: 0 };
    this.width = this.height = 0;
    this.active = -1; // the point that was touched last
    /** @type {SVGElement[]} */
    this.dots = [];
    /** @type {Point[]} */
    this.shown = [];
    /** @type {Map<string, {path: SVGElement, shape: () => string}>} */
    this.shapes = new Map();
    this.layers = ["grid", "curves", "extra", "dots"].map((name) => svg("g", { class: name }));
    this.svg = svg("svg", { role: "group", "data-t-label": label, onclick: this.#click.bind(this) }, ...this.layers);
    this.element = h("div.plot", {}, this.svg);
    /** @type {() => void} */
    this.resized = () => {};
    new ResizeObserver(() => this.#resize()).observe(this.element);
  }

  /** @param {number} x */
  left(x) {
    const { left, right } = this.margin;
    return left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.width - left - right);
  }

  /** @param {number} y */
  top(y) {
    const { top, bottom } = this.margin;
    return top + ((this.y[1] - y) / (this.y[1] - this.y[0])) * (this.height - top - bottom);
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  at(event) {
    const box = this.svg.getBoundingClientRect();
    const { left, right, top, bottom } = this.margin;
    const across = (event.clientX - box.left - left) / (this.width - left - right);
    const down = (event.clientY - box.top - top) / (this.height - top - bottom);
    return this.inside(this.x[0] + across * (this.x[1] - this.x[0]), this.y[1] - down * (this.y[1] - this.y[0]));
  }

  /** @param {number} x @param {number} y @returns {[number, number]} */
  inside(x, y) {
    const clamp = (/** @type {number} */ v, /** @type {[number, number]} */ [low, high]) => Math.min(high, Math.max(low, v));
    return [clamp(x, this.x), clamp(y, this.y)];
  }

  /**
   * Draw a curve, or replace the one of that name.
   * @param {string} name also its class
   * @param {number[]} xs
   * @param {number[]} ys
   */
  line(name, xs, ys) {
    this.#shape(name, () => xs.map((x, i) => `${i ? "L" : "M"}${this.#place(x, ys[i])}`).join(""));
  }

  /** @param {string} name @param {number[]} xs @param {number[]} low @param {number[]} high */
  band(name, xs, low, high) {
    this.#shape(name, () => {
      const back = xs.map((x, i) => `L${this.#place(x, low[i])}`).reverse();
      return xs.map((x, i) => `${i ? "L" : "M"}${this.#place(x, high[i])}`).join("") + back.join("") + (xs.length ? "Z" : "");
    });
  }

  /** @param {number} x @param {number} y */
  #place(x, y) {
    const down = Math.min(9999, Math.max(-9999, this.top(y)));
    return `${this.left(x).toFixed(1)} ${down.toFixed(1)}`;
  }

  /** @param {string} name @param {() => string} shape */
  #shape(name, shape) {
    const path = this.shapes.get(name)?.path ?? svg("path", { class: name });
    if (!path.parentNode) this.layers[1].append(path);
    this.shapes.set(name, { path, shape });
    if (this.width) path.setAttribute("d", shape());
  }

  /** Show points that can be moved. @param {Point[]} points */
  points(points) {
    this.shown = points;
    while (this.dots.length > points.length) this.dots.pop()?.remove();
    while (this.dots.length < points.length) this.#dot(this.dots.length);
    if (this.active >= points.length) this.active = points.length - 1;
    this.dots.forEach((dot, index) => {
      const { x, y } = points[index];
      dot.setAttribute("transform", `translate(${this.left(x).toFixed(1)} ${this.top(y).toFixed(1)})`);
      set(dot, { "aria-label": this.handlers.name(index), "aria-roledescription": t("tour.point") });
    });
  }

  /** @param {number} index */
  focus(index) {
    /** @type {SVGElement|undefined} */ (this.dots[index])?.focus();
  }

  /** @param {number} index */
  #dot(index) {
    const { move, remove } = this.handlers;
    let held = false;
    const dot = svg(
      "g",
      {
        class: "dot",
        tabindex: 0,
        role: "button",
        onfocus: () => (this.active = index),
        onpointerdown: (/** @type {PointerEvent} */ event) => {
          held = true;
          this.active = index;
          dot.setPointerCapture(event.pointerId);
        },
        onpointermove: (/** @type {PointerEvent} */ event) => held && move(index, ...this.at(event)),
        onpointerup: () => (held = false),
        onpointercancel: () => (held = false),
        ondblclick: () => remove?.(index),
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          const way = KEYS[event.key];
          if (way) {
            const step = event.shiftKey ? 10 : 40;
            const { x, y } = this.shown[index];
            const across = (way[0] * (this.x[1] - this.x[0])) / step;
            move(index, ...this.inside(x + across, y + (way[1] * (this.y[1] - this.y[0])) / step));
          } else if (event.key === "Delete" || event.key === "Backspace") {
            remove?.(index);
            this.focus(Math.min(index, this.dots.length - 1));
          } else return;
          event.preventDefault();
        },
      },
      svg("circle", { class: "hit", r: HIT }),
      ...this.handlers.mark(index),
    );
    this.dots.push(dot);
    this.layers[3].append(dot);
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const target = /** @type {Element} */ (event.target);
    if (!target.closest(".dot")) this.handlers.add?.(...this.at(event));
  }

  #resize() {
    const width = this.element.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.height = Math.round(Math.max(250, Math.min(460, width * this.ratio)));
    set(this.svg, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.#grid();
    for (const { path, shape } of this.shapes.values()) path.setAttribute("d", shape());
    this.points(this.shown);
    this.resized();
  }

  #grid() {
    if (!this.ticks) return;
    const { left, right, top, bottom } = this.margin;
    const [low, end] = [this.height - bottom, this.width - right];
    const across = this.ticks[0].flatMap((x) => [
      svg("line", { x1: this.left(x), x2: this.left(x), y1: top, y2: low, class: x ? "" : "zero" }),
      svg("text", { x: this.left(x), y: this.height - 6, "text-anchor": "middle" }, String(x).replace("-", "−")),
    ]);
    const up = this.ticks[1].flatMap((y) => [
      svg("line", { x1: left, x2: end, y1: this.top(y), y2: this.top(y), class: y ? "" : "zero" }),
      svg("text", { x: left - 7, y: this.top(y) + 4, "text-anchor": "end" }, String(y).replace("-", "−")),
    ]);
    this.layers[0].replaceChildren(...across, ...up);
  }
}

/** A sentence about what is seen, for everyone; screen readers say it after a pause. */
export function caption() {
  const element = h("p.seen", { "aria-live": "polite" });
  let timer = 0;
  return {
    element,
    /** @param {string} text */
    say(text) {
      clearTimeout(timer);
      timer = window.setTimeout(() => (element.textContent = text), 120);
    },
  };
}

/** @param {string} key @param {() => void} act */
export const button = (key, act) => h("button.quiet", { t: key, onclick: act, type: "button" });

/**
 * A choice of one of few.
 * @param {string} label key of its name
 * @param {[string, string][]} values each with the key of its text
 * @param {(value: string) => void} chosen
 */
export function choice(label, values, chosen) {
  const group = `choice-${label}`;
  const options = values.map(([value, key], index) =>
    h(
      "label",
      {},
      h("input.visually-hidden", { type: "radio", name: group, value, checked: index === 0, onchange: () => chosen(value) }),
      h("span", { t: key }),
    ),
  );
  return h("div.segments", { role: "radiogroup", "data-t-label": label }, ...options);
}

/** What the colors mean. @param {...[string, string]} entries class and key of a text */
export function legend(...entries) {
  return h("div.legend", {}, ...entries.map(([kind, key]) => h("span", {}, h(`i.${kind}`), h("span", { t: key }))));
}

/** Call it now, and whenever the language changes. @param {() => void} act */
export function spoken(act) {
  document.addEventListener("language", act);
  act();
}

/** A seed for what is drawn anew. */
export const seed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
