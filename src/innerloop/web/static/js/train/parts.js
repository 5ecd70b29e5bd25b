// @ts-check
/** Small parts of the page. */

import { h } from "../dom.js";
import { t, translate } from "../text.js";
import { say } from "../shell.js";

/** A command line with a button that copies it. @param {string} [command] */
export function commandLine(command = "") {
  const code = h("code", { tabindex: "0", "data-t-label": "train.command" }, command);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      say(t("train.copied"));
    } catch {
      getSelection()?.selectAllChildren(code);
    }
  };
  const element = h("div.command", {}, code, h("button.plain", { type: "button", onclick: copy, t: "train.copy" }));
  translate(element);
  return { element, show: (/** @type {string} */ text) => (code.textContent = text) };
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return t("train.s", { n: Math.round(seconds) });
  if (seconds < 3600) return t("train.min", { n: Math.floor(seconds / 60), s: Math.round(seconds % 60) });
  return t("train.h", { n: Math.floor(seconds / 3600), m: Math.round((seconds % 3600) / 60) });
}

/** A score in words. @param {string} measure @param {number|null} score @param {number|null} [interval] */
export function scored(measure, score, interval) {
  if (score === null || score === undefined) return "";
  const percent = measure === "accuracy";
  const scale = percent ? 100 : 1;
  const digits = percent ? 1 : 3;
  const spread = interval ? `\u00a0±\u00a0${(scale * interval).toFixed(digits)}` : "";
  return `${(scale * score).toFixed(digits)}${spread}${percent ? "\u00a0%" : ""}`;
}

/** What tells settings apart, in words. @param {Record<string, any>} labels */
export const labelled = (labels) =>
  Object.entries(labels)
    .filter(([, v]) => v !== null)
    .map(([k, v]) => `${k} ${v}`)
    .join(", ");
