// @ts-check
/** The class cards: a name, the examples, and where the next one comes in. */

import { h } from "../dom.js";
import { say } from "../shell.js";
import { t, translate } from "../text.js";
import { TEXTS, form, pick, sayRefused } from "./files.js";
import { icon } from "./icons.js";
import { input, takesPictures } from "./inputs.js";
import { show } from "./pictures.js";
import * as store from "./store.js";

const FEW = 12; // examples that are shown, until all are asked for

/** @type {Map<string, ReturnType<typeof card>>} */
const cards = new Map();
/** @type {{near: string[], doubtful: Map<string, string>}} */
const marks = { near: [], doubtful: new Map() };

export const grid = h("div.cards", {}, h("div.card.skeleton"), h("div.card.skeleton"));
const more = h("button.add-class", { onclick: add }, icon("plus"), h("span", { t: "teach.class.add" }));
const load = h("button.quiet.small", { onclick: loadTable, t: "teach.table.load" });
const extra = h("div.card.more", {}, more, load);

/** @param {() => void} act */
function undoable(act) {
  return { label: t("teach.undo"), act };
}

async function add() {
  const before = new Set(store.project?.classes.map((c) => c.id));
  await store.addClass();
  const fresh = store.project?.classes.find((c) => !before.has(c.id));
  const field = fresh && cards.get(fresh.id)?.field;
  field?.focus();
  field?.select();
}

async function loadTable() {
  const [file] = await pick(TEXTS, { multiple: false });
  const first = store.project?.classes[0];
  if (!file || !first) return;
  const was = store.project?.examples;
  const done = await store.addExamples(first.id, form([file]));
  if (!done) return;
  sayRefused(done.refused);
  if (was) return;
  for (const { id, examples } of done.state.classes) if (!examples.length) await store.removeClass(id);
}

/** The newest examples, and those that are near to what is asked. @param {store.Example[]} examples */
function few(examples) {
  if (examples.length <= FEW) return examples;
  const near = examples.filter((e) => marks.near.includes(e.id));
  const others = examples.filter((e) => !marks.near.includes(e.id)).slice(near.length - FEW);
  return examples.filter((e) => near.includes(e) || others.includes(e));
}

/** @param {string} example */
async function removeExample(example) {
  if (!(await store.removeExample(example))) return;
  say(t("teach.example.removed"), "info", undoable(store.undo));
}

/** @param {store.TaughtClass} taught */
async function removeClass({ id, name }) {
  if (!(await store.removeClass(id))) return;
  say(t("teach.class.removed", { name }), "info", undoable(store.undo));
}

/** @param {store.Example} example */
function thumbnail(example) {
  const content = example.picture
    ? /** @type {HTMLImageElement} */ (h("img", { alt: "", width: 60, height: 60 }))
    : h("span.words", { title: example.text }, example.text);
  if (example.picture) show(/** @type {HTMLImageElement} */ (content), example.id);
  const button = h("button.corner", { onclick: () => removeExample(example.id) }, icon("close"));
  const doubt = h("span.doubt.hidden", {}, "?");
  const element = h("li.example", { class: example.picture ? "example" : "example text", "data-example": example.id }, content, doubt, button);
  return { element, doubt, button };
}

/** @param {store.TaughtClass} taught */
function card(taught) {
  let now = taught;
  let all = false;
  let waiting = 0;
  const typed = ["text", "row"].includes(store.project?.kind ?? "");
  /** @type {Map<string, ReturnType<typeof thumbnail>>} */
  const thumbnails = new Map();
  const title = h("h2.visually-hidden", { id: `class-${taught.id}` });
  const field = /** @type {HTMLInputElement} */ (
    h("input.name", { maxlength: 60, "data-t-label": "teach.class.name", onchange: rename, spellcheck: "false", autocomplete: "off" })
  );
  field.addEventListener("keydown", (event) => event.key === "Enter" && field.blur());
  const count = h("span.count.soft");
  const close = h("button.plain.icon-only", { onclick: () => removeClass(now) }, icon("close"));
  const list = h("ul.examples");
  const rest = h("button.plain.small.hidden", { onclick: () => ((all = !all), update(now)) });
  const into = {
    id: taught.id,
    name: () => now.name,
    waiting(/** @type {number} */ change) {
      waiting += change;
      update(now);
    },
  };
  const way = input(store.project?.kind ?? "drawing", into);
  const element = h(
    "section.card.class",
    { "aria-labelledby": title.id, "data-class": taught.id },
    h("header", {}, title, h("span.dot", { "aria-hidden": "true" }), field, count, close),
    h("div.body", {}, way.element, h("div.shown", {}, list, rest)),
  );
  if (store.project?.kind === "image") takesPictures(element, into);
  element.style.setProperty("--c", store.colorOf(taught.id));

  async function rename() {
    const name = field.value.trim();
    if (!name) field.value = now.name;
    else if (name !== now.name && !(await store.renameClass(now.id, name))) field.value = now.name;
  }

  /** @param {store.TaughtClass} state */
  function update(state) {
    now = state;
    const number = state.examples.length;
    title.textContent = t("teach.class.heading", { name: state.name, count: number });
    if (document.activeElement !== field) field.value = state.name;
    count.textContent = number ? String(number) : "";
    close.setAttribute("aria-label", t("teach.class.remove", { name: state.name }));
    way.refresh();
    const shown = all ? state.examples : few(state.examples);
    for (const [id, old] of thumbnails)
      if (!shown.some((e) => e.id === id)) (old.element.remove(), thumbnails.delete(id));
    list.querySelectorAll(".waiting, .empty").forEach((e) => e.remove());
    shown.forEach((example, i) => {
      const found = thumbnails.get(example.id) ?? thumbnail(example);
      thumbnails.set(example.id, found);
      if (list.children[i] !== found.element) list.insertBefore(found.element, list.children[i] ?? null);
      const place = state.examples.indexOf(example) + 1;
      found.button.setAttribute("aria-label", t("teach.example.remove", { place, name: state.name }));
      found.element.querySelector("img")?.setAttribute("alt", t("teach.example.alt", { place, name: state.name }));
    });
    for (let i = 0; i < Math.min(waiting, FEW); i++) list.append(h(typed ? "li.example.text.waiting" : "li.example.waiting", { "aria-hidden": "true" }));
    if (!number && !waiting) list.append(h("li.empty.soft", {}, t(`teach.card.empty.${store.project?.kind}`)));
    rest.classList.toggle("hidden", number <= FEW);
    rest.textContent = all ? t("teach.card.fewer") : t("teach.card.all", { count: number });
    mark();
  }

  function mark() {
    for (const [id, { element, doubt }] of thumbnails) {
      const rank = marks.near.indexOf(id);
      element.classList.toggle("near", rank >= 0);
      element.style.setProperty("--rank", String(rank));
      const other = marks.doubtful.get(id);
      doubt.classList.toggle("hidden", !other);
      const words = other ? t("teach.example.doubtful", { name: store.classOf(other)?.name }) : "";
      doubt.title = words;
      doubt.setAttribute("aria-label", words);
      doubt.setAttribute("role", "img");
    }
  }

  function near() {
    if (!all && now.examples.length > FEW) update(now);
    else mark();
  }

  translate(element);
  update(taught);
  return { element, field, update, mark, near, stop: way.stop };
}

function update() {
  const classes = store.project?.classes ?? [];
  for (const [id, old] of cards) {
    if (classes.some((c) => c.id === id)) continue;
    old.stop();
    old.element.remove();
    cards.delete(id);
  }
  classes.forEach((state, i) => {
    const found = cards.get(state.id);
    if (found) found.update(state);
    const element = (found ?? cards.set(state.id, card(state)).get(state.id))?.element;
    if (element && grid.children[i] !== element) grid.insertBefore(element, grid.children[i] ?? null);
  });
  if (!extra.isConnected) translate(extra);
  load.classList.toggle("hidden", !["text", "row"].includes(store.project?.kind ?? ""));
  if (grid.lastElementChild !== extra) grid.append(extra);
}

/** Highlight the examples that are nearest to what was asked. @param {string[]} examples */
export function near(examples) {
  marks.near = examples;
  for (const each of cards.values()) each.near();
}

/** Mark examples that look like another class. @param {{example: string, looks_like: string}[]} doubtful */
export function doubt(doubtful) {
  marks.doubtful = new Map(doubtful.map((d) => [d.example, d.looks_like]));
  for (const each of cards.values()) each.mark();
}

store.events.addEventListener("project", () => {
  for (const old of cards.values()) old.stop();
  cards.clear();
  grid.replaceChildren();
  marks.near = [];
  marks.doubtful = new Map();
});
store.events.addEventListener("change", update);
document.addEventListener("language", update);
