// @ts-check
/** A bandit to play against RL squared, Thompson sampling and the Gittins index. */

import { post } from "../api.js";
import { h, latest } from "../dom.js";
import { complain } from "../shell.js";
import { t } from "../text.js";
import { button, caption, choice, number, seed, spoken } from "./plot.js";

const LETTERS = "ABCDE";
const PLAYERS = ["you", "rl2", "thompson", "gittins"];

/**
 * @typedef {{name: string, rewards: number[], actions: number[]|null, average: number}} Player
 * @typedef {{pulls: number, rewards: number[], players: Player[], means: number[]|null, best: number}} Answer
 */

/** @param {number[]} values */
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** @param {HTMLElement} element */
export async function mount(element) {
  let arms = 2;
  let game = seed();
  /** @type {number[]} */
  let actions = [];
  /** @type {Answer|null} */
  let answer = null;
  const words = caption();
  const machine = h("div.arms", { role: "group", "data-t-label": "tour.bandit.arms" });
  const left = h("p.left", {});
  const table = h("div.players", { role: "list", "data-t-label": "tour.bandit.players" });

  const ask = latest(async () => {
    const sent = [...actions];
    const found = await post("tour/bandit", { seed: game, arms, actions: sent });
    if (sent.length === actions.length) answer = found;
    show();
  });

  /** @param {number} arm */
  function pull(arm) {
    if (!answer || actions.length >= answer.pulls) return;
    actions.push(arm);
    ask().catch(complain);
  }

  function renew() {
    [game, actions] = [seed(), []];
    if (machine.children.length !== arms) machine.replaceChildren(...Array.from({ length: arms }, (_, arm) => lever(arm)));
    return ask();
  }

  /** @param {number} arm */
  function lever(arm) {
    return h(
      "button.arm",
      { type: "button", onclick: () => pull(arm) },
      h(`span.letter.c${arm}`, {}, LETTERS[arm]),
      h("span.won", { "aria-hidden": "true" }),
      h("span.track", { "aria-hidden": "true" }, h(`i.c${arm}`)),
      h("span.mean", { "aria-hidden": "true" }),
    );
  }

  /** @param {Answer} now @param {number} arm */
  function record({ rewards, means }, arm) {
    const got = rewards.filter((_, i) => actions[i] === arm);
    const [place, won] = [machine.children[arm], sum(got)];
    const [, score, track, mean] = place.children;
    const values = { arm: LETTERS[arm], won, pulls: got.length };
    const share = means ? means[arm] : got.length ? won / got.length : 0;
    score.textContent = t("tour.bandit.won", values);
    mean.textContent = means ? t("tour.bandit.mean", { percent: Math.round(100 * share) }) : got.length ? `${Math.round(100 * share)}%` : " ";
    /** @type {HTMLElement} */ (track.firstElementChild).style.transform = `scaleX(${share})`;
    place.classList.toggle("best", !!means && share === Math.max(...means));
    place.setAttribute("aria-disabled", String(means !== null)); // it keeps the focus
    place.setAttribute("aria-label", `${t("tour.bandit.pull", values)} ${means ? mean.textContent : ""}`);
  }

  /** @param {Player} player @param {number} pulls */
  function line({ name, rewards, actions: pulled, average }, pulls) {
    const cells = Array.from({ length: pulls }, (_, i) => {
      if (i >= rewards.length) return h("i.cell", {});
      const arm = pulled ? `.c${pulled[i]}` : "";
      return h(`i.cell.${rewards[i] ? "hit" : "miss"}${arm}`, {}, pulled ? LETTERS[pulled[i]] : "");
    });
    const usual = name === "you" ? "" : t("tour.bandit.average", { average: number(average, 1) });
    return h(
      "div.player",
      { role: "listitem", class: `player ${name}` },
      h("span.who", {}, t(`tour.bandit.${name}`)),
      h("span.cells", { "aria-hidden": "true" }, ...cells),
      h("b", {}, String(sum(rewards))),
      h("span.usual.soft", {}, usual),
    );
  }

  function show() {
    if (!answer) return;
    const now = answer;
    const { pulls, players, rewards, means } = now;
    for (let arm = 0; arm < arms; arm++) record(now, arm);
    const you = { name: "you", rewards, actions: [...actions], average: 0 };
    const all = [you, ...players].sort((a, b) => PLAYERS.indexOf(a.name) - PLAYERS.indexOf(b.name));
    table.replaceChildren(...all.map((player) => line(player, pulls)));
    const rest = pulls - rewards.length;
    left.textContent = rest ? t("tour.bandit.left", { left: rest }) : t("tour.bandit.over");
    const best = all.slice(1).reduce((a, b) => (sum(b.rewards) > sum(a.rewards) ? b : a));
    const values = {
      won: sum(rewards),
      pulls: rewards.length,
      arm: LETTERS[actions[rewards.length - 1] ?? 0],
      who: t(`tour.bandit.${best.name}`),
      score: sum(best.rewards),
      means: (means ?? []).map((mean, arm) => `${LETTERS[arm]} ${Math.round(100 * mean)}%`).join(t("tour.comma")),
      best: number(now.best, 1),
    };
    if (!rewards.length) words.say(t("tour.bandit.start", { pulls }));
    else if (means) words.say(t(sum(rewards) >= sum(best.rewards) ? "tour.bandit.ahead" : "tour.bandit.behind", values));
    else words.say(t(rewards[rewards.length - 1] ? "tour.bandit.hit" : "tour.bandit.miss", values));
  }

  element.append(
    h(
      "div.tools",
      {},
      choice("tour.bandit.count", [["2", "tour.bandit.two"], ["5", "tour.bandit.five"]], (value) => {
        arms = Number(value);
        renew().catch(complain);
      }),
      button("tour.bandit.new", () => renew().catch(complain)),
    ),
    left,
    machine,
    table,
    words.element,
    h("p.hint.soft", { t: "tour.bandit.hint" }),
  );
  await renew();
  spoken(show);
}
