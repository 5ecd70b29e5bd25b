// @ts-check
/** What was learned: the map of the examples, and how well they tell each other apart. */

import { get } from "../api.js";
import { h, latest, svg } from "../dom.js";
import { t } from "../text.js";
import * as ask from "./ask.js";
import { doubt, near } from "./cards.js";
import * as store from "./store.js";
import { trouble } from "./trouble.js";

/**
 * @typedef {{map: {example: string, class: string, x: number, y: number}[],
 *   accuracy: {correct: number, of: number}|null,
 *   doubtful: {example: string, looks_like: string}[], version: number}} Insight
 */

const SIZE = { x: 160, y: 90 };
/** @type {Insight|null} */
let insight = null;

const sentence = h("p");
const lines = svg("g", { class: "lines" });
const points = svg("g");
const names = svg("g", { class: "names" });
const query = svg("g", { class: "query hidden" }, svg("circle", { r: 8 }), svg("circle", { r: 3 }));
const picture = svg(
  "svg",
  { viewBox: "-200 -115 400 230", class: "map", role: "img" },
  lines,
  points,
  names,
  query,
);
export const panel = h(
  "section.card.insight",
  { "aria-labelledby": "insight-title" },
  h("h2", { t: "teach.insight.title", id: "insight-title" }),
  sentence,
  picture,
  h("p.soft.small", { t: "teach.insight.map" }),
);

/** @param {number} x @param {number} y @returns {[number, number]} */
const place = (x, y) => [
  Math.max(-1.15, Math.min(1.15, x)) * SIZE.x,
  -Math.max(-1.15, Math.min(1.15, y)) * SIZE.y,
];

function draw() {
  const map = insight?.map.filter((p) => store.classOf(p.class)) ?? [];
  panel.classList.toggle("hidden", map.length < 2);
  points.replaceChildren();
  names.replaceChildren();
  for (const { id, name } of store.taught()) {
    const own = map.filter((p) => p.class === id);
    if (!own.length) continue;
    const group = svg("g", {});
    group.style.setProperty("--c", store.colorOf(id));
    for (const { example, x, y } of own) {
      const [cx, cy] = place(x, y);
      group.append(svg("circle", { cx, cy, r: 6, "data-example": example }));
    }
    points.append(group);
    const [cx] = place(own.reduce((sum, p) => sum + p.x, 0) / own.length, 0);
    const top = Math.min(...own.map((p) => place(p.x, p.y)[1]));
    const label = svg("text", { x: cx, y: top - 11 }, name.length > 18 ? name.slice(0, 17) + "…" : name);
    label.style.setProperty("--c", store.colorOf(id));
    names.append(label);
  }
  picture.setAttribute("aria-label", t("teach.insight.alt", { count: map.length }));
  tell();
  drawQuery();
}

function tell() {
  const { correct, of } = insight?.accuracy ?? { correct: 0, of: 0 };
  const doubtful = insight?.doubtful.length ?? 0;
  if (!of) sentence.textContent = t("teach.insight.soon");
  else if (correct === of) sentence.textContent = t("teach.insight.all", { of });
  else sentence.textContent = t("teach.insight.some", { correct, of });
  if (doubtful) sentence.append(" " + t("teach.insight.doubtful", { count: doubtful }));
}

function drawQuery() {
  const found = ask.answer;
  near(found?.neighbors.map((n) => n.example) ?? []);
  const where = found?.point;
  query.classList.toggle("hidden", !where);
  lines.replaceChildren();
  if (!where || !found) return;
  const [x, y] = place(...where);
  query.style.transform = `translate(${x}px, ${y}px)`;
  for (const { example } of found.neighbors) {
    const to = insight?.map.find((p) => p.example === example);
    if (!to) continue;
    const [x2, y2] = place(to.x, to.y);
    const line = svg("line", { x1: x, y1: y, x2, y2 });
    line.style.setProperty("--c", store.colorOf(to.class));
    lines.append(line);
  }
}

const load = latest(async () => {
  const id = store.project?.id;
  if (!id) return;
  try {
    const found = store.project?.examples ? await get(`projects/${id}/insight`) : null;
    if (store.project?.id !== id) return;
    insight = found;
    doubt(insight?.doubtful ?? []);
    draw();
  } catch (error) {
    trouble(error);
  }
});

/** @type {string} */
let known = "";
store.events.addEventListener("project", () => {
  insight = null;
  known = "";
});
store.events.addEventListener("change", () => {
  const version = `${store.project?.id} ${store.project?.version}`;
  draw();
  if (version !== known) load();
  known = version;
});
ask.events.addEventListener("answer", drawQuery);
document.addEventListener("language", draw);
