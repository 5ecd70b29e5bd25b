// @ts-check
/** A neural process and the exact posterior, on the points that one places. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { Placed } from "./placed.js";
import { button, caption, legend, number, seed, spoken } from "./plot.js";

const MOST = 20;
const FIRST = 3; // the curve at the start

/** @typedef {{mean: number[], deviation: number[]}} Band */

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {{x: number[], learned: Band|null, exact: Band, gap: number|null}|null} */
  let answer = null;
  const words = caption();

  const placed = new Placed(
    { x: [-2, 2], y: [-3, 3], ticks: [[-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]], most: MOST, label: "tour.process.picture" },
    () => ask().catch(complain),
    words.say,
  );
  const { plot } = placed;

  const ask = latest(async (/** @type {number} */ draw = -1) => {
    const found = await post("tour/process", draw < 0 ? { points: placed.sent } : { points: [], draw });
    answer = found;
    if (draw >= 0) placed.show(found.points);
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
    plot.points(placed.points);
    const { gap, exact, learned } = answer;
    if (gap === null || !learned) return words.say(t("tour.process.empty"));
    const widest = Math.max(...exact.deviation);
    const x = answer.x[exact.deviation.indexOf(widest)];
    words.say(t("tour.process.seen", { points: placed.points.length, gap: number(gap), x: number(x, 1), deviation: number(widest) }));
  }

  element.append(
    h(
      "div.tools",
      {},
      button("tour.process.new", () => ask(seed()).catch(complain)),
      ...placed.tools,
      button("tour.clear", () => {
        placed.show([]);
        ask().catch(complain);
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
