// @ts-check
/** Variations of a character that one has just drawn. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { t, translate } from "../text.js";
import { color, css, mixed, surface } from "./heat.js";
import { button, caption, seed, spoken } from "./plot.js";

const VARIATIONS = 16;
const FIRST = 3; // seed
const [MOST_STROKES, MOST_POINTS] = [200, 2000];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** Characters to begin with. @type {number[][][][]} */
const SAMPLES = [
  [[[0.25, 0.2], [0.3, 0.5], [0.27, 0.82]], arc(0.3, 0.35, 0.28, 0.17, -1.5, 1.6), [[0.3, 0.53], [0.75, 0.82]]],
  [arc(0.5, 0.5, 0.28, 0.3, 0.5, 5.6), [[0.5, 0.5], [0.8, 0.55]]],
  [[[0.2, 0.25], [0.8, 0.22]], [[0.5, 0.24], [0.48, 0.8]], [[0.3, 0.55], [0.7, 0.53]]],
];

/** @param {number} x @param {number} y @param {number} a @param {number} b @param {number} from @param {number} to */
function arc(x, y, a, b, from, to) {
  return Array.from({ length: 24 }, (_, i) => {
    const angle = from + ((to - from) * i) / 23;
    return [x + a * Math.cos(angle), y + b * Math.sin(angle)];
  });
}

/** @param {string} text base64 */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/**
 * A square one draws in, with a pointer or the arrow keys and space.
 * @param {number} index @param {() => void} changed
 */
function pad(index, changed) {
  /** @type {number[][][]} */
  let strokes = [];
  let held = false;
  const pen = { x: 0.5, y: 0.5, down: false, shown: false };
  const { canvas, redraw } = surface(
    1,
    (ink, size) => {
      ink.strokeStyle = ink.fillStyle = css(color("ink"));
      ink.lineWidth = size * 0.045;
      ink.lineCap = ink.lineJoin = "round";
      for (const stroke of strokes) {
        ink.beginPath();
        for (const [x, y] of stroke.length > 1 ? stroke : [stroke[0], stroke[0]]) ink.lineTo(x * size, y * size);
        ink.stroke();
      }
      if (!pen.shown) return;
      ink.beginPath();
      ink.arc(pen.x * size, pen.y * size, pen.down ? 7 : 5, 0, 7);
      ink.fillStyle = css(color("accent"));
      ink.fill();
    },
    {
      tabindex: 0,
      role: "application",
      onpointerdown(/** @type {PointerEvent} */ event) {
        if (event.button !== 0 || strokes.length >= MOST_STROKES) return;
        event.preventDefault();
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        held = true;
        pen.shown = false;
        strokes.push([at(event)]);
        change();
      },
      onpointermove(/** @type {PointerEvent} */ event) {
        if (!held) return;
        for (const each of event.getCoalescedEvents?.() ?? [event]) point(at(each));
        change();
      },
      onpointerup: () => (held = false),
      onpointercancel: () => (held = false),
      onblur: () => (Object.assign(pen, { shown: false, down: false }), redraw()),
      onkeydown(/** @type {KeyboardEvent} */ event) {
        const way = /** @type {Record<string, number[]>} */ (ARROWS)[event.key];
        if (way) {
          const step = event.shiftKey ? 0.01 : 0.04;
          Object.assign(pen, { x: inside(pen.x + way[0] * step), y: inside(pen.y + way[1] * step) });
          if (pen.down) point([pen.x, pen.y]);
        } else if (event.key === " ") {
          pen.down = !pen.down;
          if (pen.down) strokes.push([[pen.x, pen.y]]);
        } else if (event.key === "Delete" || event.key === "Backspace") strokes = [];
        else return;
        event.preventDefault();
        pen.shown = true;
        change();
      },
    },
  );

  function change() {
    redraw();
    hint.classList.toggle("hidden", strokes.length > 0);
    changed();
  }
  const inside = (/** @type {number} */ v) => Math.round(1e4 * Math.min(1, Math.max(0, v))) / 1e4;
  const at = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
  };
  const point = (/** @type {number[]} */ place) => {
    const stroke = strokes[strokes.length - 1];
    if (stroke && stroke.length < MOST_POINTS) stroke.push(place);
  };
  const hint = h("span.hint", { t: index ? "tour.imagine.second" : "tour.imagine.draw", "aria-hidden": "true" });
  const clear = h("button.quiet.small", { type: "button", t: "tour.clear", onclick: () => set([]) });
  /** @param {number[][][]} next */
  function set(next) {
    strokes = next.map((stroke) => stroke.map((p) => p.map(inside)));
    change();
  }
  return {
    element: h("figure.pad", {}, h("div.sheet", {}, canvas, hint), clear),
    set,
    strokes: () => strokes,
    name: () => canvas.setAttribute("aria-label", t("tour.imagine.pad", { number: index + 1 })),
  };
}

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {{side: number, read: string[], images: string[]}|null} */
  let found = null;
  let draw = FIRST;
  let sample = 0;
  const words = caption();
  const pads = [0, 1].map((index) => pad(index, () => ask().catch(complain)));
  const places = Array.from({ length: VARIATIONS }, (_, i) => image(() => found && bytes(found.images[i])));
  const read = [0, 1].map((i) => image(() => found?.read[i] && bytes(found.read[i])));

  /** @param {() => Uint8Array|null|undefined|""} pixels */
  function image(pixels) {
    return surface(
      1,
      (ink, width) => {
        const values = pixels();
        if (!values || !found) return;
        const [paper, pen] = [color("ground"), color("ink")];
        const data = new ImageData(found.side, found.side);
        values.forEach((value, i) => data.data.set([...mixed(paper, pen, value / 255), 255], 4 * i));
        const small = new OffscreenCanvas(found.side, found.side);
        small.getContext("2d")?.putImageData(data, 0, 0);
        ink.drawImage(small, 0, 0, width, width);
      },
      { "aria-hidden": "true" },
    );
  }

  const ask = latest(async () => {
    const drawings = pads.map((each) => ({ strokes: each.strokes() })).filter(({ strokes }) => strokes.length);
    found = drawings.length ? await post("tour/imagine", { drawings, seed: draw }) : null;
    show();
  });

  function show() {
    for (const { redraw } of [...places, ...read]) redraw();
    read[1].canvas.classList.toggle("hidden", !found?.read[1]);
    const values = { count: VARIATIONS, drawings: found?.read.length ?? 0 };
    words.say(t(`tour.imagine.${found ? (values.drawings > 1 ? "both" : "one") : "empty"}`, values));
  }

  /** @param {number} next */
  function begin(next) {
    sample = next % SAMPLES.length;
    draw = FIRST;
    pads[1].set([]);
    pads[0].set(SAMPLES[sample]);
  }

  const grid = h("div.variations", { role: "img", "data-t-label": "tour.imagine.grid" }, ...places.map(({ canvas }) => canvas));
  element.append(
    h(
      "div.tools",
      {},
      button("tour.imagine.again", () => ((draw = seed()), ask().catch(complain))),
      button("tour.imagine.sample", () => begin(sample + 1)),
      button("tour.reset", () => begin(0)),
    ),
    h(
      "div.imagine",
      {},
      h(
        "div.drawn",
        {},
        h("div.pads", {}, ...pads.map((each) => each.element)),
        h("figure.read", {}, h("figcaption", { t: "tour.imagine.read" }), ...read.map(({ canvas }) => canvas)),
      ),
      h("figure", {}, grid, h("figcaption", { t: "tour.imagine.grid" })),
    ),
    words.element,
    h("p.hint.soft", { t: "tour.imagine.hint" }),
  );
  translate(element);
  pads[0].set(SAMPLES[0]);
  await ask();
  spoken(() => {
    for (const each of pads) each.name();
    show();
  });
}
