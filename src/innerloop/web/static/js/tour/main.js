// @ts-check
/**
 * A course in nine chapters. Each has three sentences, an equation and a live picture,
 * which js/tour/NAME.js puts into the page when its chapter is near:
 * `export async function mount(element)`, with its own texts and listeners.
 */

import { shell } from "../shell.js";
import { h } from "../dom.js";
import { t, translate } from "../text.js";
import { equation } from "./math.js";

const CHAPTERS = [
  "prototypes",
  "sinusoid",
  "process",
  "bandit",
  "memory",
  "optimizer",
  "program",
  "imagine",
  "evolution",
];
const NEAR = "600px 0px"; // of the window, where a picture is loaded

/** Keeps what stands in braces in a text. @type {Record<string, any>} */
const BRACES = new Proxy({}, { get: (_, name) => `{${String(name)}}` });

/** @param {string} name */
const address = (name) => `#/${name}`;

/** @type {Map<Element, string>} */
const waiting = new Map();

/** @param {string} name @param {Element} place */
async function load(name, place) {
  place.replaceChildren(h("p.loading.soft", { t: "tour.loading" }));
  translate(place);
  const inside = h("div.live");
  try {
    const piece = await import(`./${name}.js`);
    await piece.mount(inside);
    place.replaceChildren(inside);
    translate(inside);
  } catch (error) {
    console.warn(error);
    const again = h("button.quiet", { t: "tour.again", onclick: () => load(name, place) });
    place.replaceChildren(h("div.loading", {}, h("p", { t: "tour.missing" }), again));
    translate(place);
  }
  place.setAttribute("aria-busy", "false");
}

/** @param {string} name @param {number} index */
function chapter(name, index) {
  const place = h("div.card.picture", { "aria-busy": "true" }, h("p.loading.soft", { t: "tour.loading" }));
  waiting.set(place, name);
  const words = ["p1", "p2", "p3"].map((part) => h("p", { t: `tour.${name}.${part}` }));
  return h(
    "section.chapter",
    { id: address(name).slice(1), "aria-labelledby": `title-${name}`, tabindex: -1 },
    h(
      "div.words",
      {},
      h("span.number", { "aria-hidden": "true" }, String(index + 1)),
      h("h2", { id: `title-${name}`, t: `tour.${name}.title` }),
      ...words,
      h("div.equation", { "data-equation": `tour.${name}.equation`, tabindex: 0, role: "group", "data-t-label": "tour.formula" }),
    ),
    place,
  );
}

function contents() {
  const entries = CHAPTERS.map((name, index) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: address(name), "data-chapter": name },
        h("span.number", { "aria-hidden": "true" }, String(index + 1)),
        h("span", { t: `tour.${name}.title` }),
      ),
    ),
  );
  return h("nav.contents", { "data-t-label": "tour.contents" }, h("ol", {}, ...entries));
}

function equations() {
  for (const place of document.querySelectorAll("[data-equation]"))
    place.replaceChildren(...equation(t(place.getAttribute("data-equation") ?? "", BRACES)));
}

/** @param {HTMLElement} list @param {string} name */
function mark(list, name) {
  for (const link of list.querySelectorAll("a")) {
    const here = link.dataset.chapter === name;
    if (!here) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      const strip = /** @type {HTMLElement} */ (list.firstElementChild);
      strip.scrollTo({ left: link.offsetLeft - strip.clientWidth / 2 + link.offsetWidth / 2 });
    }
  }
}

function start() {
  const main = shell();
  const list = contents();
  const sections = CHAPTERS.map(chapter);
  main.append(
    h("div.intro", {}, h("h1", { t: "tour.title" }), h("p.lead", { t: "tour.lead" })),
    h("div.course", {}, list, h("div.chapters", {}, ...sections)),
  );
  translate(main);
  equations();
  document.addEventListener("language", equations);

  const loader = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const name = waiting.get(target);
        if (!isIntersecting || name === undefined) continue;
        waiting.delete(target);
        loader.unobserve(target);
        load(name, target);
      }
    },
    { rootMargin: NEAR },
  );
  for (const place of waiting.keys()) loader.observe(place);

  const reader = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) mark(list, target.id.slice(1));
    },
    { rootMargin: "-35% 0px -60% 0px" },
  );
  for (const section of sections) reader.observe(section);
  mark(list, CHAPTERS[0]);
  if (location.hash.startsWith("#/")) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
