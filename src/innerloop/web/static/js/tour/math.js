// @ts-check
/**
 * Equations as MathML, from a few commands of LaTeX.
 *
 * `x_i`, `x^{2}`, `\frac{a}{b}`, `\hat{y}`, `\bar{r}`, `\text{words}`; Greek letters and
 * operators are written as they are: `θ ← θ − α ∇ L(θ)`. A line break is `\\`.
 */

const SPACE = "http://www.w3.org/1998/Math/MathML";
const TOKENS = /\\[a-z]+|\\\\|\d+(?:\.\d+)?|\s+|./gu;
const ACCENTS = { "\\hat": "^", "\\bar": "¯" };
const LARGE = "∑∏";

/** @param {string} tag @param {(Node|string)[]} children */
function make(tag, children) {
  const element = document.createElementNS(SPACE, tag);
  element.append(...children);
  return element;
}

/** @param {string[]} tokens what is left, taken from its front */
function row(tokens) {
  /** @type {Element[]} */
  const found = [];
  for (let token = tokens.shift(); token !== undefined && token !== "}"; token = tokens.shift()) {
    if (!token.trim()) continue;
    if (token !== "_" && token !== "^") {
      found.push(atom(token, tokens));
      continue;
    }
    const base = found.pop() ?? make("mrow", []);
    const script = group(tokens);
    const large = LARGE.includes(base.textContent ?? "") || /^m(under|over)$/.test(base.localName);
    const tag = token === "_" ? (large ? "munder" : "msub") : large ? "mover" : "msup";
    if (base.localName === "msub" && tag === "msup") found.push(make("msubsup", [...base.children, script]));
    else if (base.localName === "munder") found.push(make("munderover", [...base.children, script]));
    else found.push(make(tag, [base, script]));
  }
  return make("mrow", found);
}

/** @param {string[]} tokens */
function group(tokens) {
  while (tokens.length && !tokens[0].trim()) tokens.shift();
  const first = tokens.shift() ?? "";
  return first === "{" ? row(tokens) : atom(first, tokens);
}

/** @param {string} token @param {string[]} tokens @returns {Element} */
function atom(token, tokens) {
  if (token === "{") return row(tokens);
  if (token === "\\frac") return make("mfrac", [group(tokens), group(tokens)]);
  if (token in ACCENTS) {
    const over = make("mover", [group(tokens), make("mo", [ACCENTS[/** @type {"\\hat"} */ (token)]])]);
    over.setAttribute("accent", "true");
    return over;
  }
  if (token === "\\text") {
    tokens.shift();
    const end = tokens.indexOf("}");
    return make("mtext", [tokens.splice(0, end + 1).slice(0, -1).join("").replaceAll(" ", "\u00a0")]);
  }
  if (token === "\\\\") return make("mspace", []);
  if (/^\d/.test(token)) return make("mn", [token]);
  if (/^\p{L}$/u.test(token)) return make("mi", [token]);
  const operator = make("mo", [token.replace("-", "−")]);
  if ("()[]{}".includes(token)) operator.setAttribute("stretchy", "false");
  return operator;
}

/**
 * @param {string} source
 * @returns {Element[]} a formula for each line
 */
export function equation(source) {
  return source.split("\\\\").map((line) => {
    const math = make("math", [row(line.match(TOKENS) ?? [])]);
    math.setAttribute("display", "block");
    return math;
  });
}
