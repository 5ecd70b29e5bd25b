// @ts-check
/** The list of runs, one run in detail, and the leaderboard. */

import { h } from "../dom.js";
import { t, translate } from "../text.js";
import { commandLine, duration, labelled, scored } from "./parts.js";

const ACTIVE = ["starting", "running", "stopping", "testing"];

/** @param {any} run */
export const active = (run) => ACTIVE.includes(run.status);

/** @param {any} run @param {import("./series.js").Series|undefined} series */
export function progress(run, series) {
  if (run.trained) return 1;
  const whole = run.steps ? run.step / run.steps : run.minutes ? run.seconds / (60 * run.minutes) : 0;
  return Math.min(1, Math.max(whole, series?.progress ?? 0));
}

/**
 * One run of the list.
 * @param {any} run
 * @param {{color: number|undefined, chosen: boolean,
 *   compare: (on: boolean) => void, choose: () => void}} how
 */
export function item(run, { color, chosen, compare, choose }) {
  const box = h("input", { type: "checkbox", checked: color !== undefined, "aria-label": t("train.compare", { name: run.name }) });
  box.addEventListener("change", () => compare(/** @type {HTMLInputElement} */ (box).checked));
  const bar = h("div.bar", { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": t("train.progress") }, h("i"));
  return h(
    `li.training-run${color === undefined ? "" : `.s${color}`}${chosen ? ".chosen" : ""}`,
    {},
    h("label.box", {}, box, h("i.swatch")),
    h(
      "button.plain.title",
      { type: "button", onclick: choose, "aria-pressed": String(chosen), "data-run": run.name },
      h("b", {}, run.name),
      h("span.soft.small", {}, `${run.learner} · ${run.tasks}`),
    ),
    h("span.right", {}, h(`span.pill.${run.status}`, {}, t(`train.status_${run.status}`)), h("span.score", {}, scored(run.measure, run.score))),
    active(run) && run.status !== "testing" ? bar : null,
  );
}

/** @param {Record<string, any>} values */
const told = (values) => Object.entries(values).map(([k, v]) => [k.replaceAll("_", " "), v === null ? "–" : typeof v === "boolean" ? t(v ? "train.yes" : "train.no") : String(v)]);

/**
 * One run in detail.
 * @param {any} run
 * @param {import("./series.js").Series|undefined} series
 * @param {{folder: string, act: (what: string, body?: any) => Promise<void>}} how
 */
export function detail(run, series, { folder, act }) {
  const going = active(run);
  const n = /** @type {HTMLInputElement} */ (h("input", { type: "number", min: 1, max: 10000, step: 1, value: 600, "data-t-label": "train.test_tasks" }));
  const test = () => n.reportValidity() && act("test", { tasks: n.valueAsNumber });
  let sure = false;
  const remove = h("button.plain", { type: "button", t: "train.delete" });
  remove.addEventListener("click", () => {
    if (sure) act("delete");
    else {
      sure = true;
      remove.textContent = t("train.sure");
      remove.classList.add("warn");
      remove.addEventListener("blur", () => {
        sure = false;
        remove.textContent = t("train.delete");
        remove.classList.remove("warn");
      }, { once: true });
    }
  });
  /** @type {(Node|null)[]} */
  const buttons = [
    going ? h("button.quiet", { type: "button", onclick: () => act("stop"), t: "train.stop", disabled: run.status === "stopping" }) : null,
    !going && run.saved && !run.trained ? h("button", { type: "button", onclick: () => act("resume"), t: "train.resume" }) : null,
    !going && run.usable
      ? h("form.measure", { onsubmit: (/** @type {Event} */ e) => (e.preventDefault(), test()), novalidate: true }, h("button.quiet", { type: "submit", t: "train.test" }), n, h("span.soft.small", { t: "train.tasks_word" }))
      : null,
    going ? null : remove,
  ];
  const [steps, speed] = live(run, series);
  /** @type {[string, string|HTMLElement][]} */
  const facts = [
    [t("train.learner"), run.learner],
    [t("train.tasks"), run.tasks],
    [t("train.meta_gradient"), run.meta_gradient || "–"],
    [t("train.length"), run.steps ? t("train.n_steps", { n: run.steps }) : run.minutes ? t("train.n_minutes", { n: run.minutes }) : "–"],
    [t("train.so_far"), h("span", { "data-live": "steps" }, steps)],
    ...(run.score === null ? [] : [/** @type {[string, string]} */ ([t("train.validation"), `${run.measure} ${scored(run.measure, run.score, run.interval)}`])]),
    ...(going && run.status !== "testing" ? [/** @type {[string, HTMLElement]} */ ([t("train.speed"), h("span", { "data-live": "speed" }, speed)])] : []),
  ];
  const settings = [...told(run.options.tasks), ...told(run.options.learner), ...told(run.options.meta_gradient), ...told(run.training)];
  const teach = run.usable && !going && run.inputs ? commandLine(`innerloop serve ${folder}/${run.name}`) : null;
  const element = h(
    "section.card.detail",
    { "aria-labelledby": "detail-title" },
    h("header", {}, h("h2", { id: "detail-title" }, run.name), h(`span.pill.${run.status}`, {}, t(`train.status_${run.status}`))),
    series?.description ? h("p.soft", {}, series.description) : null,
    run.problem ? h("p.wrong", { role: "alert" }, run.problem) : null,
    ...(series?.notes ?? []).map((note) => h("p.remark", {}, note)),
    h("div.acts", {}, ...buttons),
    h("dl.told", {}, ...facts.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v)))),
    settings.length ? h("details", {}, h("summary", { t: "train.all_settings" }), h("dl.options-list", {}, ...settings.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))))) : null,
    run.command ? h("div", {}, h("h3", { t: "train.command" }), commandLine(run.command).element) : null,
    h("h3", { t: "train.results" }),
    ...(run.tests.length ? run.tests.map(results) : [h("p.soft", { t: run.usable ? "train.no_tests" : "train.no_weights" })]),
    teach ? h("div", {}, h("h3", { t: "train.teach" }), h("p", { t: "train.teach_how" }), teach.element, h("p", {}, h("a", { href: "/", t: "train.teach_open" }))) : null,
  );
  translate(element);
  return element;
}

/**
 * How far a run is, and how fast, in words.
 * @param {any} run
 * @param {import("./series.js").Series|undefined} series
 */
export function live(run, series) {
  const last = [...(series?.stepped.values() ?? [])].pop() ?? { x: 0, seconds: 0 };
  const time = duration(Math.max(run.seconds, last.seconds));
  return [t("train.steps_in", { n: Math.max(run.step, last.x), time }), series?.speed ? t("train.per_second", { n: series.speed.toPrecision(3) }) : "–"];
}

/** The tables of a test. @param {any} test */
function results(test) {
  return h(
    "div.tested",
    {},
    h("p.soft.small", {}, t("train.tested", { tasks: test.tasks, split: test.split, n: test.n, seed: test.seed })),
    test.seen_classes ? h("p.remark", {}, t("train.seen", { n: test.seen_classes })) : null,
    ...test.tables.map(table),
    ...test.notes.map((/** @type {string} */ note) => h("p.soft.small", {}, note)),
  );
}

/** @param {any} data */
function table(data) {
  const labels = [...new Set(data.rows.flatMap((/** @type {any} */ r) => Object.keys(r.labels)))];
  const names = [...new Set(data.rows.flatMap((/** @type {any} */ r) => r.values.map((/** @type {any} */ v) => v.name)))];
  return h(
    "div.wide",
    {},
    h(
      "table",
      {},
      h("caption", {}, data.title),
      h("thead", {}, h("tr", {}, ...[...labels, ...names].map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        ...data.rows.map((/** @type {any} */ row) =>
          h(
            "tr",
            {},
            ...labels.map((key) => h("td", {}, String(row.labels[key] ?? "–"))),
            ...names.map((name) => h("td.figure", {}, row.values.find((/** @type {any} */ v) => v.name === name)?.text ?? "")),
          ),
        ),
      ),
    ),
  );
}

/** @param {any[]} groups @param {(name: string) => void} choose */
export function board(groups, choose) {
  if (!groups.length) return h("p.soft", { t: "train.no_board" });
  return h("div.boards", {}, ...groups.map((group) => ranking(group, choose)));
}

/** Runs on one kind of tasks, best first, with their intervals. @param {any} group @param {(name: string) => void} choose */
function ranking(group, choose) {
  const scale = (/** @type {any} */ row) => (row.unit === "%" ? 100 : 1);
  const ends = group.rows.flatMap((/** @type {any} */ r) => [r.mean - (r.interval ?? 0), r.mean + (r.interval ?? 0)]);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const place = (/** @type {number} */ v) => `${4 + (92 * (v - low)) / (high - low || 1)}%`;
  const rows = group.rows.map((/** @type {any} */ row, /** @type {number} */ i) => {
    const bar = h("i.interval");
    const dot = h("i.mark");
    bar.style.left = place(row.mean - (row.interval ?? 0));
    bar.style.width = `${(92 * 2 * (row.interval ?? 0)) / (high - low || 1)}%`;
    dot.style.left = place(row.mean);
    return h(
      "tr",
      {},
      h("td.rank", {}, String(i + 1)),
      h("td", {}, h("button.plain.go", { type: "button", onclick: () => choose(row.run) }, row.run), row.close ? h("span.pill", { title: t("train.close_long") }, t("train.close")) : null, row.seen_classes ? h("span.pill.stopped", {}, t("train.seen_short")) : null),
      h("td.figure", { title: String(scale(row) * row.mean) }, row.text),
      h("td.whisker", { "aria-hidden": "true" }, bar, dot),
    );
  });
  const labels = labelled(group.labels);
  return h(
    "div.wide",
    {},
    h(
      "table.ranking",
      {},
      h("caption", {}, [group.tasks, labels].filter(Boolean).join(" · "), h("span.soft.small", {}, ` ${t("train.tested_short", { split: group.split, n: group.n, seed: group.seed })}`)),
      h("thead.visually-hidden", {}, h("tr", {}, ...["rank", "run", "score", "interval"].map((key) => h("th", { scope: "col", t: `train.${key}` })))),
      h("tbody", {}, ...rows),
      h("tfoot", {}, h("tr", {}, h("td", { colspan: 4, class: "soft small" }, t(group.higher_is_better ? "train.higher" : "train.lower", { measure: group.measure })))),
    ),
  );
}
