// @ts-check
/** The words of the page in the language that was chosen. */

const LANGUAGES = ["en", "zh"];
const KEPT = "innerloop.language";

/** @type {Record<string, any>} */
let words = {};

const usual = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
export let language = localStorage.getItem(KEPT) ?? usual;
if (!LANGUAGES.includes(language)) language = "en";

/**
 * The text of a key such as "teach.add", with {names} replaced by values.
 * @param {string} key
 * @param {Record<string, any>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const found = key.split(".").reduce((/** @type {any} */ w, part) => w?.[part], words);
  if (typeof found !== "string") return key;
  return found.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/**
 * Set the texts of all elements inside `root` with data-t, data-t-label (aria-label),
 * data-t-title and data-t-placeholder.
 * @param {ParentNode} [root]
 */
export function translate(root = document) {
  const targets = { "data-t-label": "aria-label", "data-t-title": "title", "data-t-placeholder": "placeholder" };
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.getAttribute("data-t") ?? "");
  for (const [from, to] of Object.entries(targets))
    for (const element of root.querySelectorAll(`[${from}]`)) element.setAttribute(to, t(element.getAttribute(from) ?? ""));
}

async function load() {
  const response = await fetch(`/static/text/${language}.json`);
  words = await response.json();
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
}

/** Switch to the next language; a "language" event tells the page. */
export async function switchLanguage() {
  language = LANGUAGES[(LANGUAGES.indexOf(language) + 1) % LANGUAGES.length];
  localStorage.setItem(KEPT, language);
  await load();
  translate();
  document.dispatchEvent(new Event("language"));
}

await load();
