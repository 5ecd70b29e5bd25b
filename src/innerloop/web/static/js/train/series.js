// @ts-check
/** What the events of one run add up to. */

export class Series {
  constructor() {
    /** @type {Map<number, any>} meta-steps, by number */
    this.stepped = new Map();
    /** @type {Map<number, any>} validations, by meta-step */
    this.validated = new Map();
    this.progress = 0;
    this.expected = null;
    this.description = "";
    /** @type {string[]} */
    this.notes = [];
  }

  /** @param {any} event */
  take(event) {
    if (event.event === "started") {
      // a resumed training writes again what came after its checkpoint
      for (const map of [this.stepped, this.validated]) for (const step of [...map.keys()]) if (step > event.step) map.delete(step);
      this.description = event.description;
      this.notes = [...event.notes];
    } else if (event.event === "stepped") {
      this.stepped.set(event.step, { x: event.step, seconds: event.seconds, y: event.metrics.loss });
      this.progress = event.progress;
      this.expected = event.expected_steps ?? this.expected;
    } else if (event.event === "validated") {
      const { step, seconds, loss, validation, validation_interval } = event.line;
      this.validated.set(step, { x: step, seconds, y: validation, spread: validation_interval, loss });
    } else if (event.event === "finished") {
      this.progress = 1;
      this.notes.push(...event.notes.filter((/** @type {string} */ note) => !this.notes.includes(note)));
    }
  }

  /** @param {"step"|"seconds"} axis */
  losses(axis) {
    const points = this.stepped.size ? [...this.stepped.values()] : [...this.validated.values()].map((p) => ({ ...p, y: p.loss }));
    return placed(points, axis);
  }

  /** @param {"step"|"seconds"} axis @param {number} scale */
  validations(axis, scale) {
    const points = [...this.validated.values()].map((p) => ({ ...p, y: scale * p.y, spread: p.spread ? scale * p.spread : null }));
    return placed(points, axis);
  }

  /** Meta-steps in a second, lately. */
  get speed() {
    const last = [...this.stepped.values()].slice(-20);
    if (last.length < 2) return 0;
    const [a, b] = [last[0], last[last.length - 1]];
    return (b.x - a.x) / Math.max(1e-9, b.seconds - a.seconds);
  }
}

/** @param {any[]} points @param {"step"|"seconds"} axis */
function placed(points, axis) {
  return points
    .filter((p) => Number.isFinite(p.y))
    .map((p) => ({ x: axis === "step" ? p.x : p.seconds, y: p.y, spread: p.spread }))
    .sort((a, b) => a.x - b.x);
}
