// @ts-check
/** A plot on which one places points of a curve. */

import { svg } from "../dom.js";
import { t } from "../text.js";
import { Plot, button, number } from "./plot.js";

const GAP = 0.04; // between points that are added by a key, of the width

export class Placed {
  /**
   * @param {{x: [number, number], y: [number, number], ticks: [number[], number[]], most: number, label: string}} options
   * @param {() => void} changed after a point was placed, moved or removed
   * @param {(text: string) => void} say
   */
  constructor({ x, y, ticks, most, label }, changed, say) {
    /** @type {import("./plot.js").Point[]} */
    this.points = [];
    this.most = most;
    this.changed = changed;
    this.say = say;
    this.plot = new Plot(
      x,
      y,
      {
        move: (index, x, y) => {
          this.points[index] = { x, y };
          this.#change();
        },
        add: (x, y) => this.add(x, y),
        remove: (index) => this.remove(index),
        name: (index) => {
          const { x, y } = this.points[index];
          return t("tour.at", { what: t("tour.numbered", { number: index + 1 }), x: number(x, 1), y: number(y, 1) });
        },
        mark: () => [svg("circle", { class: "shape ink", r: 7 })],
      },
      { ticks, label },
    );
  }

  /** Buttons that add and remove a point. */
  get tools() {
    return [button("tour.add", () => this.add(this.#free(), 0)), button("tour.remove", () => this.remove(this.plot.active))];
  }

  /** What is sent. */
  get sent() {
    return this.points.map(({ x, y }) => ({ x, y }));
  }

  /** @param {import("./plot.js").Point[]} points */
  show(points) {
    this.points = points;
    this.plot.points(points);
  }

  /** @param {number} x @param {number} y */
  add(x, y) {
    if (this.points.length >= this.most) return this.say(t("tour.full", { most: this.most }));
    this.points.push({ x, y });
    this.#change();
    this.plot.focus(this.points.length - 1);
  }

  /** @param {number} index */
  remove(index) {
    if (index < 0) return;
    this.points.splice(index, 1);
    this.#change();
  }

  #change() {
    this.plot.points(this.points);
    this.changed();
  }

  /** An x where no point is near, from the middle outwards. */
  #free() {
    const [low, high] = this.plot.x;
    const tries = Array.from({ length: 23 }, (_, i) => (low + high) / 2 + (i % 2 ? -1 : 1) * Math.ceil(i / 2) * GAP * (high - low));
    const far = (/** @type {number} */ x) => this.points.every((point) => Math.abs(point.x - x) > 0.9 * GAP * (high - low));
    return tries.find(far) ?? (low + high) / 2;
  }
}
