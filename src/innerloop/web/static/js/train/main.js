// @ts-check
/** The page Train: start, watch and compare trainings. */

import { get, post, remove, stream } from "../api.js";
import { h, redraw } from "../dom.js";
import { complain, say, shell } from "../shell.js";
import { t, translate } from "../text.js";
import { Chart, short } from "./chart.js";
import { Form } from "./form.js";
import { commandLine } from "./parts.js";
import { active, board, detail, item, live, progress } from "./runs.js";
import { Series } from "./series.js";

const MOST_SHOWN = 8;

class Page {
  /** @param {HTMLElement} main */
  constructor(main) {
    this.main = main;
    /** @type {any[]} */
    this.runs = [];
    /** @type {any[]} */
    this.board = [];
    this.folder = "";
    /** @type {Map<string, Series>} */
    this.series = new Map();
    /** @type {Map<string, number>} the colors of the runs that are compared */
    this.shown = new Map();
    /** @type {Map<string, AbortController>} */
    this.streams = new Map();
    this.chosen = "";
    /** @type {"step"|"seconds"} */
    this.axis = "step";
    this.waiting = false;
    this.form = new Form((run) => this.begun(run), () => this.runs.map((r) => r.name));
    this.loss = new Chart(() => t("train.loss"), () => this.axisLabel());
    /** @type {Map<string, Chart>} by what is measured */
    this.validation = new Map();
    /** @type {["step"|"seconds", HTMLElement][]} */
    this.axis_buttons = (/** @type {const} */ (["step", "seconds"])).map((axis) => [
      axis,
      h("button.plain", { type: "button", t: `train.by_${axis}`, onclick: () => ((this.axis = axis), this.draw()) }),
    ]);
    this.axes = h("div.axis-choice", { role: "group", "data-t-label": "train.axis" }, ...this.axis_buttons.map(([, button]) => button));
    this.legend = h("div.key");
    this.charts = h("div.charts", {}, this.loss.element);
    this.list = h("ul.runs");
    this.detail = h("div.stack");
    this.boards = h("div.stack");
  }

  axisLabel() {
    return t(this.axis === "step" ? "train.axis_step" : "train.axis_seconds");
  }

  async open() {
    const head = h("div.lead-in", {}, h("h1", { t: "train.title" }), h("p.soft", { t: "train.lead" }));
    this.main.classList.add("train");
    this.main.append(head);
    if ((await get("trainings/allowed")).allowed) await this.refresh();
    else {
      this.main.append(off());
      translate(this.main);
      return;
    }
    this.curves = h("section.card.curves", {}, h("header", {}, h("h2", { t: "train.curves" }), this.axes), this.legend, this.charts);
    this.main.append(
      h(
        "div.columns",
        {},
        this.form.element,
        h(
          "div.results-side",
          {},
          this.curves,
          h("section.card", {}, h("header", {}, h("h2", { t: "train.runs" }), h("span.soft.small", {}, this.folder)), this.list),
          this.detail,
          h("section.card", {}, h("h2", { t: "train.leaderboard" }), this.boards),
        ),
      ),
    );
    for (const run of this.runs.filter(active)) this.show(run.name);
    if (!this.shown.size && this.runs.length) this.show(this.runs[0].name);
    this.chosen = [...this.shown.keys()][0] ?? "";
    this.draw();
    translate(this.main);
    await this.form.load();
  }

  async refresh() {
    const { runs, leaderboard, folder } = await get("trainings");
    Object.assign(this, { runs, board: leaderboard, folder });
  }

  /** A training was started. @param {any} run */
  begun(run) {
    this.runs.unshift(run);
    this.chosen = run.name;
    this.show(run.name);
    this.draw();
    say(t("train.started", { name: run.name }));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.curves?.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  }

  /** Compare a run with the others. @param {string} name */
  show(name) {
    if (this.shown.has(name)) return;
    if (this.shown.size >= MOST_SHOWN) this.hide([...this.shown.keys()].find((n) => !this.streams.has(n)) ?? [...this.shown.keys()][0]);
    const used = new Set(this.shown.values());
    this.shown.set(name, [...Array(12).keys()].find((c) => !used.has(c)) ?? 0);
    this.follow(name);
  }

  /** @param {string} name */
  hide(name) {
    this.shown.delete(name);
    this.streams.get(name)?.abort();
    this.streams.delete(name);
  }

  /** Take the events of a run until it ends. @param {string} name */
  async follow(name) {
    this.streams.get(name)?.abort();
    const control = new AbortController();
    this.streams.set(name, control);
    const series = new Series();
    this.series.set(name, series);
    let ended = false;
    let alive = false;
    try {
      await stream(
        `trainings/${name}/events`,
        undefined,
        (event) => {
          if (event.event === "status") {
            alive ||= active(event.run);
            this.runs = this.runs.map((r) => (r.name === name ? event.run : r));
          } else if (event.event === "end") ended = true;
          else series.take(event);
          this.later();
        },
        control.signal,
      );
    } catch (error) {
      if (!control.signal.aborted) complain(error);
    }
    if (this.streams.get(name) === control) this.streams.delete(name);
    if (ended && alive && !control.signal.aborted) {
      await this.refresh().catch(complain);
      this.later();
      this.form.load().catch(complain);
    }
  }

  /** @param {any} run @param {string} what @param {any} [body] */
  async act(run, what, body) {
    try {
      if (what === "delete") {
        await remove(`trainings/${run.name}`);
        this.hide(run.name);
        await this.refresh();
        this.chosen = this.runs[0]?.name ?? "";
        this.form.load().catch(complain);
      } else {
        const next = await post(`trainings/${run.name}/${what}`, body);
        this.runs = this.runs.map((r) => (r.name === run.name ? next : r));
        if (what !== "stop") {
          if (this.shown.has(run.name)) this.follow(run.name);
          else this.show(run.name);
        }
      }
    } catch (error) {
      complain(error);
    }
    this.draw();
  }

  /** Draw with the next picture of the screen. */
  later() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      this.draw();
    }, 120);
  }

  draw() {
    if (!this.curves) return;
    this.drawCurves();
    redraw(this.list, this.drawList);
    redraw(this.detail, this.drawDetail);
    redraw(this.boards, this.drawBoards);
  }

  drawBoards = () => {
    const boards = JSON.stringify(this.board) + language();
    if (this.boards.dataset.shown !== boards) {
      this.boards.dataset.shown = boards;
      this.boards.replaceChildren(board(this.board, (name) => this.choose(name)));
      translate(this.boards);
    }
  };

  /** The list is made anew only where something else than progress has changed. */
  drawList = () => {
    const state = JSON.stringify([this.runs.map((r) => [r.name, r.status, r.score]), [...this.shown], this.chosen, language()]);
    if (this.list.dataset.shown !== state) {
      this.list.dataset.shown = state;
      const run = /** @type {HTMLElement|null} */ (document.activeElement?.closest("[data-run]"))?.dataset.run;
      const items = this.runs.map((r) =>
        item(r, {
          color: this.shown.get(r.name),
          chosen: r.name === this.chosen,
          compare: (on) => (on ? this.show(r.name) : this.hide(r.name), this.draw()),
          choose: () => this.choose(r.name),
        }),
      );
      this.list.replaceChildren(...(items.length ? items : [h("li.soft.nothing", {}, t("train.no_runs"))]));
      if (run) /** @type {HTMLElement|null} */ (this.list.querySelector(`[data-run="${run}"]`))?.focus();
    }
    this.runs.forEach((r, i) => {
      const bar = this.list.children[i]?.querySelector(".bar");
      const share = 100 * progress(r, this.series.get(r.name));
      bar?.setAttribute("aria-valuenow", String(Math.round(share)));
      if (bar) /** @type {HTMLElement} */ (bar.firstChild).style.width = `${share}%`;
    });
  };

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    this.show(name);
    this.draw();
  }

  drawDetail = () => {
    const chosen = this.runs.find((r) => r.name === this.chosen);
    const series = this.series.get(this.chosen);
    const state = JSON.stringify([chosen && { ...chosen, step: 0, seconds: 0 }, series?.description, series?.notes, language()]);
    if (chosen)
      live(chosen, series).forEach((text, i) => {
        const place = this.detail.querySelector(`[data-live="${["steps", "speed"][i]}"]`);
        if (place) place.textContent = text;
      });
    if (this.detail.dataset.shown === state) return;
    const open = this.detail.querySelector("details")?.open;
    // what is typed in it stays
    if (this.detail.contains(document.activeElement) && this.detail.dataset.run === `${this.chosen} ${chosen?.status}`) return;
    Object.assign(this.detail.dataset, { shown: state, run: `${this.chosen} ${chosen?.status}` });
    this.detail.replaceChildren(...(chosen ? [detail(chosen, series, { folder: this.folder, act: (what, body) => this.act(chosen, what, body) })] : []));
    const details = this.detail.querySelector("details");
    if (open && details) details.open = true;
  };

  drawCurves() {
    const shown = [...this.shown].map(([name, color]) => ({ name, color, run: this.runs.find((r) => r.name === name), series: this.series.get(name) }));
    const some = shown.filter((s) => s.run && s.series);
    for (const [axis, button] of this.axis_buttons) button.setAttribute("aria-pressed", String(this.axis === axis));
    this.legend.replaceChildren(...some.map(({ name, color }) => h(`span.s${color}`, {}, h("i.swatch"), name)));
    this.loss.show(some.map(({ name, color, series }) => ({ name, color, smooth: (series?.stepped.size ?? 0) > 0, points: series?.losses(this.axis) ?? [] })));
    const measures = new Set(some.map((s) => s.run.measure).filter(Boolean));
    if (!measures.size) measures.add("");
    for (const [measure, chart] of this.validation) if (!measures.has(measure)) chart.element.remove(), this.validation.delete(measure);
    for (const measure of measures) {
      const percent = measure === "accuracy";
      if (!this.validation.has(measure)) {
        const chart = new Chart(
          () => (measure ? t("train.validation_of", { measure: t(`train.measure_${measure}`).replace(/^train\.measure_/, "") }) : t("train.validation")),
          () => this.axisLabel(),
          (v) => short(v) + (percent ? " %" : ""),
        );
        this.validation.set(measure, chart);
        this.charts.append(chart.element);
        translate(chart.element);
      }
      this.validation.get(measure)?.show(
        some.filter((s) => s.run.measure === measure).map(({ name, color, series }) => ({ name, color, smooth: false, points: series?.validations(this.axis, percent ? 100 : 1) ?? [] })),
      );
    }
  }

  relabel() {
    this.draw();
    this.form.draw();
  }
}

const language = () => document.documentElement.lang;

/** What to do where trainings are off. */
function off() {
  return h("section.card.off", {}, h("h2", { t: "train.off" }), h("p", { t: "train.off_how" }), commandLine("innerloop serve --allow-training").element, h("p.soft.small", { t: "train.off_why" }));
}

const page = new Page(shell());
document.addEventListener("language", () => page.relabel());
page.open().catch(complain);
