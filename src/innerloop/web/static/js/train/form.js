// @ts-check
/** The form of a new training: its fields are the options that the flags are made from. */

import { get, post, Refused } from "../api.js";
import { h, latest } from "../dom.js";
import { t, translate } from "../text.js";
import { complain } from "../shell.js";
import { commandLine } from "./parts.js";

/** What to start with: a learner, tasks and a length that show something soon. */
const RECIPES = [
  { key: "characters", learner: "protonet", tasks: "strokes", length: { minutes: 3 } },
  { key: "sines", learner: "maml", tasks: "sinusoid", length: { steps: 2000 } },
  { key: "curves", learner: "anp", tasks: "gp-curves", length: { minutes: 5 } },
  { key: "memory", learner: "ntm", tasks: "copy", length: { minutes: 10 } },
  { key: "bandits", learner: "rl2", tasks: "bandits", length: { minutes: 5 } },
];
const TITLES = { training: "meta_training", tasks: "tasks", learner: "learner", how: "meta_gradient" };

let ids = 0;

export class Form {
  /** @param {(run: any) => void} started @param {() => string[]} taken names of runs */
  constructor(started, taken) {
    this.started = started;
    this.taken = taken;
    /** @type {any} */
    this.choices = null;
    /** @type {Record<string, any>} */
    this.values = { learner: "protonet", tasks: "strokes", meta_gradient: "" };
    /** @type {Record<string, Record<string, any>>} */
    this.options = { training: {}, tasks: {}, learner: {}, how: {} };
    this.named = false;
    this.open = new Set();
    this.body = h("div.fields");
    this.command = commandLine();
    this.problem = h("p.wrong", { role: "alert" });
    this.button = /** @type {HTMLButtonElement} */ (h("button", { type: "submit", t: "train.start" }));
    this.element = h(
      "form.card.new-training",
      { onsubmit: (/** @type {Event} */ e) => (e.preventDefault(), this.start()), "aria-labelledby": "new-training", novalidate: true },
      h("h2", { t: "train.new", id: "new-training" }),
      this.body,
      this.problem,
      this.button,
      h("p.soft.small", { t: "train.same_command" }),
      this.command.element,
    );
    this.preview = latest(() => this.check());
  }

  async load() {
    const query = new URLSearchParams({ learner: this.values.learner, tasks: this.values.tasks, meta_gradient: this.values.meta_gradient });
    this.choices = await get(`trainings/choices?${query}`);
    this.draw();
    await this.preview();
  }

  /** Another name: the options of what was named before go. @param {string} what @param {string} name */
  async choose(what, name) {
    this.values[what] = name;
    if (what === "learner") (this.options.learner = {}), (this.options.how = {}), (this.values.meta_gradient = "");
    if (what === "tasks") this.options.tasks = {};
    if (what === "meta_gradient") this.options.how = {};
    const had = document.activeElement?.id;
    await this.load().catch(complain);
    if (had) document.getElementById(had)?.focus();
  }

  /** @param {typeof RECIPES[0]} recipe */
  async follow(recipe) {
    this.values = { learner: recipe.learner, tasks: recipe.tasks, meta_gradient: "", ...recipe.length };
    this.options = { training: {}, tasks: {}, learner: {}, how: {} };
    this.named = false;
    await this.load().catch(complain);
  }

  suggestion() {
    const base = `${this.values.learner}-${this.values.tasks}`.replace(/[^A-Za-z0-9_-]/g, "").slice(0, 56);
    const taken = new Set(this.taken());
    let name = base;
    for (let n = 2; taken.has(name); n++) name = `${base}-${n}`;
    return name;
  }

  draw() {
    if (!this.choices) return;
    const { choices, values } = this;
    if (!this.named) values.name = this.suggestion();
    const recipes = RECIPES.filter((r) => choices.learners.some((/** @type {any} */ l) => l.name === r.learner));
    const how = [{ name: "", label: t("train.usual_how", { name: choices.usual_meta_gradient }) }, ...choices.meta_gradients];
    this.body.replaceChildren(
      h(
        "div.recipes",
        { role: "group", "data-t-label": "train.recipes" },
        ...recipes.map((r) =>
          h(
            "button.quiet",
            { type: "button", onclick: () => this.follow(r), t: `train.recipe_${r.key}`, "aria-pressed": String(values.learner === r.learner && values.tasks === r.tasks) },
          ),
        ),
      ),
      this.pick("learner", choices.learners),
      this.pick("tasks", choices.tasks),
      this.length(),
      this.line("train.name", this.input("name", { type: "text", value: values.name, maxlength: 64, required: true, oninput: () => (this.named = true) })),
      h(
        "div.sections",
        {},
        ...choices.sections.filter((/** @type {any} */ s) => s.part !== "how").map((/** @type {any} */ s) => this.section(s, [])),
        this.section(choices.sections.find((/** @type {any} */ s) => s.part === "how"), [
          this.line("train.meta_gradient", this.select(how, values.meta_gradient, (name) => this.choose("meta_gradient", name))),
        ]),
        this.details("run", t("train.run_options"), this.changed(["seed", "precision", "device", "init_from"]), [
          this.line("train.seed", this.input("seed", { type: "number", min: 0, max: 4294967295, step: 1, placeholder: "0", value: values.seed ?? "" })),
          this.line("train.precision", this.select(names(choices.precisions), values.precision ?? "auto", (v) => this.set("precision", v === "auto" ? undefined : v))),
          this.line("train.device", this.select(names(choices.devices), values.device ?? "cpu", (v) => this.set("device", v === "cpu" ? undefined : v))),
          this.line(
            "train.init_from",
            this.select([{ name: "", label: t("train.init_new") }, ...names(choices.starts)], values.init_from ?? "", (v) => this.set("init_from", v || undefined)),
          ),
        ]),
      ),
    );
    translate(this.body);
  }

  /** @param {string[]} keys */
  changed(keys) {
    return keys.filter((k) => this.values[k] !== undefined && this.values[k] !== "").length;
  }

  /** A named part, with what it is. @param {string} what @param {any[]} entries */
  pick(what, entries) {
    const chosen = entries.find((e) => e.name === this.values[what]);
    const text = [chosen?.summary, chosen?.predicts.length ? t("train.predicts", { what: chosen.predicts.map((/** @type {string} */ k) => t(`train.kind_${k}`)).join(t("train.comma")) }) : "", chosen?.reference];
    const input = this.select(entries, this.values[what], (name) => this.choose(what, name), true);
    input.id = `choose-${what}`;
    return h("div.part", {}, this.line(`train.${what}`, input), h("p.soft.small", {}, text.filter(Boolean).join(" · ")));
  }

  length() {
    const { values, choices } = this;
    if (values.steps === undefined && values.minutes === undefined) values.minutes = 3;
    const kind = values.steps !== undefined ? "steps" : "minutes";
    const input = this.input(kind, {
      type: "number",
      min: kind === "steps" ? 1 : 0.1,
      max: kind === "steps" ? choices.most_steps : choices.most_minutes,
      step: kind === "steps" ? 1 : "any",
      value: values[kind] ?? "",
      required: true,
    });
    const unit = this.select([{ name: "minutes", label: t("train.minutes") }, { name: "steps", label: t("train.steps") }], kind, (next) => {
      const usual = next === "steps" ? 2000 : 3;
      this.values = { ...this.values, steps: undefined, minutes: undefined, [next]: usual };
      this.draw();
      this.preview();
    });
    unit.setAttribute("data-t-label", "train.unit");
    return this.line("train.length", input, unit);
  }

  /** @param {string} key @param {...HTMLElement} inputs */
  line(key, ...inputs) {
    inputs[0].id ||= `field-${ids++}`;
    return h("div.line", {}, h("label", { for: inputs[0].id, t: key }), h("span.inputs", {}, ...inputs));
  }

  /** @param {string} name @param {Record<string, any>} properties */
  input(name, properties) {
    const { oninput, ...rest } = properties;
    const input = /** @type {HTMLInputElement} */ (h("input", rest));
    input.addEventListener("input", () => {
      oninput?.();
      const number = rest.type === "number";
      this.set(name, number ? (input.value === "" ? undefined : input.valueAsNumber) : input.value);
    });
    return input;
  }

  /** @param {any[]} entries @param {any} value @param {(name: string) => void} act @param {boolean} [families] */
  select(entries, value, act, families = false) {
    const select = /** @type {HTMLSelectElement} */ (h("select", { onchange: () => act(select.value) }));
    /** @type {Map<string, HTMLElement>} */
    const groups = new Map();
    for (const e of entries) {
      const option = h("option", { value: e.name }, e.label ?? e.name);
      if (!families) select.append(option);
      else {
        if (!groups.has(e.family)) groups.set(e.family, h("optgroup", { label: e.family }));
        groups.get(e.family)?.append(option);
      }
    }
    select.append(...groups.values());
    select.value = String(value);
    return select;
  }

  /** @param {string} name @param {any} value */
  set(name, value) {
    this.values[name] = value;
    this.preview();
  }

  /** @param {any} section @param {HTMLElement[]} before */
  section(section, before) {
    const { part, fields } = section;
    const given = Object.keys(this.options[part]).length + (part === "how" && this.values.meta_gradient ? 1 : 0);
    if (!fields.length && !before.length) return null;
    const name = section.title.split(": ")[1] ?? "";
    const title = `${t(`train.${TITLES[/** @type {keyof typeof TITLES} */ (part)]}`)}${name ? ` · ${name}` : ""}`;
    if (fields.some((/** @type {any} */ f) => f.needed && this.options[part][f.name] === undefined)) this.open.add(part);
    return this.details(part, title, given, [...before, ...fields.map((/** @type {any} */ f) => this.field(part, f))]);
  }

  /** @param {string} key @param {string} title @param {number} given @param {HTMLElement[]} children */
  details(key, title, given, children) {
    const badge = h("span.badge", {}, given ? t("train.changed", { n: given }) : "");
    const element = h("details", { open: this.open.has(key), "data-part": key }, h("summary", {}, h("span", {}, title), badge), ...children);
    element.addEventListener("toggle", () => (/** @type {HTMLDetailsElement} */ (element).open ? this.open.add(key) : this.open.delete(key)));
    return element;
  }

  /** One option. @param {string} part @param {any} f */
  field(part, f) {
    const value = this.options[part][f.name];
    /** @param {any} v undefined: the default */
    const put = (v) => {
      if (v === undefined) delete this.options[part][f.name];
      else this.options[part][f.name] = v;
      const given = Object.keys(this.options[part]).length + (part === "how" && this.values.meta_gradient ? 1 : 0);
      const badge = this.body.querySelector(`details[data-part="${part}"] .badge`);
      if (badge) badge.textContent = given ? t("train.changed", { n: given }) : "";
      this.preview();
    };
    const usual = f.default === null || f.default === "" ? t("train.auto") : f.type === "switch" ? t(f.default ? "train.yes" : "train.no") : String(f.default);
    let input;
    if (f.type === "switch" || f.type === "choice") {
      const options = f.type === "switch" ? [{ name: "true", label: t("train.yes") }, { name: "false", label: t("train.no") }] : names(f.choices);
      const first = { name: "", label: f.needed ? t("train.choose") : t("train.default", { value: usual }) };
      input = this.select([first, ...options], value === undefined ? "" : value, (v) => {
        const chosen = f.choices.find((/** @type {any} */ c) => String(c) === v);
        put(v === "" ? undefined : f.type === "switch" ? v === "true" : chosen);
      });
    } else {
      const number = f.type !== "text";
      const bounds = number ? { min: f.low, max: f.high, step: f.type === "integer" ? 1 : "any" } : { maxlength: 200 };
      const text = /** @type {HTMLInputElement} */ (h("input", { type: number ? "number" : "text", ...bounds, placeholder: usual, value: value ?? "" }));
      text.addEventListener("input", () => put(text.value === "" ? undefined : number ? text.valueAsNumber : text.value));
      input = text;
    }
    input.id = `option-${part}-${f.name}`;
    input.setAttribute("aria-describedby", `${input.id}-help`);
    const range = f.low !== null && f.high !== null ? t("train.between", { low: f.low, high: f.high }) : "";
    const from = f.from_data ? t("train.from_data", { folder: this.choices.data }) : "";
    const help = [f.help.replaceAll("`", ""), range, from].filter(Boolean).join(" ");
    return h(
      "div.option",
      {},
      h("div.line", {}, h("label", { for: input.id, title: f.flag }, f.name.replaceAll("_", " ")), h("span.inputs", {}, input)),
      h("p.soft.small", { id: `${input.id}-help` }, help),
    );
  }

  filled() {
    const { values, options } = this;
    const kept = Object.fromEntries(Object.entries(values).filter(([, v]) => v !== undefined && v !== ""));
    return { ...kept, options };
  }

  async check() {
    this.button.disabled = true;
    try {
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(this.values.name ?? "")) throw new Refused(422, "name", t("train.bad_name"));
      if (this.taken().includes(this.values.name)) throw new Refused(409, "exists", t("train.exists"));
      const { command } = await post("trainings/command", this.filled());
      this.command.show(command);
      this.problem.textContent = "";
      this.button.disabled = false;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.problem.textContent = error.message;
    }
  }

  async start() {
    if (this.button.disabled) return;
    this.button.disabled = true;
    try {
      const run = await post("trainings", this.filled());
      this.named = false;
      this.started(run);
    } catch (error) {
      complain(error);
    }
    this.draw();
    await this.preview();
  }
}

/** @param {any[]} values */
const names = (values) => values.map((v) => ({ name: String(v) }));
