// @ts-check
/** Where the examples of one class come in, for each kind of model. */

import { h } from "../dom.js";
import { say } from "../shell.js";
import { t, translate } from "../text.js";
import { announce } from "./announce.js";
import * as camera from "./camera.js";
import { BATCH, PICTURES, droppable, form, isPicture, pasteable, pick, prepared, sayRefused } from "./files.js";
import { icon } from "./icons.js";
import { sketch } from "./sketch.js";
import { addExamples } from "./store.js";
import { trouble } from "./trouble.js";

const WAIT = 800; // ms after the last stroke
const EVERY = 180; // ms between pictures of the webcam
const PART = 8; // pictures of the webcam that are sent together

/**
 * @typedef {{id: string, name: () => string, waiting: (count: number) => void}} Card where
 *   the examples go; `waiting` shows how many more are under way
 * @typedef {{element: HTMLElement, refresh: () => void, stop: () => void}} Input
 */

/** @param {Card} card @param {number} count @param {Parameters<typeof addExamples>[1]} examples */
async function send(card, count, examples) {
  card.waiting(count);
  const done = await addExamples(card.id, examples);
  card.waiting(-count);
  if (!done) return false;
  sayRefused(done.refused);
  const added = count - done.refused.length;
  if (added > 0) announce(t("teach.card.added", { count: added, name: card.name() }));
  return true;
}

/** @param {Card} card @param {File[]} files */
export async function sendPictures(card, files) {
  const pictures = files.filter(isPicture);
  if (!pictures.length) say(t("teach.files.none"), "error");
  for (let i = 0; i < pictures.length; i += BATCH) {
    const part = await Promise.all(pictures.slice(i, i + BATCH).map(prepared));
    if (!(await send(card, part.length, form(part)))) return;
  }
}

/** @param {Card} card @returns {Input} */
function drawing(card) {
  /** @type {number|undefined} */
  let timer;
  const canvas = sketch({
    name: () => t("teach.sketch.card", { name: card.name() }),
    hint: "teach.sketch.hint",
    entered: add,
    changed(how, byKey) {
      clearTimeout(timer);
      canvas.element.classList.toggle("ending", how === "lift" && !byKey);
      if (how === "lift" && !byKey) timer = setTimeout(add, WAIT);
      buttons();
    },
  });
  const more = /** @type {HTMLButtonElement} */ (h("button.small", { onclick: add, t: "teach.card.add" }));
  const wipe = /** @type {HTMLButtonElement} */ (h("button.small.quiet", { onclick: clear, t: "teach.sketch.clear" }));
  const element = h("div.input", {}, canvas.element, h("div.row", {}, more, wipe));

  function buttons() {
    more.disabled = wipe.disabled = !canvas.strokes().length;
  }
  function clear() {
    clearTimeout(timer);
    canvas.clear();
    canvas.canvas.focus({ preventScroll: true });
  }
  async function add() {
    clearTimeout(timer);
    const strokes = canvas.strokes();
    if (!strokes.length) return;
    const focused = element.contains(document.activeElement);
    canvas.clear(true);
    canvas.element.classList.remove("ending");
    buttons();
    if (focused) canvas.canvas.focus({ preventScroll: true });
    await send(card, 1, { drawings: [{ strokes }] });
  }
  buttons();
  translate(element);
  return { element, refresh: canvas.rename, stop: () => clearTimeout(timer) };
}

/** @param {Card} card @returns {Input} */
function photographs(card) {
  const receive = (/** @type {File[]} */ files) => sendPictures(card, files).catch(trouble);
  const zone = h("div.drop");
  const element = h("div.input", {}, zone);
  /** @type {HTMLVideoElement|null} */
  let video = null;
  let recording = false;

  function close() {
    recording = false;
    if (video) camera.leave();
    video = null;
    zone.classList.remove("live");
    zone.replaceChildren(
      icon("picture"),
      h("span.soft", { t: "teach.files.drop" }),
      h("button.small", { onclick: choose, t: "teach.files.choose" }),
      h("button.small.quiet", { onclick: film, t: "teach.camera.open" }),
    );
    translate(zone);
  }

  async function choose() {
    const files = await pick(PICTURES);
    if (files.length) receive(files);
  }

  async function film() {
    video = await camera.watch();
    if (!video) return;
    const button = h("button.small.record", {
      t: "teach.camera.hold",
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        button.setPointerCapture(event.pointerId);
        record();
      },
      onpointerup: end,
      onpointercancel: end,
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        if (![" ", "Enter"].includes(event.key)) return;
        event.preventDefault();
        if (!event.repeat) record();
      },
      onkeyup: end,
      onblur: end,
    });
    const stop = h("button.corner", { onclick: close, "data-t-label": "teach.camera.close" }, icon("close"));
    zone.classList.add("live");
    zone.replaceChildren(video, button, stop);
    translate(zone);
    button.focus({ preventScroll: true });
  }

  function end() {
    recording = false;
  }

  async function record() {
    if (recording || !video) return;
    recording = true;
    zone.classList.add("recording");
    /** @type {File[]} */
    let taken = [];
    do {
      const started = performance.now();
      const file = video && (await camera.frame(video));
      if (file) taken.push(file);
      if (taken.length >= PART) {
        send(card, taken.length, form(taken));
        taken = [];
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY - (performance.now() - started)));
    } while (recording);
    zone.classList.remove("recording");
    if (taken.length) send(card, taken.length, form(taken));
  }

  close();
  return { element, refresh() {}, stop: close };
}

/**
 * A box in which Enter adds.
 * @param {Card} card
 * @param {string} hint key of the placeholder
 * @param {(value: string) => Parameters<typeof addExamples>[1]|null} read
 * @returns {Input}
 */
function box(card, hint, read) {
  const area = /** @type {HTMLTextAreaElement} */ (h("textarea", { rows: 2, maxlength: 5000, "data-t-placeholder": hint }));
  const more = h("button.small", { onclick: add, t: "teach.card.add" });
  const element = h("div.input.typed", {}, area, h("div.row", {}, more));
  async function add() {
    const examples = area.value.trim() ? read(area.value.trim()) : null;
    if (!examples) return;
    const kept = area.value;
    area.value = "";
    area.focus({ preventScroll: true });
    if (!(await send(card, Object.values(examples)[0].length, examples)) && !area.value) area.value = kept;
  }
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    add();
  });
  const refresh = () => area.setAttribute("aria-label", t("teach.box.card", { name: card.name() }));
  translate(element);
  refresh();
  return { element, refresh, stop() {} };
}

/** @param {string} line @returns {number[]|null} */
export function numbers(line) {
  const values = line.trim().split(/[\s,;]+/).map(Number);
  if (!values.some(Number.isNaN)) return values;
  say(t("teach.row.wrong"), "error");
  return null;
}

/** @param {string} text */
function rows(text) {
  const all = text.split("\n").filter((line) => line.trim()).map(numbers);
  return all.includes(null) ? null : { rows: /** @type {number[][]} */ (all) };
}

/** @param {string} kind @param {Card} card @returns {Input} */
export function input(kind, card) {
  if (kind === "drawing") return drawing(card);
  if (kind === "image") return photographs(card);
  if (kind === "row") return box(card, "teach.row.hint", rows);
  return box(card, "teach.box.hint", (text) => ({ texts: [text] }));
}

/** Let pictures be dropped or pasted anywhere on a card. @param {HTMLElement} element @param {Card} card */
export function takesPictures(element, card) {
  const receive = (/** @type {File[]} */ files) => sendPictures(card, files).catch(trouble);
  droppable(element, receive);
  pasteable(element, receive);
}
