// @ts-check
/** The project that is open, and what is done to it. One change at a time. */

import { get, patch, post, remove } from "../api.js";
import { t } from "../text.js";
import { trouble } from "./trouble.js";

/**
 * @typedef {{name: string, title: string, kind: "drawing"|"image"|"text"|"row", ready: boolean,
 *   note: string, missing?: string}} Model
 * @typedef {{id: string, text: string|null, picture: boolean}} Example
 * @typedef {{id: string, name: string, examples: Example[]}} TaughtClass
 * @typedef {{id: string, name: string, model: string, kind: Model["kind"], saved: boolean,
 *   folder: string, classes: TaughtClass[], can_undo: boolean, examples: number,
 *   version: number}} Project
 * @typedef {{strokes: number[][][]}} Drawing
 */

const LAST = "innerloop.projects"; // by model; and "": the model used last
const COLORS = 12;

/** "models": they are known; "project": another one is open; "change": it has changed;
 * "busy": `pending` has changed. */
export const events = new EventTarget();

/** @type {Model[]} */
export let models = [];
/** @type {Project|null} */
export let project = null;
/** Changes that are not answered yet. */
export let pending = 0;

/** @type {Promise<any>} */
let queue = Promise.resolve();
/** @type {Map<string, number>} */
let colors = new Map();
/** Changes since a project was made here: the two empty classes are not undone.
 * @type {Map<string, number>} */
const depths = new Map();

/** @returns {Record<string, string>} */
function remembered() {
  try {
    return JSON.parse(localStorage.getItem(LAST) ?? "{}");
  } catch {
    return {};
  }
}

/** @param {Project} state */
function show(state) {
  const before = project;
  const other = before?.id !== state.id;
  project = state;
  if (other) colors = new Map();
  for (const { id } of state.classes) {
    if (colors.has(id)) continue;
    const used = new Set(state.classes.map((c) => colors.get(c.id)));
    const free = [...Array(COLORS).keys()].find((color) => !used.has(color));
    colors.set(id, free ?? colors.size % COLORS);
  }
  const last = remembered();
  if (before && other && !before.examples) {
    delete last[before.model]; // nothing is in it
    remove(`projects/${before.id}`).catch(() => {});
  }
  localStorage.setItem(LAST, JSON.stringify({ ...last, [state.model]: state.id, "": state.model }));
  if (other) events.dispatchEvent(new Event("project"));
  events.dispatchEvent(new Event("change"));
}

/** The color of a class. @param {string} id */
export const colorOf = (id) => `var(--c${colors.get(id) ?? 0})`;

/** @param {string} id @returns {TaughtClass|undefined} */
export const classOf = (id) => project?.classes.find((c) => c.id === id);

/** Classes that have examples. */
export const taught = () => project?.classes.filter((c) => c.examples.length) ?? [];

/** @returns {Model|undefined} */
export const model = () => models.find((m) => m.name === project?.model);

/**
 * Runs after all that was begun before. An error is shown; then the result is undefined.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T|undefined>}
 */
function alone(work) {
  pending += 1;
  events.dispatchEvent(new Event("busy"));
  const result = queue.then(work).catch(trouble);
  queue = result.finally(() => {
    pending -= 1;
    events.dispatchEvent(new Event("busy"));
  });
  return /** @type {Promise<T|undefined>} */ (result);
}

/** @param {string} model @param {string} [name] */
async function fresh(model, name) {
  let state = await post("projects", { model, name: name ?? t("teach.project.untitled") });
  for (let i = state.classes.length; i < 2; i++) state = await addClassTo(state);
  depths.set(state.id, 0);
  return state;
}

/** @param {Project} state @returns {Promise<Project>} */
function addClassTo(state) {
  const names = new Set(state.classes.map((c) => c.name));
  let number = state.classes.length + 1;
  while (names.has(t("teach.class.number", { number }))) number += 1;
  return post(`projects/${state.id}/classes`, { name: t("teach.class.number", { number }) });
}

/** The models, and the project of the last visit. */
export const start = () =>
  alone(async () => {
    const listed = get("models").then((found) => {
      models = found.models;
      events.dispatchEvent(new Event("models"));
    });
    const last = remembered()[""];
    await Promise.all([listed, last && reopen(last).catch(() => null)]);
    const ready = models.find((m) => m.ready && m.kind === "drawing") ?? models.find((m) => m.ready);
    if (!project && ready) await reopen(ready.name);
  });

/** @param {string} model */
async function reopen(model) {
  const id = remembered()[model];
  const state = id ? await get(`projects/${id}`).catch(() => null) : null;
  show(state?.model === model ? state : await fresh(model));
}

/** Teach with another model: its last project, or a new one. @param {string} model */
export const choose = (model) => alone(async () => project?.model === model || reopen(model));

/** @param {string} id */
export const open = (id) => alone(async () => show(await get(`projects/${id}`)));

/** @param {string} model */
export const create = (model) => alone(async () => show(await fresh(model)));

/** @param {File} file */
export const openFile = (file) =>
  alone(async () => {
    const form = new FormData();
    form.append("file", file);
    show(await post("projects/open", form));
    return true;
  });

/** @param {string} id */
export const discard = (id) =>
  alone(async () => {
    const { model, id: current } = project ?? {};
    await remove(`projects/${id}`);
    if (id !== current || !model) return true;
    project = null;
    show(await fresh(model));
    return true;
  });

/**
 * Change the project that is open when this is called.
 * @param {(base: string, state: Project) => Promise<any>} work returns a state, or
 *   {state, refused}
 */
function change(work) {
  const id = project?.id;
  return alone(async () => {
    if (!project || project.id !== id) return undefined;
    const result = await work(`projects/${id}`, project);
    depths.set(project.id, (depths.get(project.id) ?? Infinity) + 1);
    if (project.id === id) show(result.state ?? result);
    return result;
  });
}

/** @param {string} name */
export const rename = (name) => change((base) => patch(base, { name }));
export const addClass = () => change((_, state) => addClassTo(state));
/** @param {string} id @param {string} name */
export const renameClass = (id, name) => change((base) => patch(`${base}/classes/${id}`, { name }));
/** @param {string} id */
export const removeClass = (id) => change((base) => remove(`${base}/classes/${id}`));
/** @param {string} id */
export const removeExample = (id) => change((base) => remove(`${base}/examples/${id}`));
export const canUndo = () => !!project?.can_undo && depths.get(project.id) !== 0;
export const undo = () =>
  change(async (base, { id }) => {
    if (!canUndo()) return { ...project };
    const state = await post(`${base}/undo`);
    depths.set(id, (depths.get(id) ?? Infinity) - 2); // and 1 more for this change
    return state;
  });

/**
 * @param {string} id of the class
 * @param {{drawings: Drawing[]}|{texts: string[]}|{rows: number[][]}|FormData} examples
 * @returns {Promise<{state: Project, refused: {name: string, message: string}[]}|undefined>}
 */
export const addExamples = (id, examples) => change((base) => post(`${base}/classes/${id}/examples`, examples));
