// @ts-check
/** Networks that evolve to compute exclusive or, generation by generation. */

import { stream } from "../api.js";
import { h, svg } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { cells, color, mixed, still, surface } from "./heat.js";
import { button, caption, choice, number, seed, spoken } from "./plot.js";

const GENERATIONS = 60;
const FIRST = 5; // seed
const PACE = 90; // milliseconds of a generation, at least
const [WIDTH, HEIGHT] = [320, 250];
const CORNERS = [[-1, -1, 0], [-1, 1, 1], [1, -1, 1], [1, 1, 0]];
const EXTENT = 1.6;

/**
 * @typedef {{id: number, kind: string}} Place
 * @typedef {{from: number, to: number, weight: number}} Edge
 * @typedef {{generation: number, species: number, nodes: Place[], edges: Edge[], square: number[], corners: number[], fitness: number, right: number}} Generation
 */

/** @param {HTMLElement} element */
export async function mount(element) {
  /** @type {Generation[]} */
  let past = [];
  /** @type {AbortController|null} */
  let running = null;
  let [chance, draw] = [0.2, FIRST];
  const words = caption();
  const graph = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "network", role: "img" });
  const curve = svg("polyline", { class: "fitness" });
  const chart = svg(
    "svg",
    { viewBox: "-4 -6 308 92", class: "chart", role: "img", preserveAspectRatio: "none" },
    ...[0, 0.5, 1].map((y) => svg("line", { x1: 0, x2: 300, y1: 80 - 80 * y, y2: 80 - 80 * y })),
    curve,
  );
  const value = h("b", {});
  const square = surface(1, (ink, width, height) => {
    const last = past.at(-1);
    if (!last) return;
    const side = Math.round(Math.sqrt(last.square.length));
    const rows = Array.from({ length: side }, (_, i) => last.square.slice(i * side, (i + 1) * side));
    const [zero, middle, one] = [color("c1"), color("card"), color("c0")];
    cells(ink, width, height, rows, (p) => mixed(middle, p < 0.5 ? zero : one, 0.9 * Math.abs(2 * p - 1)), 0);
    for (const [x, y, one] of CORNERS) {
      const [left, top] = [((x / EXTENT + 1) / 2) * width, ((1 - y / EXTENT) / 2) * height];
      ink.beginPath();
      ink.arc(left, top, 15, 0, 7);
      ink.fillStyle = getComputedStyle(element).getPropertyValue("--card");
      ink.fill();
      ink.fillStyle = getComputedStyle(element).color;
      ink.font = "700 16px system-ui, sans-serif";
      ink.textAlign = "center";
      ink.textBaseline = "middle";
      ink.fillText(String(one), left, top + 1);
    }
  });
  const start = h("button", { type: "button", onclick: () => (running ? stop() : run().catch(complain)) });

  function name() {
    start.textContent = t(running ? "tour.stop" : past.length > 1 ? "tour.evolution.again" : "tour.evolution.start");
  }

  function stop() {
    running?.abort();
    running = null;
    name();
  }

  function show() {
    const last = past.at(-1);
    if (!last) return;
    graph.replaceChildren(...drawn(last));
    const points = past.map(({ generation, fitness }) => [((generation - 1) * 300) / (GENERATIONS - 1), 80 - 80 * fitness]);
    curve.setAttribute("points", points.map((p) => p.join(",")).join(" "));
    value.textContent = number(last.fitness);
    square.redraw();
    const hidden = last.nodes.filter(({ kind }) => kind === "hidden").length;
    const values = { generation: last.generation, hidden, edges: last.edges.length, right: last.right, species: last.species };
    graph.setAttribute("aria-label", t("tour.evolution.graph", values));
    square.canvas.setAttribute("aria-label", t("tour.evolution.outputs", { outputs: last.corners.map((p) => number(p)).join(", ") }));
    chart.setAttribute("aria-label", t("tour.evolution.fitness") + " " + number(last.fitness));
    words.say(t(`tour.evolution.${last.right === 4 ? "solved" : "seen"}`, values));
  }

  /** @param {number} [generations] */
  async function run(generations = GENERATIONS) {
    stop();
    const mine = (running = new AbortController());
    past = [];
    name();
    /** @type {Generation[]} */
    const waiting = [];
    let ended = false;
    const showing = (async () => {
      while (!mine.signal.aborted && (waiting.length || !ended)) {
        const next = waiting.shift();
        if (next) {
          past.push(next);
          show();
        }
        await new Promise((done) => setTimeout(done, still() ? 4 * PACE : PACE));
      }
    })();
    try {
      const body = { seed: draw, add: chance, generations };
      await stream("tour/evolution", body, (event) => waiting.push(event), mine.signal);
    } finally {
      ended = true;
    }
    await showing;
    if (running === mine) running = null;
    name();
  }

  /** @param {number} next */
  function reset(next) {
    stop();
    draw = next;
    run(1).catch(complain);
  }

  let seen = false;
  const leave = new IntersectionObserver(([entry]) => {
    if (seen && !entry.isIntersecting) stop();
    seen = entry.isIntersecting;
  });
  leave.observe(element);
  element.append(
    h(
      "div.tools",
      {},
      start,
      choice("tour.evolution.mutations", [["0.2", "tour.evolution.grow"], ["0", "tour.evolution.fixed"]], (chosen) => {
        chance = Number(chosen);
        reset(draw);
      }),
      button("tour.evolution.new", () => reset(seed())),
      button("tour.reset", () => reset(FIRST)),
    ),
    h(
      "div.pair.wide",
      {},
      h("figure", {}, graph, h("figcaption", { t: "tour.evolution.best" })),
      h("figure", {}, square.canvas, h("figcaption", { t: "tour.evolution.square" })),
    ),
    h("figure", {}, h("figcaption.between", {}, h("span", { t: "tour.evolution.fitness" }), value), chart),
    words.element,
    h("p.hint.soft", { t: "tour.evolution.hint" }),
  );
  await run(1);
  spoken(() => {
    name();
    show();
  });
}

/** The network, its inputs at the left. @param {Generation} last @returns {SVGElement[]} */
function drawn({ nodes, edges }) {
  const depth = new Map(nodes.map(({ id, kind }) => [id, kind === "hidden" ? 1 : kind === "output" ? Infinity : 0]));
  const hidden = nodes.filter(({ kind }) => kind === "hidden");
  for (let pass = 0; pass < 3; pass++)
    for (const { from, to } of edges)
      if (from < to && depth.get(to) !== Infinity && depth.get(from) !== Infinity) depth.set(to, Math.max(depth.get(to) ?? 1, (depth.get(from) ?? 0) + 1));
  const most = Math.max(1, ...hidden.map(({ id }) => depth.get(id) ?? 1));
  /** @type {Map<number, [number, number]>} */
  const at = new Map();
  const columns = new Map();
  for (const node of nodes) {
    const d = depth.get(node.id) ?? 0;
    columns.set(d, [...(columns.get(d) ?? []), node.id]);
  }
  for (const [d, ids] of columns)
    ids.forEach((/** @type {number} */ id, /** @type {number} */ i) => {
      const x = d === Infinity ? WIDTH - 28 : d === 0 ? 58 : 58 + (d * (WIDTH - 86)) / (most + 1);
      at.set(id, [x, ((i + 0.5) * HEIGHT) / ids.length + (d && d !== Infinity && ids.length === 1 ? (d % 2 ? -45 : 45) : 0)]);
    });
  const lines = edges.map(({ from, to, weight }) => {
    const [[x, y], [u, v]] = [at.get(from) ?? [0, 0], at.get(to) ?? [0, 0]];
    const bend = from === to ? `C${x - 26} ${y - 34} ${x + 26} ${y - 34} ${u} ${v}` : x < u ? `L${u} ${v}` : `Q${(x + u) / 2} ${Math.max(y, v) + 50} ${u} ${v}`;
    return svg("path", {
      class: weight > 0 ? "edge up" : "edge down",
      d: `M${x} ${y}${bend}`,
      "stroke-width": Math.min(6, 0.6 + 1.5 * Math.abs(weight)).toFixed(1),
    });
  });
  const dots = nodes.flatMap(({ id, kind }) => {
    const [x, y] = at.get(id) ?? [0, 0];
    const dot = svg("circle", { class: `node ${kind === "hidden" ? "inner" : kind}`, cx: x, cy: y, r: kind === "output" ? 13 : 9 });
    if (kind === "hidden") return [dot];
    const place = kind === "output" ? { x, y: y + 30, "text-anchor": "middle" } : { x: x - 15, y: y + 4, "text-anchor": "end" };
    return [dot, svg("text", place, t(`tour.evolution.${kind}`))];
  });
  return [...lines, ...dots];
}
