// @ts-check
/** The panel where one asks: what it sees, and how sure it is of every class. */

import { Refused, post } from "../api.js";
import { h, latest } from "../dom.js";
import { say } from "../shell.js";
import { t, translate } from "../text.js";
import { announce } from "./announce.js";
import * as camera from "./camera.js";
import { PICTURES, droppable, form, isPicture, pasteable, pick, prepared } from "./files.js";
import { icon } from "./icons.js";
import { sketch } from "./sketch.js";
import * as store from "./store.js";
import { trouble } from "./trouble.js";

const PAUSE = 40; // ms between two questions: the server takes 50 in a second
const QUIET = 900; // ms before the answer is read aloud

/**
 * @typedef {{drawing: store.Drawing}|{text: string}|{row: number[]}|{file: File}} Query
 * @typedef {{classes: {id: string, name: string, probability: number}[], none: boolean,
 *   neighbors: {example: string, similarity: number}[], point: [number, number]|null,
 *   milliseconds: number}} Answer
 */

/** "answer": there is another `answer`, or none. */
export const events = new EventTarget();
/** @type {Answer|null} */
export let answer = null;
/** @type {Query|null} */
let query = null;

const box = h("div.question");
const verdict = h("p.verdict");
const speed = h("span.speed.soft");
const bars = h("ul.bars", { "data-t-label": "teach.ask.bars" });
export const panel = h(
  "section.card.ask",
  { "aria-labelledby": "ask-title" },
  h("header", {}, h("h2", { t: "teach.ask.title", id: "ask-title" }), speed),
  box,
  verdict,
  bars,
);
/** @type {{refresh: () => void, clear: () => void, stop: () => void}} */
let source = { refresh() {}, clear() {}, stop() {} };

/** @type {Map<string, {element: HTMLElement, name: HTMLElement, fill: HTMLElement, share: HTMLElement, add: HTMLElement}>} */
const rows = new Map();

const pause = (/** @type {number} */ time) => new Promise((resolve) => setTimeout(resolve, time));
let sent = 0;

const send = latest(async () => {
  await pause(sent + PAUSE - performance.now());
  sent = performance.now();
  const asked = query;
  const id = store.project?.id;
  if (!asked || !id || store.taught().length < 2) return receive(null);
  try {
    const body = "file" in asked ? form([asked.file]) : asked;
    const found = await post(`projects/${id}/ask`, body);
    if (query && store.project?.id === id) receive(found);
  } catch (error) {
    if (error instanceof Refused && error.code === "rate") return void (await pause(500));
    receive(null);
    trouble(error);
  }
});

/** @param {Query|null} next */
function ask(next) {
  query = next;
  if (next) return send();
  receive(null);
  return Promise.resolve();
}

/** @param {Answer|null} next */
function receive(next) {
  answer = next;
  draw();
  events.dispatchEvent(new Event("answer"));
}

/** @param {string} id */
async function teach(id) {
  const asked = query;
  if (!asked) return;
  /** @type {Parameters<typeof store.addExamples>[1]} */
  let examples;
  if ("file" in asked) examples = form([asked.file]);
  else if ("drawing" in asked) examples = { drawings: [asked.drawing] };
  else if ("text" in asked) examples = { texts: [asked.text] };
  else examples = { rows: [asked.row] };
  const done = await store.addExamples(id, examples);
  if (!done) return;
  const name = store.classOf(id)?.name;
  say(t("teach.ask.taught", { name }), "info", { label: t("teach.undo"), act: store.undo });
  source.clear();
}

/** @param {string} id */
function bar(id) {
  const name = h("span.of");
  const fill = h("span.fill");
  const share = h("span.share");
  const add = h("button.plain.icon-only", { onclick: () => teach(id) }, icon("plus"));
  const track = h("span.track", { "aria-hidden": "true" }, fill);
  const element = h("li", { "data-class": id }, h("span.dot", { "aria-hidden": "true" }), name, share, add, track);
  element.style.setProperty("--c", store.colorOf(id));
  return { element, name, fill, share, add };
}

/** @param {number} p */
const percent = (p) => `${Math.round(p * 100)} %`;

function draw() {
  const classes = store.project?.classes ?? [];
  const by = new Map(answer?.classes.map((c) => [c.id, c.probability]));
  const best = answer && answer.classes.reduce((a, b) => (b.probability > a.probability ? b : a));
  for (const [id, old] of rows) if (!classes.some((c) => c.id === id)) (old.element.remove(), rows.delete(id));
  classes.forEach(({ id, name, examples }, i) => {
    const row = rows.get(id) ?? bar(id);
    rows.set(id, row);
    const p = by.get(id);
    row.name.textContent = name;
    row.name.title = name;
    row.fill.style.transform = `scaleX(${p ?? 0})`;
    row.share.textContent = p === undefined || !examples.length ? "–" : percent(p);
    row.element.classList.toggle("best", !!best && best.id === id && !answer?.none);
    row.add.setAttribute("aria-label", t("teach.ask.add", { name }));
    row.add.title = t("teach.ask.add", { name });
    row.add.classList.toggle("ghost", !query);
    if (bars.children[i] !== row.element) bars.insertBefore(row.element, bars.children[i] ?? null);
  });
  panel.classList.toggle("none", !!answer?.none);
  speed.textContent = answer ? t("teach.ask.speed", { milliseconds: Math.max(1, Math.round(answer.milliseconds)) }) : "";
  tell(best);
}

/** @param {{id: string, name: string, probability: number}|null} best */
function tell(best) {
  const few = store.taught().length < 2;
  const kind = store.project?.kind ?? "drawing";
  verdict.classList.toggle("soft", !best);
  verdict.classList.toggle("hint", !best);
  verdict.style.setProperty("--c", best && !answer?.none ? store.colorOf(best.id) : "var(--soft)");
  if (!best) verdict.textContent = few ? t("teach.ask.few") : t(`teach.ask.empty.${kind}`);
  else if (answer?.none) verdict.textContent = t("teach.ask.none");
  else verdict.replaceChildren(h("strong", {}, best.name), h("span", {}, percent(best.probability)));
  if (best) announce(answer?.none ? t("teach.ask.none") : t("teach.ask.says", { name: best.name, share: percent(best.probability) }), QUIET);
}

// ---------------------------------------------------------------- what is asked

function drawing() {
  const canvas = sketch({
    name: () => t("teach.sketch.ask"),
    hint: "teach.ask.hint",
    entered() {},
    changed(how) {
      const strokes = canvas.strokes();
      wipe.disabled = !strokes.length;
      ask(how === "clear" || !strokes.length ? null : { drawing: { strokes } });
    },
  });
  const wipe = /** @type {HTMLButtonElement} */ (
    h("button.small.quiet.wipe", { onclick: () => (canvas.clear(), canvas.canvas.focus({ preventScroll: true })), t: "teach.sketch.clear", disabled: true })
  );
  box.replaceChildren(canvas.element, wipe);
  return { refresh: canvas.rename, clear: () => canvas.clear(), stop() {} };
}

function photograph() {
  const zone = h("div.drop.large");
  /** @type {HTMLVideoElement|null} */
  let video = null;
  let url = "";

  function close() {
    if (video) camera.leave();
    video = null;
    if (url) URL.revokeObjectURL(url);
    url = "";
    zone.classList.remove("live");
    zone.replaceChildren(
      icon("picture"),
      h("span.soft", { t: "teach.files.dropOne" }),
      h("div.row", {}, h("button.small", { onclick: choose, t: "teach.files.chooseOne" }), h("button.small.quiet", { onclick: film, t: "teach.camera.open" })),
    );
    translate(zone);
  }
  function clear() {
    close();
    ask(null);
  }
  async function choose() {
    const files = await pick(PICTURES, { multiple: false });
    if (files.length) take(files);
  }
  const ending = () => h("button.corner", { onclick: clear, "data-t-label": "teach.sketch.clear" }, icon("close"));

  /** @param {File[]} files */
  async function take(files) {
    const file = files.find(isPicture);
    if (!file) return say(t("teach.files.none"), "error");
    close();
    url = URL.createObjectURL(file);
    zone.classList.add("live");
    zone.replaceChildren(h("img", { src: url, alt: file.name }), ending());
    translate(zone);
    await ask({ file: await prepared(file) });
  }
  async function film() {
    const opened = await camera.watch();
    if (!opened) return;
    video = opened;
    zone.classList.add("live");
    zone.replaceChildren(video, ending());
    translate(zone);
    while (video === opened) {
      const file = document.hidden ? null : await camera.frame(opened);
      if (file && video === opened) await ask({ file });
      await pause(store.taught().length < 2 ? 500 : PAUSE);
    }
  }
  close();
  box.replaceChildren(zone);
  return { refresh() {}, clear: () => video || clear(), stop: close, take };
}

/** @param {string} hint @param {(value: string) => Query|null} read */
function written(hint, read) {
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", { rows: 5, maxlength: 5000, "data-t-placeholder": hint, "data-t-label": "teach.ask.title" })
  );
  const listen = () => ask(area.value.trim() ? read(area.value.trim()) : null);
  area.addEventListener("input", listen);
  box.replaceChildren(area);
  translate(box);
  return { refresh() {}, clear: () => ((area.value = ""), area.focus(), ask(null)), stop() {} };
}

/** @param {string} line */
function row(line) {
  const values = line.split(/[\s,;]+/).filter(Boolean).map(Number);
  return values.some(Number.isNaN) ? null : { row: values };
}

function renew() {
  source.stop();
  rows.forEach((old) => old.element.remove());
  rows.clear();
  query = answer = null;
  const kind = store.project?.kind;
  panel.dataset.kind = kind;
  if (kind === "drawing") source = drawing();
  else if (kind === "image") source = photograph();
  else source = written(kind === "row" ? "teach.row.hint" : "teach.ask.box", kind === "row" ? row : (text) => ({ text }));
  translate(panel);
  draw();
}

// The panel outlives the questions: it takes pictures whenever it is about pictures.
const taking = (/** @type {File[]} */ files) => {
  const { take } = /** @type {any} */ (source);
  if (take) take(files).catch(trouble);
};
droppable(panel, taking);
pasteable(panel, taking);

store.events.addEventListener("project", renew);
store.events.addEventListener("change", () => {
  draw();
  if (query) send();
});
document.addEventListener("language", () => {
  source.refresh();
  draw();
});
