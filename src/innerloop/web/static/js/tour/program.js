// @ts-check
/** A program for a column of a table, found from its first rows. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { language, t } from "../text.js";
import { button, caption, spoken } from "./plot.js";

const MOST = 12;
const PAUSE = 200; // milliseconds after a key
/** Rows, the first of them with outputs. @type {Record<string, [string, string][]>} */
const TABLES = {
  names: [["Ada Lovelace", "Lovelace, A."], ["Grace Hopper", "Hopper, G."], ["Alan Turing", ""], ["Barbara Liskov", ""], ["Katherine G. Johnson", ""]],
  doubtful: [["Ada Lovelace", "Lovelace, A."], ["Alan Turing", "Turing, A."], ["Grace Hopper", ""], ["Barbara Liskov", ""]],
  mail: [["grace.hopper@navy.mil", "Grace Hopper"], ["barbara.liskov@mit.edu", "Barbara Liskov"], ["alan.turing@cam.ac.uk", ""], ["ada.lovelace@mail.org", ""]],
  dates: [["2026-03-14", "14/03/2026"], ["2025-12-01", "01/12/2025"], ["2024-07-30", ""], ["2023-11-05", ""]],
  files: [["reports/2024/summary.pdf", "summary"], ["photos/cat.jpeg", "cat"], ["music/live/encore.mp3", ""], ["notes/todo.txt", ""]],
  prices: [["apples: $3.50 / kg", "3.50"], ["pears: $12.00 / kg", "12.00"], ["plums: $0.99 / kg", ""], ["figs: $7.25 / kg", ""]],
};
const CALL = /(\w+)\(((?:"(?:[^"\\]|\\.)*"|[^()"])*)\)/g;

/** @typedef {{program: string|null, parts: string[], rows: {parts: string[]|null, agreement: number}[], fits: string}} Found */

/** @param {HTMLElement} element */
export async function mount(element) {
  let table = "names";
  /** @type {[string, string][]} */
  let rows = TABLES.names.map((row) => [...row]);
  /** @type {Found|null} */
  let found = null;
  let timer = 0;
  const words = caption();
  const body = h("tbody");
  const code = h("ol.program", { "data-t-label": "tour.program.program" });
  const results = /** @type {HTMLElement[]} */ ([]);
  const menu = /** @type {HTMLSelectElement} */ (
    h("select", { id: "program-table", onchange: () => fill(menu.value) }, ...Object.keys(TABLES).map((name) => h("option", { value: name, t: `tour.program.${name}` })))
  );

  const ask = latest(async () => {
    element.setAttribute("aria-busy", "true");
    try {
      found = await post("tour/program", { rows: rows.map(([input, output]) => ({ input, output })) });
    } finally {
      element.removeAttribute("aria-busy");
    }
    show();
  });

  /** @param {number} [pause] */
  function change(pause = PAUSE) {
    clearTimeout(timer);
    element.setAttribute("aria-busy", "true");
    timer = window.setTimeout(() => ask().catch(complain), pause);
  }

  /** @param {string} name */
  function fill(name) {
    table = name;
    found = null;
    rows = TABLES[name].map((row) => [...row]);
    build();
    change(0);
  }

  function show() {
    results.forEach((cell, i) => {
      const row = found?.rows[i];
      const parts = row?.parts;
      const doubt = parts && row.agreement < 0.5 && !rows[i][1];
      const wrong = parts && rows[i][1] && parts.join("") !== rows[i][1];
      cell.className = `written${doubt || wrong ? " doubt" : ""}`;
      cell.replaceChildren(
        ...(parts ?? []).map((text, part) => h(`span.part.p${part % 6}`, {}, text)),
        ...(parts ? [] : [h("span.soft", {}, rows[i][0] && found?.program ? t("tour.program.nothing") : "–")]),
        ...(doubt ? [h("span.flag", { "data-t": "tour.program.unsure", title: t("tour.program.doubt") }, t("tour.program.unsure"))] : []),
      );
    });
    code.replaceChildren(
      ...(found?.parts ?? []).map((part, i) => h("li", {}, h(`code.part.p${i % 6}`, {}, part), h("span", {}, explained(part)))),
    );
    if (!found?.program) return words.say(found ? t("tour.program.none") : "");
    const given = rows.filter(([, output]) => output).length;
    words.say(t("tour.program.seen", { given, fits: large(found.fits), filled: found.rows.filter((row, i) => row.parts && !rows[i][1]).length }));
  }

  function build() {
    results.length = 0;
    body.replaceChildren(
      ...rows.map((row, i) => {
        const [input, output] = [0, 1].map((column) => {
          const key = column ? "output" : "input";
          const field = /** @type {HTMLInputElement} */ (
            h("input", { value: row[column], maxlength: 80, spellcheck: "false", autocomplete: "off", "aria-label": t(`tour.program.${key}_row`, { row: i + 1 }), placeholder: column ? "" : t("tour.program.input") })
          );
          field.addEventListener("input", () => ((row[column] = field.value), change()));
          return h("td", {}, field);
        });
        const cell = h("td.written");
        results.push(cell);
        return h("tr", {}, input, output, cell);
      }),
    );
    show();
  }

  element.classList.add("synthesis");
  element.append(
    h(
      "div.tools",
      {},
      h("label.inline", { for: "program-table" }, h("span", { t: "tour.program.table" }), menu),
      button("tour.program.add", () => rows.length < MOST && (rows.push(["", ""]), build(), /** @type {HTMLElement|null} */ (body.lastElementChild?.querySelector("input"))?.focus())),
      button("tour.reset", () => fill(table)),
    ),
    h(
      "div.scroll",
      {},
      h(
        "table.cells-table",
        {},
        h("thead", {}, h("tr", {}, ...["input", "output", "written"].map((key) => h("th", { scope: "col", t: `tour.program.${key}` })))),
        body,
      ),
    ),
    h("div.found", {}, h("h3", { t: "tour.program.program" }), code),
    words.element,
    h("p.hint.soft", { t: "tour.program.hint" }),
  );
  build();
  await ask();
  spoken(build);
}

/** How many, as 3.8 × 10^18 in words of the page. @param {string} digits */
function large(digits) {
  if (digits.length < 7) return Number(digits).toLocaleString(language === "zh" ? "zh-Hans" : "en");
  const power = [...String(digits.length - 1)].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(d)]).join("");
  return `${digits[0]}.${digits[1]} × 10${power}`;
}

/** A part of a program in words. @param {string} part */
function explained(part) {
  if (part.startsWith('"')) return t("tour.program.constant", { text: part.slice(1, -1) });
  const calls = [...part.matchAll(CALL)].map(([, name, inside]) => ({ name, values: [...inside.matchAll(/"((?:[^"\\]|\\.)*)"|[^,\s]+/g)].map((m) => m[1] ?? m[0]) }));
  const first = part.startsWith("x") ? [t("tour.program.whole")] : [];
  return [...first, ...calls.map(({ name, values }, i) => step(name, values, i > 0 || first.length > 0))].join(t("tour.comma"));
}

/** @param {string} name @param {string[]} values @param {boolean} later */
function step(name, values, later) {
  const nth = (/** @type {string} */ value) => t(`tour.program.nth.${value}`);
  const what = (/** @type {string} */ value) => (/^[A-Z]\w+$/.test(value) ? t(`tour.program.kind.${value}`) : t("tour.program.sign", { text: value === " " ? "␣" : value }));
  const shown = (/** @type {string} */ value) => (value === " " ? "␣" : value);
  const [a = "", b = "", c = "", d = "", e = "", f = ""] = values;
  const key = `tour.program.op.${later && ["token", "before", "after"].includes(name) ? "then_" : ""}${name}`;
  if (name === "span") return t(key, { from: `${nth(b)}${t("tour.program.gap")}${what(a)}`, start: t(`tour.program.${c}`), to: `${nth(e)}${t("tour.program.gap")}${what(d)}`, stop: t(`tour.program.${f}`) });
  if (["token", "before", "after"].includes(name)) return t(key, { which: `${nth(b)}${t("tour.program.gap")}${what(a)}` });
  if (name === "all") return t(key, { which: what(a) });
  return t(key, { a: shown(a), b: shown(b) });
}
