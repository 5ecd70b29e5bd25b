// @ts-check
/** Small helpers for elements. */

/**
 * Make an element.
 * @param {string} tag name, with classes: "div.card.wide"
 * @param {Record<string, any>} [properties] attributes; `on...` are listeners; `t` is the
 *   key of its text
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  set(element, properties);
  for (const child of children) if (child || child === "") element.append(child);
  return element;
}

/**
 * An element of SVG.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node|string)} children
 * @returns {SVGElement}
 */
export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(element, properties);
  element.append(...children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, any>} properties
 */
export function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "t") element.setAttribute("data-t", value);
    else if (value === true) element.setAttribute(name, "");
    else if (value === false) element.removeAttribute(name);
    else element.setAttribute(name, String(value));
  }
}

/** Where a pointer is held down. @type {Node|null} */
let held = null;
/** @type {Set<() => void>} */
const released = new Set();

addEventListener("pointerdown", (event) => (held = /** @type {Node} */ (event.target)), true);
for (const end of ["pointerup", "pointercancel"])
  addEventListener(
    end,
    () =>
      setTimeout(() => {
        held = null; // after the click
        const waiting = [...released];
        released.clear();
        for (const draw of waiting) draw();
      }),
    true,
  );

/**
 * Draw what is in an element: now, or once a pointer that is held down in it is released,
 * as a click on what is replaced in between would be lost.
 * @param {Element} element
 * @param {() => void} draw the same function each time
 */
export function redraw(element, draw) {
  if (held && element.contains(held)) released.add(draw);
  else draw();
}

/**
 * The latest call only: those in between are dropped while one is under way.
 * @template {any[]} A
 * @param {(...values: A) => Promise<void>} call
 * @returns {(...values: A) => Promise<void>}
 */
export function latest(call) {
  /** @type {A|null} */
  let waiting = null;
  /** @type {Promise<void>|null} */
  let running = null;
  return (...values) => {
    waiting = values;
    running ??= (async () => {
      try {
        while (waiting) {
          const next = waiting;
          waiting = null;
          await call(...next);
        }
      } finally {
        running = null;
      }
    })();
    return running;
  };
}
