// @ts-check
/** The page where classes are taught from a few examples. */

import { h, redraw } from "../dom.js";
import { shell } from "../shell.js";
import { t, translate } from "../text.js";
import { region } from "./announce.js";
import { panel as ask } from "./ask.js";
import { grid } from "./cards.js";
import { panel as insight } from "./insight.js";
import { panel as label } from "./label.js";
import { line, titleOf } from "./projects.js";
import * as store from "./store.js";

const tabs = h("div.tabs", { role: "group", "data-t-label": "teach.models.label" });
const note = h("p.note.soft");
/** A model that was asked for and is not ready. @type {store.Model|null} */
let missing = null;

/** @param {store.Model} model */
function choose(model) {
  missing = model.ready ? null : model;
  if (model.ready) store.choose(model.name);
  drawTabs();
}

const drawTabs = () => redraw(tabs, makeTabs);

function makeTabs() {
  const focused = [...tabs.children].indexOf(/** @type {Element} */ (document.activeElement));
  const buttons = store.models.map((model) => {
    const chosen = model.name === (missing?.name ?? store.project?.model);
    const classes = model.ready ? "button.tab" : "button.tab.missing";
    return h(classes, { onclick: () => choose(model), "aria-pressed": chosen ? "true" : "false" }, titleOf(model));
  });
  tabs.replaceChildren(...buttons);
  buttons[focused]?.focus();
  note.classList.toggle("warning", !!missing);
  if (!missing) note.textContent = store.model()?.note ?? "";
  else if (!missing.missing) note.textContent = missing.note;
  else note.replaceChildren(t("teach.models.missing", { title: titleOf(missing) }) + " ", h("code", {}, `pip install '${missing.missing}'`));
}

const page = h("div.teach", {}, grid, h("div.side", {}, ask), insight, label);
const main = shell();
main.append(
  h("div.intro", {}, h("div", {}, h("h1", { t: "teach.title" }), h("p.soft", { t: "teach.lead" })), h("div.choice", {}, tabs, note)),
  line,
  page,
  h("p.visually-hidden", { id: "sketch-keys", t: "teach.sketch.keys" }),
  region,
);
translate();
document.title = `${t("teach.title")} – innerloop`;
store.events.addEventListener("change", drawTabs);
store.events.addEventListener("project", () => (page.dataset.kind = store.project?.kind));
store.events.addEventListener("busy", () => document.body.classList.toggle("busy", store.pending > 0));
document.addEventListener("language", () => {
  drawTabs();
  document.title = `${t("teach.title")} – innerloop`;
});
store.events.addEventListener("models", drawTabs);
await store.start();
if (!store.project) {
  if (store.models.length) choose(store.models[0]);
  const again = h("button", { onclick: () => location.reload(), t: "teach.again" });
  grid.replaceChildren(h("div.card.stopped", {}, h("p", { t: store.models.length ? "teach.models.none" : "teach.stopped" }), again));
  translate(grid);
}
