// @ts-check
/** What went wrong, in the language of the page. */

import { Refused } from "../api.js";
import { complain, say } from "../shell.js";
import { t } from "../text.js";

/** @param {unknown} error */
export function trouble(error) {
  const known = error instanceof Refused ? t(`teach.errors.${error.code}`) : "teach.";
  if (known.startsWith("teach.")) complain(error);
  else say(known, "error");
}
