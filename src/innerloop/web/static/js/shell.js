// @ts-check
/** What all pages share: the header, messages, and the switches. */

import { h } from "./dom.js";
import { Refused } from "./api.js";
import { switchLanguage, t, translate } from "./text.js";

const THEME = "innerloop.theme";
const PAGES = { teach: "/", tour: "/learn", train: "/train" };

const messages = h("div.messages", { role: "status", "aria-live": "polite" });

/**
 * Show a message for some seconds.
 * @param {string} text
 * @param {"info"|"error"} [kind]
 * @param {{label: string, act: () => void}} [action] a button on it
 */
export function say(text, kind = "info", action) {
  const close = () => element.remove();
  const button = action && h("button.plain", { onclick: () => (close(), action.act()) }, action.label);
  const element = h(`div.message.${kind}`, {}, h("span", {}, text), button);
  messages.append(element);
  setTimeout(close, kind === "error" ? 9000 : 5000);
}

/** @param {unknown} error */
export function complain(error) {
  if (error instanceof Refused) {
    const known = t(`errors.${error.code}`);
    say(known === `errors.${error.code}` ? error.message : known, "error");
  } else if (!(error instanceof DOMException && error.name === "AbortError")) {
    console.warn(error);
    say(t("errors.failed"), "error");
  }
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return localStorage.getItem(THEME) ?? (dark ? "dark" : "light");
}

function switchTheme() {
  localStorage.setItem(THEME, theme() === "dark" ? "light" : "dark");
  document.documentElement.dataset.theme = theme();
}

/**
 * Put the header and a main element into the page.
 * @returns {HTMLElement} the main element
 */
export function shell() {
  document.documentElement.dataset.theme = theme();
  const here = document.body.dataset.page;
  const links = Object.entries(PAGES).map(([name, path]) =>
    h("a", { href: path, t: `shell.${name}`, "aria-current": name === here ? "page" : null }),
  );
  const main = h("main", { id: "main" });
  document.body.append(
    h("a.skip", { href: "#main", t: "shell.skip" }),
    h(
      "header.top",
      {},
      h("a.brand", { href: "/" }, h("img", { src: "/static/icon.svg", alt: "", width: 28, height: 28 }), "innerloop"),
      h("nav", { "data-t-label": "shell.pages" }, ...links),
      h("button.plain", { onclick: switchLanguage, t: "shell.language", id: "language" }),
      h("button.plain.theme", { onclick: switchTheme, "data-t-label": "shell.theme", "data-t-title": "shell.theme" }, "◐"),
    ),
    main,
    h("footer", {}, h("span", { t: "shell.local" })),
    messages,
  );
  translate();
  return main;
}
