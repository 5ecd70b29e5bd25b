// @ts-check
/** Calls to the server. The token comes in the address after "#", and is kept. */

const TOKEN = "innerloop.token";
const SESSION = "innerloop.session";

/** What the server refused, with its code. */
export class Refused extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function random() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

if (location.hash.length > 10 && !location.hash.startsWith("#/")) {
  localStorage.setItem(TOKEN, location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
}
if (!localStorage.getItem(SESSION)) localStorage.setItem(SESSION, random());

/** @returns {Record<string, string>} */
function headers() {
  return {
    "X-Token": localStorage.getItem(TOKEN) ?? "",
    "X-Session": localStorage.getItem(SESSION) ?? "",
  };
}

/**
 * @param {string} method
 * @param {string} path after /api/
 * @param {any} [body] JSON, or FormData
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
async function request(method, path, body, signal) {
  const all = headers();
  const form = body instanceof FormData;
  if (body !== undefined && !form) all["Content-Type"] = "application/json";
  const content = body === undefined || form ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch("/api/" + path, { method, headers: all, body: content, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "offline", "the server does not answer");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: null }));
  throw new Refused(response.status, error?.code ?? "failed", error?.message ?? response.statusText);
}

/** @param {string} path @returns {Promise<any>} */
export const get = async (path) => (await request("GET", path)).json();

/** @param {string} path @param {any} [body] @param {AbortSignal} [signal] @returns {Promise<any>} */
export const post = async (path, body, signal) => (await request("POST", path, body, signal)).json();

/** @param {string} path @param {any} body @returns {Promise<any>} */
export const patch = async (path, body) => (await request("PATCH", path, body)).json();

/** @param {string} path @returns {Promise<any>} */
export const remove = async (path) => (await request("DELETE", path)).json();

/** @param {string} path @param {any} [body] @returns {Promise<Blob>} */
export async function blob(path, body) {
  return (await request(body === undefined ? "GET" : "POST", path, body)).blob();
}

/**
 * Server-sent events: `receive` is called for each; the promise ends with the stream.
 * @param {string} path
 * @param {any} body what is posted; undefined: GET
 * @param {(event: any) => void} receive
 * @param {AbortSignal} [signal]
 */
export async function stream(path, body, receive, signal) {
  const response = await request(body === undefined ? "GET" : "POST", path, body, signal);
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const data = part.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
      if (data === undefined) continue;
      if (part.startsWith("event: error")) throw new Refused(422, "failed", JSON.parse(data).message);
      receive(JSON.parse(data));
    }
  }
}
