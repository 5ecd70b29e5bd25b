// @ts-check
/** A neural Turing machine copies what one writes; its memory and attention over time. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { cells, color, mixed, still, surface } from "./heat.js";
import { button, caption, spoken } from "./plot.js";

const BITS = 5;
const TRAINED = 6; // vectors, at most
const MOST = 10;
const FIRST = ["10110", "01001", "11010", "00111", "10001", "01110"];
const FRAME = 220; // milliseconds of a step
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @typedef {{answer: number[][], correct: number, of: number, memory: number[][][], write: number[][], read: number[][]}} Copied */

/** @param {number[][]} matrix */
const turned = (matrix) => matrix[0].map((_, i) => matrix.map((row) => row[i]));

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {number[][]} */
  let bits = FIRST.map((row) => [...row].map(Number));
  /** @type {Copied|null} */
  let found = null;
  let running = 0;
  const words = caption();
  const written = h("div.bits", { role: "group", "data-t-label": "tour.memory.write" });
  const answer = h("div.bits", { role: "img" });
  const time = /** @type {HTMLInputElement} */ (h("input", { type: "range", min: 1, max: 13, value: 7, id: "memory-step", oninput: () => (stop(), show()) }));
  const shown = h("output", { for: "memory-step" });
  const play = h("button", { type: "button", onclick: () => (running ? stop() : run()) });

  /** @param {"write"|"read"} which */
  const weights = (which) =>
    surface(1, (ink, width, height) => {
      if (!found) return;
      const [low, high] = [color("ground"), color(which === "write" ? "c1" : "c0")];
      cells(ink, width, height, turned(found[which]), (value) => mixed(low, high, value));
      const step = width / found[which].length;
      ink.strokeStyle = getComputedStyle(element).color;
      ink.lineWidth = 2;
      ink.strokeRect((time.valueAsNumber - 1) * step, 1, step - 1, height - 2);
    });
  const writes = weights("write");
  const reads = weights("read");
  const memory = surface(1, (ink, width, height) => {
    if (!found) return;
    const [low, middle, high] = [color("c1"), color("ground"), color("accent")];
    cells(ink, width, height, found.memory[time.valueAsNumber - 1], (v) => mixed(middle, v < 0 ? low : high, Math.abs(v)));
  });

  const ask = latest(async () => {
    const sent = bits;
    const copied = await post("tour/memory", { bits: sent });
    if (sent.length !== bits.length) return;
    found = copied;
    time.max = String(copied.memory.length);
    show();
  });

  function show() {
    if (!found) return;
    const { answer: values, correct, of } = found;
    const step = time.valueAsNumber;
    const n = values.length;
    answer.style.setProperty("--columns", String(n));
    answer.replaceChildren(
      ...turned(values).flatMap((row, i) =>
        row.map((value, j) => {
          const cell = h("span.bit", {}, h("i"));
          cell.classList.toggle("wrong", value > 0.5 !== bits[j]?.[i] > 0.5);
          cell.classList.toggle("soon", j + n + 2 > step);
          cell.classList.toggle("now", j + n + 2 === step);
          /** @type {HTMLElement} */ (cell.firstChild).style.opacity = String(value);
          return cell;
        }),
      ),
    );
    for (const bit of written.children) bit.classList.toggle("now", Number(bit.getAttribute("data-x")) === step - 1);
    const part = step <= n ? "reads" : step === n + 1 ? "sign" : "answers";
    shown.textContent = t(`tour.memory.${part}`, { step, steps: 2 * n + 1, number: step <= n ? step : step - n - 1 });
    time.setAttribute("aria-valuetext", shown.textContent ?? "");
    for (const each of [writes, reads, memory]) each.redraw();
    const blank = bits.some((vector) => !vector.includes(1));
    const key = correct === of ? "right" : blank ? "blank" : n > TRAINED ? "longer" : "some";
    words.say(t(`tour.memory.${key}`, { correct, of, vectors: n, trained: TRAINED }));
    answer.setAttribute("aria-label", t("tour.memory.answered", { correct, of }));
    writes.canvas.setAttribute("aria-label", t("tour.memory.where", { what: t("tour.memory.writes"), slots: places(found.write) }));
    reads.canvas.setAttribute("aria-label", t("tour.memory.where", { what: t("tour.memory.read"), slots: places(found.read) }));
    memory.canvas.setAttribute("aria-label", t("tour.memory.contents", { step }));
  }

  function name() {
    play.textContent = t(running ? "tour.stop" : "tour.memory.play");
  }

  function stop() {
    clearInterval(running);
    running = 0;
    name();
  }

  function run() {
    time.valueAsNumber = 1;
    running = window.setInterval(() => {
      if (time.valueAsNumber >= Number(time.max)) return stop();
      time.valueAsNumber += 1;
      show();
    }, still() ? 3 * FRAME : FRAME);
    name();
    show();
  }

  /** @param {boolean} [whole] */
  function change(whole) {
    stop();
    if (whole) build();
    ask().catch(complain);
  }

  /** @param {number} x @param {number} y */
  const at = (x, y) => /** @type {HTMLElement|undefined} */ (written.children[y * bits.length + x]);

  /** @param {number} x @param {number} y */
  function bit(x, y) {
    const toggle = h("button.bit", {
      type: "button",
      "data-x": x,
      tabindex: x || y ? -1 : 0,
      "aria-pressed": String(bits[x][y] === 1),
      "aria-label": t("tour.memory.bit", { vector: x + 1, bit: y + 1 }),
      onclick() {
        bits = bits.map((vector) => [...vector]);
        bits[x][y] = 1 - bits[x][y];
        toggle.setAttribute("aria-pressed", String(bits[x][y] === 1));
        for (const each of written.children) each.setAttribute("tabindex", each === toggle ? "0" : "-1");
        change();
      },
      onkeydown(/** @type {KeyboardEvent} */ event) {
        const way = /** @type {Record<string, number[]>} */ (ARROWS)[event.key];
        const next = way && x + way[0] >= 0 && x + way[0] < bits.length && y + way[1] >= 0 ? at(x + way[0], y + way[1]) : null;
        if (!way) return;
        event.preventDefault();
        next?.focus();
      },
    }, h("i"));
    return toggle;
  }

  function build() {
    written.style.setProperty("--columns", String(bits.length));
    written.replaceChildren(...Array.from({ length: BITS }, (_, y) => bits.map((_, x) => bit(x, y))).flat());
  }

  const random = () => Array.from({ length: BITS }, () => Math.round(Math.random()));
  element.append(
    h(
      "div.tools",
      {},
      button("tour.memory.random", () => ((bits = bits.map(random)), change(true))),
      button("tour.memory.more", () => bits.length < MOST && ((bits = [...bits, random()]), (time.value = String(bits.length + 1)), change(true))),
      button("tour.memory.fewer", () => bits.length > 1 && ((bits = bits.slice(0, -1)), change(true))),
      button("tour.reset", () => ((bits = FIRST.map((row) => [...row].map(Number))), (time.value = "7"), change(true))),
    ),
    h("div.pair", {}, h("figure", {}, h("figcaption", { t: "tour.memory.write" }), written), h("figure", {}, h("figcaption", { t: "tour.memory.answer" }), answer)),
    words.element,
    h("div.steps", {}, play, h("label", { for: "memory-step" }, shown), time),
    h(
      "div.triple",
      {},
      .../** @type {[string, {canvas: HTMLCanvasElement}][]} */ ([["writes", writes], ["read", reads], ["memory", memory]]).map(([key, { canvas }]) =>
        h("figure", {}, canvas, h("figcaption", { t: `tour.memory.${key}` })),
      ),
    ),
    h("p.hint.soft", { t: "tour.memory.hint" }),
  );
  build();
  await ask();
  spoken(() => {
    name();
    build();
    show();
  });
}

/** The slot with the largest weight at every step. @param {number[][]} weights */
const places = (weights) => weights.map((row) => row.indexOf(Math.max(...row)) + 1).join(", ");
