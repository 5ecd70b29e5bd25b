// @ts-check
/** Files a person picks, drops or pastes, and files that are saved. */

import { h } from "../dom.js";
import { say } from "../shell.js";
import { t } from "../text.js";

export const PICTURES = "image/*";
const READABLE = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
export const TEXTS = ".csv,text/csv";
const LARGE = 1_500_000; // bytes; larger pictures are made smaller before they are sent
const SIDE = 1024;
export const BATCH = 16;

/** @param {File} file */
export const isPicture = (file) => file.type.startsWith("image/");
/** @param {File} file */
export const isTable = (file) => /\.(csv|txt)$/i.test(file.name);

/**
 * @param {string} accept
 * @param {{multiple?: boolean, folder?: boolean}} [options]
 * @returns {Promise<File[]>}
 */
export function pick(accept, { multiple = true, folder = false } = {}) {
  return new Promise((resolve) => {
    const input = /** @type {HTMLInputElement} */ (
      h("input.hidden", { type: "file", accept: folder ? null : accept, multiple, webkitdirectory: folder })
    );
    const done = () => {
      input.remove();
      resolve([...(input.files ?? [])].filter((file) => !file.name.startsWith(".")));
    };
    input.addEventListener("change", done);
    input.addEventListener("cancel", done);
    document.body.append(input);
    input.click();
  });
}

/** @param {any} entry of a file system @returns {Promise<File[]>} */
async function inEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((good, bad) => entry.file(good, bad));
    paths.set(file, entry.fullPath.replace(/^\//, ""));
    return [file];
  }
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!some.length) return files;
    for (const each of some) if (!each.name.startsWith(".")) files.push(...(await inEntry(each)));
  }
}

/** All files of a drop, those in folders too. @param {DataTransfer|null} data @returns {Promise<File[]>} */
export async function dropped(data) {
  if (!data) return [];
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...data.files];
  return (await Promise.all(entries.map(inEntry))).flat();
}

/**
 * Let files be dropped on an element.
 * @param {HTMLElement} element
 * @param {(files: File[]) => void} receive
 */
export function droppable(element, receive) {
  let depth = 0;
  const over = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    element.classList.toggle("over", depth > 0);
  };
  element.addEventListener("dragenter", (event) => (event.preventDefault(), over(1)));
  element.addEventListener("dragleave", () => over(-1));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    over(-depth);
    const files = await dropped(event.dataTransfer);
    if (files.length) receive(files);
  });
}

/** A picture that is small enough, and of a format that the server reads. @param {File} file @returns {Promise<File>} */
export async function prepared(file) {
  if (!isPicture(file) || (file.size < LARGE && READABLE.includes(file.type))) return file;
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = /** @type {HTMLCanvasElement} */ (
      h("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) })
    );
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    return blob ? new File([blob], file.name, { type: "image/jpeg" }) : file;
  } catch {
    return file; // the server says what is wrong with it
  }
}

/** @type {WeakMap<File, string>} */
const paths = new WeakMap();

/** Where a file is in the folder that was chosen. @param {File} file */
export const path = (file) => paths.get(file) ?? (file.webkitRelativePath || file.name);

/** @param {File[]} files @param {File[]} [named] the files whose names they have */
export function form(files, named = files) {
  const all = new FormData();
  files.forEach((file, i) => all.append("file", file, path(named[i])));
  return all;
}

/** @param {{name: string, message: string}[]} refused */
export function sayRefused(refused) {
  if (refused.length === 1) say(t("teach.refused.one", refused[0]), "error");
  else if (refused.length) say(t("teach.refused.many", { count: refused.length, ...refused[0] }), "error");
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = /** @type {HTMLAnchorElement} */ (h("a", { href: URL.createObjectURL(blob), download: name }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @type {Map<HTMLElement, (files: File[]) => void>} */
const targets = new Map();

/**
 * Pictures that are pasted go to the element under the pointer or with the focus, or else
 * to the element that was registered last.
 * @param {HTMLElement} element
 * @param {(files: File[]) => void} receive
 */
export function pasteable(element, receive) {
  for (const old of targets.keys()) if (!old.isConnected) targets.delete(old);
  targets.set(element, receive);
}

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter(isPicture);
  const there = [...targets.keys()].filter((element) => element.isConnected);
  const found = there.find((e) => e.matches(":focus-within")) ?? there.find((e) => e.matches(":hover")) ?? there.pop();
  if (!files.length || !found) return;
  event.preventDefault();
  targets.get(found)?.(files);
});

// A file that misses its place must not replace the page.
for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
