// @ts-check
import { svg } from "../dom.js";

const PATHS = {
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  undo: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 0 12",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4z",
  folder: "M3 6h6l2 2h10v11H3z",
  save: "M12 4v11M7 10l5 5 5-5M4 20h16",
};

/** @param {keyof typeof PATHS} name */
export const icon = (name) =>
  svg("svg", { viewBox: name === "undo" ? "0 2 24 24" : "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
