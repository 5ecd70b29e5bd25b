// @ts-check
/** The line of the project: its name, where it is, undo; and the list of all projects. */

import { blob, get } from "../api.js";
import { h } from "../dom.js";
import { t, translate } from "../text.js";
import { download, pick } from "./files.js";
import { icon } from "./icons.js";
import * as store from "./store.js";
import { trouble } from "./trouble.js";

const field = /** @type {HTMLInputElement} */ (
  h("input.name", { maxlength: 60, "data-t-label": "teach.project.name", onchange: rename, spellcheck: "false", autocomplete: "off" })
);
field.addEventListener("keydown", (event) => event.key === "Enter" && field.blur());
const place = h("span.place.soft");
const undo = /** @type {HTMLButtonElement} */ (
  h("button.quiet.small", { onclick: () => store.undo(), "data-t-title": "teach.undoKey" }, icon("undo"), h("span", { t: "teach.undo" }))
);
const others = h("button.quiet.small", { onclick: openDialog, "aria-haspopup": "dialog" }, icon("folder"), h("span", { t: "teach.project.open" }));
const keep = h("button.quiet.small", { onclick: save }, icon("save"), h("span", { t: "teach.project.save" }));
export const line = h("div.project", { role: "group", "data-t-label": "teach.project.group" }, h("div.who", {}, field, place), h("div.row", {}, undo, others, keep));

const list = h("ul.list");
const code = h("pre", { tabindex: 0 });
const dialog = /** @type {HTMLDialogElement} */ (
  h(
    "dialog.card",
    { "aria-labelledby": "projects-title" },
    h("header", {}, h("h2", { t: "teach.project.all", id: "projects-title" }), h("button.plain.icon-only", { onclick: () => dialog.close(), "data-t-label": "teach.project.close" }, icon("close"))),
    h("div.row", {}, h("button", { onclick: create, t: "teach.project.new" }), h("button.quiet", { onclick: openFile, t: "teach.project.file" })),
    list,
    h("p.soft", { t: "teach.project.use" }),
    code,
  )
);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
document.body.append(dialog);

async function rename() {
  const name = field.value.trim();
  if (!name || !(await store.rename(name))) field.value = store.project?.name ?? "";
}

async function save() {
  try {
    const content = await blob(`projects/${store.project?.id}/file`);
    download(content, `${store.project?.name ?? "project"}.zip`);
  } catch (error) {
    trouble(error);
  }
}

async function create() {
  dialog.close();
  if (store.project) await store.create(store.project.model);
}

async function openFile() {
  const [file] = await pick(".zip,application/zip", { multiple: false });
  if (file && (await store.openFile(file))) dialog.close();
}

/** @param {{id: string, name: string, model: string, examples: number}} item */
function entry({ id, name, model, examples }) {
  const title = titleOf(store.models.find((m) => m.name === model)) || model;
  const here = store.project?.id === id;
  return h(
    "li",
    { "aria-current": here ? "true" : null },
    h("button.plain.entry", { onclick: () => (dialog.close(), here || store.open(id)) }, h("strong", {}, name), h("span.soft", {}, t("teach.project.what", { title, count: examples }))),
    h("button.plain.icon-only", { onclick: () => discard(id, name), "aria-label": t("teach.project.delete", { name }), title: t("teach.project.delete", { name }) }, icon("close")),
  );
}

/** What a model is called: the three that come along are translated. @param {store.Model|undefined} model */
export function titleOf(model) {
  const known = t(`teach.models.${model?.name}`);
  return known.startsWith("teach.") ? (model?.title ?? "") : known;
}

/** @param {string} id @param {string} name */
async function discard(id, name) {
  if (!confirm(t("teach.project.sure", { name }))) return;
  await store.discard(id);
  await fill();
}

async function fill() {
  const { projects } = await get("projects");
  list.replaceChildren(...projects.filter((/** @type {any} */ p) => p.examples || p.id === store.project?.id).map(entry));
}

async function openDialog() {
  try {
    await fill();
    const folder = store.project?.folder ?? "";
    code.textContent = `from innerloop import FewShotClassifier\nFewShotClassifier.load(${JSON.stringify(folder)})`;
    translate(dialog);
    dialog.showModal();
  } catch (error) {
    trouble(error);
  }
}

function update() {
  const project = store.project;
  if (document.activeElement !== field) field.value = project?.name ?? "";
  undo.disabled = !store.canUndo();
  place.title = project?.folder ?? "";
  const folder = project?.folder.split(/[/\\]/).slice(0, -2).join("/") ?? "";
  place.textContent = project?.examples ? t("teach.project.saved", { folder }) : t("teach.project.empty");
}

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey || event.key.toLowerCase() !== "z") return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement) return;
  event.preventDefault();
  if (store.canUndo()) store.undo();
});
store.events.addEventListener("change", update);
document.addEventListener("language", update);
