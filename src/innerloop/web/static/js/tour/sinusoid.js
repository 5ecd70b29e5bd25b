// @ts-check
/** MAML fits the points that one places, beside a network from scratch. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { Placed } from "./placed.js";
import { button, caption, legend, number, seed, spoken } from "./plot.js";

const MOST = 10;
const STEPS = 10;
const FIRST = { draw: 8, steps: 5 }; // what is shown at the start
const FRAME = 260; // milliseconds of a step

/** @typedef {{curves: number[][], errors: number[]}} Fitted */
/** @typedef {import("./plot.js").Point} Point */

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {Point[]} */
  let truth = [];
  /** @type {{x: number[], maml: Fitted, scratch: Fitted}|null} */
  let answer = null;
  let running = 0;
  const words = caption();

  const placed = new Placed(
    { x: [-5, 5], y: [-6, 6], ticks: [[-4, -2, 0, 2, 4], [-4, -2, 0, 2, 4]], most: MOST, label: "tour.sinusoid.picture" },
    () => {
      truth = [];
      ask().catch(complain);
    },
    words.say,
  );
  const { plot } = placed;

  const slider = /** @type {HTMLInputElement} */ (
    h("input", { type: "range", min: 0, max: STEPS, value: FIRST.steps, id: "sinusoid-steps", oninput: () => (stop(), show()) })
  );
  const shown = h("output", { for: "sinusoid-steps" });
  const play = h("button", { type: "button", onclick: () => (running ? stop() : run()) });
  const scores = Object.fromEntries(["maml", "scratch"].map((name) => [name, { bar: h(`i.${name}`), value: h("b", {}) }]));

  const ask = latest(async (/** @type {number} */ draw = -1) => {
    const found = await post("tour/sinusoid", draw < 0 ? { points: placed.sent } : { points: [], draw });
    answer = found;
    if (draw >= 0) {
      truth = found.truth;
      placed.show(found.points);
    }
    show();
  });

  function show() {
    if (!answer) return;
    const { x } = answer;
    const steps = placed.points.length ? slider.valueAsNumber : 0;
    const at = (/** @type {Fitted} */ { curves }) => curves[Math.min(steps, curves.length - 1)];
    plot.line("truth", truth.map((point) => point.x), truth.map((point) => point.y));
    plot.line("before", x, answer.maml.curves[0]);
    plot.line("scratch", x, at(answer.scratch));
    plot.line("maml", x, at(answer.maml));
    plot.points(placed.points);
    const label = t("tour.sinusoid.steps", { steps: slider.value });
    shown.textContent = label;
    slider.setAttribute("aria-valuetext", label);
    const { maml, scratch } = answer;
    const largest = Math.max(0.01, ...maml.errors, ...scratch.errors);
    for (const [name, { errors }] of Object.entries({ maml, scratch })) {
      const error = errors[steps];
      scores[name].value.textContent = error === undefined ? "–" : number(error);
      scores[name].bar.style.transform = `scaleX(${error === undefined ? 0 : Math.sqrt(Math.min(1, error / largest))})`;
    }
    if (!maml.errors.length) return words.say(t("tour.sinusoid.empty"));
    const values = { steps, points: placed.points.length, maml: number(maml.errors[steps]), scratch: number(scratch.errors[steps]), before: number(maml.errors[0]) };
    words.say(t(steps ? "tour.sinusoid.seen" : "tour.sinusoid.start", values));
  }

  function stop() {
    clearInterval(running);
    running = 0;
    name();
  }

  function run() {
    slider.valueAsNumber = 0;
    show();
    running = window.setInterval(() => {
      slider.valueAsNumber += 1;
      show();
      if (slider.valueAsNumber >= STEPS) stop();
    }, FRAME);
    name();
  }

  function name() {
    play.textContent = t(running ? "tour.stop" : "tour.sinusoid.play");
  }

  /** @param {number} draw */
  const renew = (draw) => {
    stop();
    return ask(draw);
  };

  element.append(
    h(
      "div.tools",
      {},
      button("tour.sinusoid.new", () => renew(seed()).catch(complain)),
      ...placed.tools,
      button("tour.reset", () => {
        slider.valueAsNumber = FIRST.steps;
        renew(FIRST.draw).catch(complain);
      }),
    ),
    plot.element,
    legend(["maml", "tour.sinusoid.maml"], ["scratch", "tour.sinusoid.scratch"], ["before", "tour.sinusoid.before"], ["truth", "tour.sinusoid.truth"]),
    h("div.steps", {}, play, h("label", { for: "sinusoid-steps" }, shown), slider),
    h(
      "div.shares.scores",
      { role: "group", "data-t-label": "tour.sinusoid.error" },
      h("span.soft", { t: "tour.sinusoid.error" }),
      ...Object.entries(scores).map(([key, { bar, value }]) =>
        h("div.share", {}, h("span", { t: `tour.sinusoid.${key}` }), h("span.track", {}, bar), value),
      ),
    ),
    words.element,
    h("p.hint.soft", { t: "tour.sinusoid.hint" }),
  );
  await ask(FIRST.draw);
  spoken(() => {
    name();
    show();
  });
}
