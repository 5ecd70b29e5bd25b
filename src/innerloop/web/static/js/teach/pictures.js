// @ts-check
/** The pictures of examples. They need the token, so they are fetched and kept. */

import { blob, Refused } from "../api.js";
import { project } from "./store.js";

const AT_ONCE = 4;
/** @type {Map<string, Promise<string>>} */
const kept = new Map();
/** @type {(() => void)[]} */
const waiting = [];
let running = 0;

/** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
async function limited(work) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(() => resolve(null)));
  running += 1;
  try {
    return await work();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

/** @param {string} path @returns {Promise<Blob>} */
async function patient(path) {
  for (;;) {
    try {
      return await blob(path);
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== "rate") throw error;
      await new Promise((resolve) => setTimeout(resolve, 800));
    }
  }
}

/** The address of an example's picture. @param {string} example @returns {Promise<string>} */
export function picture(example) {
  const path = `projects/${project?.id}/examples/${example}/picture`;
  let found = kept.get(path);
  if (!found) {
    found = limited(async () => URL.createObjectURL(await patient(path)));
    found.catch(() => kept.delete(path));
    kept.set(path, found);
  }
  return found;
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    const image = /** @type {HTMLImageElement} */ (target);
    picture(image.dataset.example ?? "").then(
      (url) => (image.src = url),
      () => {},
    );
  }
}, { rootMargin: "200px" });

/** Fetched once it is near the window. @param {HTMLImageElement} image @param {string} example */
export function show(image, example) {
  image.dataset.example = example;
  seen.observe(image);
}
