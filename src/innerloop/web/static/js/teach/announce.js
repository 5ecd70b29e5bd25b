// @ts-check
/** Words for screen readers only. */

import { h } from "../dom.js";

export const region = h("div.visually-hidden", { role: "status", "aria-live": "polite", id: "announcer" });

/** @type {number|undefined} */
let timer;

/** Say it once nothing else was said for a moment. @param {string} text @param {number} [wait] */
export function announce(text, wait = 120) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (region.textContent !== text) region.textContent = text;
  }, wait);
}

document.addEventListener("language", () => {
  clearTimeout(timer);
  region.textContent = "";
});
