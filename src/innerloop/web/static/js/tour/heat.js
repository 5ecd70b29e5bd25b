// @ts-check
/** Canvases that are crisp, and painted again when their size or the theme changes. */

import { h } from "../dom.js";

/** @typedef {[number, number, number]} Color */

/** A color of the style sheet. @param {string} name @returns {Color} */
export function color(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const digits = value.length === 4 ? [...value.slice(1)].map((d) => d + d).join("") : value.slice(1);
  return /** @type {Color} */ ([0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16)));
}

/** @param {Color} from @param {Color} to @param {number} share @returns {Color} */
export function mixed(from, to, share) {
  const s = Math.min(1, Math.max(0, share));
  return /** @type {Color} */ (from.map((v, i) => v + (to[i] - v) * s));
}

/** @param {Color} value */
export const css = ([r, g, b]) => `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;

/**
 * @param {number} ratio height by width
 * @param {(ink: CanvasRenderingContext2D, width: number, height: number) => void} paint
 *   in CSS pixels
 * @param {Record<string, any>} [properties]
 */
export function surface(ratio, paint, properties = { role: "img" }) {
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas.surface", properties));
  canvas.style.aspectRatio = `1 / ${ratio}`;
  const redraw = () => {
    const width = canvas.clientWidth;
    if (!width) return;
    const density = window.devicePixelRatio || 1;
    const size = [Math.round(width * density), Math.round(width * ratio * density)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const ink = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    ink.setTransform(density, 0, 0, density, 0, 0);
    ink.clearRect(0, 0, width, width * ratio);
    paint(ink, width, width * ratio);
  };
  new ResizeObserver(redraw).observe(canvas);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return { canvas, redraw };
}

/**
 * A matrix as colored cells, its first row at the top.
 * @param {CanvasRenderingContext2D} ink
 * @param {number} width
 * @param {number} height
 * @param {number[][]} rows
 * @param {(value: number) => Color} shade
 * @param {number} [gap]
 */
export function cells(ink, width, height, rows, shade, gap = 1) {
  const columns = rows[0]?.length ?? 0;
  rows.forEach((row, i) => {
    const [top, bottom] = [i, i + 1].map((n) => Math.round((n * height) / rows.length));
    row.forEach((value, j) => {
      const [left, right] = [j, j + 1].map((n) => Math.round((n * width) / columns));
      ink.fillStyle = css(shade(value));
      ink.fillRect(left, top, right - left - gap, bottom - top - gap);
    });
  });
}

/** Whether things should stand still. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
