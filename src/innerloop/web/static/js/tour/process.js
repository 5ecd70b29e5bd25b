// @ts-check
/** A neural process and the exact posterior, on the points that one places. */

import { post } from "../api.js";
import { h, latest, svg } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { Plot, button, caption, legend, number, seed, spoken } from "./plot.js";

const MOST = 20;
const FIRST = 3; // the curve at the start

/** @typedef {import("./plot.js").Point} Point */
/** @typedef {{mean: number[], deviation: number[]}} Band */

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {Point[]} */
  let points = [];
  /** @type {{x: number[], learned: Band|null, exact: Band, gap: number|null}|null} */
  let answer = null;
  const words = caption();

  const plot = new Plot(
    [-2, 2],
    [-3, 3],
    {
      move(index, x, y) {
        points[index] = { x, y };
        change();
      },
      add,
      remove(index) {
        points.splice(index, 1);
        change();
      },
      name: (index) => t("tour.at", { what: t("tour.numbered", { number: index + 1 }), x: number(points[index].x, 1), y: number(points[index].y, 1) }),
      mark: () => [svg("circle", { class: "shape ink", r: 7 })],
    },
    { ticks: [[-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]], label: "tour.process.picture" },
  );

  /** @param {number} x @param {number} y */
  function add(x, y) {
    if (points.length >= MOST) return words.say(t("tour.full", { most: MOST }));
    points.push({ x, y });
    change();
    plot.focus(points.length - 1);
  }

  function change() {
    plot.points(points);
    ask().catch(complain);
  }

  const ask = latest(async (/** @type {number} */ draw = -1) => {
    const sent = points.map(({ x, y }) => ({ x, y }));
    const found = await post("tour/process", draw < 0 ? { points: sent } : { points: [], draw });
    answer = found;
    if (draw >= 0) points = found.points;
    show();
  });

  /** @param {string} name @param {number[]} x @param {Band|null} band */
  function draw(name, x, band) {
    const { mean, deviation } = band ?? { mean: [], deviation: [] };
    const xs = band ? x : [];
    plot.band(`${name} band`, xs, mean.map((m, i) => m - 2 * deviation[i]), mean.map((m, i) => m + 2 * deviation[i]));
    plot.line(name, xs, mean);
  }

  function show() {
    if (!answer) return;
    draw("exact", answer.x, answer.exact);
    draw("learned", answer.x, answer.learned);
    plot.points(points);
    const { gap, exact, learned } = answer;
    if (gap === null || !learned) return words.say(t("tour.process.empty"));
    const widest = Math.max(...exact.deviation);
    const x = answer.x[exact.deviation.indexOf(widest)];
    words.say(t("tour.process.seen", { points: points.length, gap: number(gap), x: number(x, 1), deviation: number(widest) }));
  }

  element.append(
    h(
      "div.tools",
      {},
      button("tour.process.new", () => ask(seed()).catch(complain)),
      button("tour.add", () => add(...free(points))),
      button("tour.remove", () => plot.active >= 0 && plot.handlers.remove?.(plot.active)),
      button("tour.clear", () => {
        points = [];
        change();
      }),
      button("tour.reset", () => ask(FIRST).catch(complain)),
    ),
    plot.element,
    legend(["learned", "tour.process.learned"], ["exact", "tour.process.exact"]),
    words.element,
    h("p.hint.soft", { t: "tour.process.hint" }),
  );
  await ask(FIRST);
  spoken(show);
}

/** A place for a point that is added by a key. @param {Point[]} points @returns {[number, number]} */
function free(points) {
  const tries = Array.from({ length: 20 }, (_, i) => (((i * 7) % 20) - 9.5) / 5);
  return [tries.find((x) => points.every((point) => Math.abs(point.x - x) > 0.15)) ?? 0, 0];
}
