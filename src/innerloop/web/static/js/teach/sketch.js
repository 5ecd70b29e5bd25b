// @ts-check
/** A canvas one draws in with a pointer, a finger, a pen or the arrow keys. */

import { h } from "../dom.js";
import { t, translate } from "../text.js";
import { announce } from "./announce.js";

const WIDTH = 0.045; // of a line, as a share of the canvas
const NEAR = 0.004; // points closer than this are left out
const MOST_STROKES = 200;
const MOST_POINTS = 2000;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param {number} x */
const inside = (x) => Math.round(Math.min(1, Math.max(0, x)) * 1e4) / 1e4;

/** @param {number[][]} stroke @param {CanvasRenderingContext2D} ink @param {number} size */
function trace(stroke, ink, size) {
  const [x, y] = stroke[0];
  ink.beginPath();
  ink.moveTo(x * size, y * size);
  if (stroke.length === 1) ink.lineTo(x * size + 0.01, y * size);
  for (let i = 1; i < stroke.length; i++) {
    const [px, py] = stroke[i - 1];
    const [nx, ny] = stroke[i];
    ink.quadraticCurveTo(px * size, py * size, ((px + nx) / 2) * size, ((py + ny) / 2) * size);
    if (i === stroke.length - 1) ink.lineTo(nx * size, ny * size);
  }
  ink.stroke();
}

/**
 * @param {object} options
 * @param {() => string} options.name what it is, for screen readers
 * @param {string} options.hint key of the text on the empty canvas
 * @param {(how: "move"|"lift"|"clear", byKey: boolean) => void} options.changed
 * @param {() => void} options.entered the Enter key
 */
export function sketch({ name, hint, changed, entered }) {
  /** @type {number[][][]} */
  let strokes = [];
  /** @type {number|null} */
  let pointer = null;
  const pen = { x: 0.5, y: 0.5, down: false, shown: false };
  const canvas = /** @type {HTMLCanvasElement} */ (
    h("canvas", { tabindex: 0, role: "application", "aria-describedby": "sketch-keys" })
  );
  const nib = h("span.nib.hidden", { "aria-hidden": "true" });
  const empty = h("span.hint", { t: hint, "aria-hidden": "true" });
  const element = h("div.sketch", {}, canvas, empty, nib);
  translate(element);

  function paint() {
    const size = canvas.clientWidth;
    if (!size) return;
    const density = window.devicePixelRatio || 1;
    const pixels = Math.round(size * density);
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const ink = canvas.getContext("2d");
    if (!ink) return;
    ink.clearRect(0, 0, pixels, pixels);
    ink.strokeStyle = getComputedStyle(canvas).color;
    ink.lineWidth = WIDTH * pixels;
    ink.lineCap = ink.lineJoin = "round";
    for (const stroke of strokes) trace(stroke, ink, pixels);
    empty.classList.toggle("hidden", strokes.length > 0);
    element.classList.toggle("drawn", strokes.length > 0);
    nib.classList.toggle("hidden", !pen.shown);
    nib.classList.toggle("down", pen.down);
    nib.style.left = `${pen.x * 100}%`;
    nib.style.top = `${pen.y * 100}%`;
  }

  /** @param {number} x @param {number} y */
  function point(x, y) {
    const stroke = strokes[strokes.length - 1];
    const [lastX, lastY] = stroke[stroke.length - 1];
    if (stroke.length >= MOST_POINTS || Math.hypot(x - lastX, y - lastY) < NEAR) return;
    stroke.push([inside(x), inside(y)]);
  }

  /** @param {PointerEvent} event */
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null || strokes.length >= MOST_STROKES) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    Object.assign(pen, { shown: false, down: false });
    const [x, y] = place(event);
    strokes.push([[inside(x), inside(y)]]);
    paint();
    changed("move", false);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) {
      const [x, y] = place(each);
      point(x, y);
    }
    paint();
    changed("move", false);
  });
  const lift = (/** @type {PointerEvent} */ event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    changed("lift", false);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);

  /** @param {number[]} way @param {number} step */
  function move([dx, dy], step) {
    pen.x = inside(pen.x + dx * step);
    pen.y = inside(pen.y + dy * step);
    if (!pen.down) return;
    point(pen.x, pen.y);
    changed("move", true);
  }

  function toggle() {
    if (!pen.down && strokes.length >= MOST_STROKES) return;
    pen.down = !pen.down;
    if (pen.down) strokes.push([[pen.x, pen.y]]);
    changed(pen.down ? "move" : "lift", true);
    announce(t(pen.down ? "teach.sketch.down" : "teach.sketch.up", { x: Math.round(pen.x * 100), y: Math.round(pen.y * 100) }));
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = /** @type {Record<string, number[]>} */ (ARROWS)[event.key];
    if (way) move(way, event.shiftKey ? 0.01 : 0.05);
    else if (event.key === " ") toggle();
    else if (event.key === "Enter") entered();
    else if (["Backspace", "Delete", "Escape"].includes(event.key) && strokes.length) clear();
    else return;
    event.preventDefault();
    pen.shown = true;
    paint();
  });
  canvas.addEventListener("blur", () => {
    Object.assign(pen, { shown: false, down: false });
    paint();
  });

  function clear(quiet = false) {
    strokes = [];
    pen.down = false;
    paint();
    if (!quiet) changed("clear", true);
  }

  function rename() {
    canvas.setAttribute("aria-label", name());
    canvas.setAttribute("aria-roledescription", t("teach.sketch.role"));
  }
  rename();
  new ResizeObserver(paint).observe(canvas);
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return { element, canvas, clear, rename, strokes: () => strokes };
}
