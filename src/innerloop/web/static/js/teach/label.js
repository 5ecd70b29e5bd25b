// @ts-check
/** Label many pictures or texts, and pick what to label next by hand. */

import { blob, post } from "../api.js";
import { h, latest, redraw } from "../dom.js";
import { say } from "../shell.js";
import { t, translate } from "../text.js";
import { announce } from "./announce.js";
import { download, droppable, form, isPicture, isTable, path, pick, prepared, sayRefused } from "./files.js";
import { icon } from "./icons.js";
import * as store from "./store.js";
import { trouble } from "./trouble.js";

const SHOWN = 60; // rows before one asks for all
const MOST = 120 * 2 ** 20; // bytes in one request

/**
 * @typedef {{file?: File, name: string, label: string, none: boolean, probability: number, second: string,
 *   second_probability: number}} Row
 */

/** @type {File[]} */
let files = [];
/** @type {{rows: Row[], ask_next: number[], refused: {name: string, message: string}[]}|null} */
let found = null;
/** Rows that were added to a class, or skipped, by name. @type {Set<string>} */
let done = new Set();
let all = false;
/** @type {Map<File, string>} */
const addresses = new Map();

const hint = h("p.soft");
const pickFolder = h("button", { onclick: async () => take(await pick("", { folder: true })), t: "teach.label.folder" });
const pickFiles = h("button.quiet", { onclick: async () => take(await pick("image/*", {})), t: "teach.label.files" });
const pickTable = h("button.quiet", { onclick: async () => take(await pick(".csv,.txt", { multiple: false })), t: "teach.label.table" });
const zone = h("div.drop.wide", {}, icon("folder"), hint, h("div.row", {}, pickFolder, pickFiles, pickTable));
const next = h("div.next.hidden", { role: "group" });
const body = h("tbody");
const rest = h("button.plain.small", { onclick: () => ((all = !all), draw()) });
const zip = h("button.quiet.small", { onclick: () => save("zip"), t: "teach.label.zip" });
const table = h(
  "div.hidden",
  {},
  h("div.row", {}, h("button.small", { onclick: () => save("csv"), t: "teach.label.csv" }), zip, h("button.plain.small", { onclick: forget, t: "teach.label.forget" })),
  h("div.scroll", { tabindex: 0, role: "region", "data-t-label": "teach.label.result" },
    h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, h("span.visually-hidden", { t: "teach.label.picture" })), h("th", { t: "teach.label.name" }), h("th", { t: "teach.label.label" }), h("th", { t: "teach.label.sure" }))), body)),
  rest,
);
export const panel = h(
  "section.card.label",
  { "aria-labelledby": "label-title" },
  h("h2", { t: "teach.label.title", id: "label-title" }),
  zone,
  next,
  table,
);

const texts = () => ["text", "row"].includes(store.project?.kind ?? "");

/** @param {File[]} given */
function take(given) {
  const useful = given.filter(texts() ? isTable : isPicture).slice(0, texts() ? 1 : undefined);
  if (!given.length) return;
  if (!useful.length) return say(t("teach.files.none"), "error");
  if (store.taught().length < 2) return say(t("teach.ask.few"), "error");
  forget();
  files = useful;
  label();
}

function forget() {
  files = [];
  found = null;
  done = new Set();
  all = false;
  addresses.forEach((url) => URL.revokeObjectURL(url));
  addresses.clear();
  draw();
}

const label = latest(async () => {
  const id = store.project?.id;
  const sent = files;
  if (!id || !sent.length) return;
  panel.setAttribute("aria-busy", "true");
  try {
    const small = await Promise.all(sent.map(prepared));
    const result = await post(`projects/${id}/label?format=json`, form(small, sent));
    if (!texts()) pair(result, sent);
    if (files !== sent || store.project?.id !== id) return;
    if (!found) announce(t("teach.label.ready", { count: result.rows.length }));
    if (!found) sayRefused(result.refused);
    found = result;
    draw();
  } catch (error) {
    trouble(error);
  } finally {
    panel.removeAttribute("aria-busy");
  }
});

/** Give each row its file: rows are in the order of the files that could be read.
 * @param {{rows: Row[], refused: {name: string}[]}} result @param {File[]} sent */
function pair({ rows, refused }, sent) {
  const bad = refused.map((r) => r.name);
  const good = sent.filter((file) => {
    const place = bad.findIndex((name) => path(file).endsWith(name));
    if (place >= 0) bad.splice(place, 1);
    return place < 0;
  });
  rows.forEach((row, i) => (row.file = good[i]));
}

/** @param {"csv"|"zip"} format */
async function save(format) {
  if (files.reduce((sum, file) => sum + file.size, 0) > MOST) return say(t("teach.label.large"), "error");
  try {
    const content = await blob(`projects/${store.project?.id}/label?format=${format}`, form(files));
    download(content, `${store.project?.name ?? "labels"}.${format}`);
  } catch (error) {
    trouble(error);
  }
}

/** @param {Row} row */
function thumbnail({ file }) {
  if (!file) return null;
  if (!addresses.has(file)) addresses.set(file, URL.createObjectURL(file));
  return h("img", { src: addresses.get(file), alt: "", loading: "lazy" });
}

/** @param {Row} row @param {string} id */
async function answer(row, id) {
  const kind = store.project?.kind;
  let examples;
  if (kind === "text") examples = { texts: [row.name] };
  else if (kind === "row") examples = { rows: [row.name.split(",").map(Number)] };
  else if (row.file) examples = form([await prepared(row.file)]);
  if (!examples) return;
  if (!(await store.addExamples(id, examples))) return;
  done.add(row.name);
  draw();
}

const drawNext = () => redraw(next, makeNext);

function makeNext() {
  const index = found?.ask_next.find((i) => !done.has(found?.rows[i].name ?? ""));
  const row = index === undefined ? undefined : found?.rows[index];
  next.classList.toggle("hidden", !row);
  if (!row) return next.replaceChildren();
  const focused = next.contains(document.activeElement);
  const buttons = (store.project?.classes ?? []).map(({ id, name }) => {
    const button = h("button.quiet.small.pick", { onclick: () => answer(row, id) }, h("span.dot", {}), name);
    button.style.setProperty("--c", store.colorOf(id));
    return button;
  });
  const skip = h("button.plain.small", { onclick: () => (done.add(row.name), draw()) }, t("teach.label.skip"));
  const content = thumbnail(row) ?? h("blockquote", {}, row.name);
  const title = h("h3", {}, t("teach.label.next"));
  next.setAttribute("aria-label", t("teach.label.next"));
  next.replaceChildren(content, h("div", {}, title, h("p.soft", {}, t("teach.label.why", { first: row.label, second: row.second })), h("div.row", {}, ...buttons, skip)));
  if (focused) buttons[0]?.focus();
}

/** @param {Row} row */
function line(row) {
  const to = store.project?.classes.find((c) => c.name === row.label);
  const fill = h("span.fill");
  fill.style.transform = `scaleX(${row.probability})`;
  const element = h(
    "tr",
    {},
    h("td", {}, thumbnail(row)),
    h("td.file", {}, row.name),
    h("td", {}, h("span.dot"), " ", row.none ? h("em.soft", {}, t("teach.label.none")) : row.label),
    h("td.sure", {}, h("span.track", { "aria-hidden": "true" }, fill), h("span", {}, `${Math.round(row.probability * 100)} %`)),
  );
  element.style.setProperty("--c", to && !row.none ? store.colorOf(to.id) : "var(--soft)");
  return element;
}

function draw() {
  const rows = found?.rows ?? [];
  table.classList.toggle("hidden", !found);
  zip.classList.toggle("hidden", texts());
  body.replaceChildren(...(all ? rows : rows.slice(0, SHOWN)).map(line));
  rest.classList.toggle("hidden", rows.length <= SHOWN);
  rest.textContent = all ? t("teach.card.fewer") : t("teach.card.all", { count: rows.length });
  for (const button of [pickFolder, pickFiles]) button.classList.toggle("hidden", texts());
  pickTable.classList.toggle("hidden", !texts());
  hint.textContent = t(texts() ? "teach.label.hintTexts" : "teach.label.hint");
  drawNext();
}

droppable(zone, take);
store.events.addEventListener("project", forget);
let version = -1;
store.events.addEventListener("change", () => {
  if (store.project?.version !== version && found) label();
  version = store.project?.version ?? -1;
  panel.classList.toggle("hidden", store.taught().length < 2);
  draw();
});
document.addEventListener("language", draw);
translate(panel);
