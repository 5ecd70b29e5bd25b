// @ts-check
/** A learned optimizer, Adam and gradient descent race from the point that one clicks. */

import { post } from "../api.js";
import { h, latest, svg } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { color, css, mixed, still, surface } from "./heat.js";
import { button, caption, choice, number, seed, spoken } from "./plot.js";

const STEPS = 40;
const FIRST = { seed: 1, start: [-1.5, 1.4] };
// step sizes with the lowest last loss, averaged over 200 functions and starting points
const RATES = { quadratic: { adam: 0.5, sgd: 0.05 }, rosenbrock: { adam: 0.3, sgd: 0.003 } };
const COLORS = { learned: "accent", adam: "c1", sgd: "c0" };
const DASHES = { learned: [], adam: [7, 4], sgd: [2, 4] };
const FRAME = 45; // milliseconds of a step
const BANDS = 14;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @typedef {keyof typeof COLORS} Name */
/** @typedef {{reach: number, cells: number, heights: number[], paths: {name: Name, points: number[][], values: number[]}[], wins: Record<Name, number>}} Race */

/** A small or large number. @param {number} value */
const loss = (value) => (value >= 1e5 ? "∞" : value >= 0.01 ? number(value) : value < 1e-4 ? "< 0.0001" : number(value, 4));

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {"quadratic"|"rosenbrock"} */
  let kind = "quadratic";
  let landscape = FIRST.seed;
  let start = [...FIRST.start];
  /** @type {Race|null} */
  let race = null;
  let step = STEPS;
  let timer = 0;
  let held = false;
  const words = caption();
  const rates = { ...RATES.quadratic };

  const map = surface(0.8, paint, {
    tabindex: 0,
    role: "application",
    onpointerdown(/** @type {PointerEvent} */ event) {
      if (event.button !== 0) return;
      held = true;
      map.canvas.setPointerCapture(event.pointerId);
      move(at(event));
    },
    onpointermove: (/** @type {PointerEvent} */ event) => held && move(at(event)),
    onpointerup: lift,
    onpointercancel: lift,
    onkeydown(/** @type {KeyboardEvent} */ event) {
      const way = KEYS[/** @type {keyof KEYS} */ (event.key)];
      if (!way) return;
      event.preventDefault();
      move(start.map((v, i) => v + way[i] * (event.shiftKey ? 0.4 : 0.1)));
    },
  });

  function lift() {
    if (!held) return;
    held = false;
    animate();
  }

  /** @param {PointerEvent} event */
  function at(event) {
    const box = map.canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const reach = race?.reach ?? 2;
    return [(2 * x - 1) * reach, (1 - 2 * y) * reach];
  }

  /** @param {number[]} place */
  function move(place) {
    start = place.map((v) => Math.round(1000 * Math.min(2, Math.max(-2, v))) / 1000);
    ask().catch(complain);
  }

  const ask = latest(async () => {
    race = await post("tour/optimizer", { function: kind, seed: landscape, start, rates });
    if (held) show(STEPS);
    else animate();
  });

  function animate() {
    clearInterval(timer);
    if (still()) return show(STEPS);
    show(0);
    timer = window.setInterval(() => (step < STEPS ? show(step + 1) : clearInterval(timer)), FRAME);
  }

  /** @param {CanvasRenderingContext2D} ink @param {number} width @param {number} height */
  function paint(ink, width, height) {
    if (!race) return;
    const { reach, cells, heights, paths } = race;
    const place = (/** @type {number[]} */ [x, y]) => [((x / reach + 1) / 2) * width, ((1 - y / reach) / 2) * height];
    const low = color("card");
    const high = mixed(low, color("soft"), 0.75);
    const [least, most] = [Math.log10(1e-3), Math.log10(Math.max(...heights))];
    const image = new ImageData(cells * 4, cells * 4);
    for (let i = 0; i < cells * 4; i++)
      for (let j = 0; j < cells * 4; j++) {
        const share = (Math.log10(Math.max(1e-3, smooth(heights, cells, i / 4, j / 4))) - least) / (most - least);
        const shade = mixed(low, high, Math.ceil(share * BANDS) / BANDS);
        image.data.set([...shade, 255], 4 * (i * cells * 4 + j));
      }
    const small = new OffscreenCanvas(cells * 4, cells * 4);
    small.getContext("2d")?.putImageData(image, 0, 0);
    ink.drawImage(small, 0, 0, width, height);
    const [mx, my] = place([0, 0]);
    ink.lineWidth = 2.5;
    ink.strokeStyle = css(color("ink"));
    ink.beginPath();
    for (const [dx, dy] of [[7, 7], [7, -7]]) (ink.moveTo(mx - dx, my - dy), ink.lineTo(mx + dx, my + dy));
    ink.stroke();
    ink.lineJoin = "round";
    for (const { name, points } of [...paths].reverse()) {
      const shown = points.slice(0, step + 1).map(place);
      for (const [wide, shade] of /** @type {[number, string][]} */ ([[6, css(low)], [3, css(color(COLORS[name]))]])) {
        ink.lineWidth = wide;
        ink.strokeStyle = shade;
        ink.setLineDash(wide === 3 ? DASHES[name] : []);
        ink.beginPath();
        shown.forEach(([x, y], i) => (i ? ink.lineTo(x, y) : ink.moveTo(x, y)));
        ink.stroke();
      }
      ink.setLineDash([]);
      const [x, y] = shown[shown.length - 1];
      dot(ink, x, y, 6, css(color(COLORS[name])), css(low));
    }
    const [x, y] = place(start);
    dot(ink, x, y, 9, css(color("ink")), css(low));
  }

  const sizes = Object.fromEntries(
    ["adam", "sgd"].map((name) => {
      const id = `rate-${name}`;
      const input = /** @type {HTMLInputElement} */ (
        h("input", {
          type: "range", min: -4, max: 1, step: 0.05, id,
          oninput() {
            rates[/** @type {"adam"|"sgd"} */ (name)] = Number((10 ** input.valueAsNumber).toPrecision(2));
            ask().catch(complain);
          },
        })
      );
      return [name, { input, output: h("output", { for: id }) }];
    }),
  );
  const rows = Object.fromEntries(["learned", "adam", "sgd"].map((name) => [name, { last: h("td"), won: h("td") }]));
  const curves = Object.fromEntries(["learned", "adam", "sgd"].map((name) => [name, svg("polyline", { class: name })]));
  const chart = svg("svg", { viewBox: "-3 -3 306 86", class: "chart", role: "img", preserveAspectRatio: "none" }, ...Object.values(curves));

  /** @param {number} now */
  function show(now) {
    step = now;
    map.redraw();
    if (!race) return;
    const logs = race.paths.map(({ values }) => values.map((v) => Math.log10(Math.min(1e3, Math.max(1e-5, v)))));
    const [low, high] = [Math.min(...logs.flat()), Math.max(...logs.flat())];
    const best = race.paths.reduce((a, b) => (b.values[step] < a.values[step] ? b : a)).name;
    const most = Math.max(...Object.values(race.wins));
    race.paths.forEach(({ name, values }, i) => {
      const points = logs[i].slice(0, step + 1).map((v, j) => `${(300 * j) / STEPS},${80 - (80 * (v - low)) / (high - low || 1)}`);
      curves[name].setAttribute("points", points.join(" "));
      rows[name].last.textContent = loss(values[step]);
      rows[name].won.textContent = String(race?.wins[name]);
      rows[name].last.classList.toggle("best", name === best && step > 0);
      rows[name].won.classList.toggle("best", race?.wins[name] === most);
    });
    for (const [name, { input, output }] of Object.entries(sizes)) {
      const rate = rates[/** @type {"adam"|"sgd"} */ (name)];
      input.value = String(Math.log10(rate));
      output.textContent = String(rate);
      input.setAttribute("aria-valuetext", String(rate));
    }
    if (step < STEPS) return;
    const values = { steps: STEPS, best: t(`tour.optimizer.${best}`), loss: loss(Math.min(...race.paths.map((p) => p.values[STEPS]))), wins: race.wins.learned };
    words.say(t(`tour.optimizer.${best === "learned" ? "won" : "lost"}`, values) + " " + t(`tour.optimizer.of_${kind}`, values));
    map.canvas.setAttribute("aria-label", t("tour.optimizer.picture", { x: number(start[0], 1), y: number(start[1], 1) }));
    chart.setAttribute("aria-label", t("tour.optimizer.chart"));
  }

  function renew() {
    Object.assign(rates, RATES[kind]);
    ask().catch(complain);
  }

  const kinds = choice("tour.optimizer.landscape", [["quadratic", "tour.optimizer.quadratic"], ["rosenbrock", "tour.optimizer.rosenbrock"]], (chosen) => {
    kind = /** @type {"quadratic"|"rosenbrock"} */ (chosen);
    renew();
  });
  element.append(
    h(
      "div.tools",
      {},
      kinds,
      button("tour.optimizer.new", () => {
        kind = "quadratic";
        /** @type {HTMLInputElement} */ (kinds.querySelector("input")).checked = true;
        landscape = seed();
        renew();
      }),
      button("tour.reset", () => {
        [landscape, start] = [FIRST.seed, [...FIRST.start]];
        renew();
      }),
    ),
    map.canvas,
    h(
      "div.race",
      {},
      h(
        "table.results",
        {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col", t: "tour.optimizer.optimizer" }), h("th", { scope: "col", t: "tour.optimizer.loss" }), h("th", { scope: "col", t: "tour.optimizer.wins" }))),
        h("tbody", {}, ...Object.entries(rows).map(([name, { last, won }]) => h("tr", {}, h("th", { scope: "row" }, h(`i.key.${name}`), h("span", { t: `tour.optimizer.${name}` })), last, won))),
      ),
      h("figure", {}, chart, h("figcaption", { t: "tour.optimizer.chart" })),
    ),
    words.element,
    h("div.rates", {}, ...Object.entries(sizes).map(([name, { input, output }]) => h("label", { for: `rate-${name}` }, h("span", { t: `tour.optimizer.rate_${name}` }), output, input))),
    h("p.hint.soft", { t: "tour.optimizer.hint" }),
  );
  await ask();
  spoken(() => show(step));
}

/**
 * The height between cells.
 * @param {number[]} heights @param {number} cells @param {number} row @param {number} column
 */
function smooth(heights, cells, row, column) {
  const [i, j] = [row, column].map((v) => Math.min(cells - 2, Math.floor(v)));
  const [a, b] = [Math.min(1, row - i), Math.min(1, column - j)];
  const k = i * cells + j;
  return (1 - a) * ((1 - b) * heights[k] + b * heights[k + 1]) + a * ((1 - b) * heights[k + cells] + b * heights[k + cells + 1]);
}

/** @param {CanvasRenderingContext2D} ink @param {number} x @param {number} y @param {number} radius @param {string} fill @param {string} ring */
function dot(ink, x, y, radius, fill, ring) {
  ink.beginPath();
  ink.arc(x, y, radius, 0, 7);
  ink.fillStyle = fill;
  ink.fill();
  ink.lineWidth = 2;
  ink.strokeStyle = ring;
  ink.stroke();
}
