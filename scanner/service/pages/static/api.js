// The service's JSON API: `get` one answer, say in a sentence what went wrong.

import { h, root } from "./dom.js";

/** What the service answered instead: `status` is HTTP's, 0 where there was no answer; `message` is a sentence. */
class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The address of an API route with its query; empty values are left out. */
export const address = (path, query = {}) => {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(kept).toString();
  return `${root}/api/v1/${path}${text ? `?${text}` : ""}`;
};

/** A candidate's id as a part of an address: its slashes stay, all else is escaped. */
export const idPath = (id) => id.split("/").map(encodeURIComponent).join("/");

export const candidateHref = (slug, id) => `${root}/c/${encodeURIComponent(slug)}/candidates/${idPath(id)}`;

/** Fetch JSON; throws a ServiceError, or an AbortError where `signal` was aborted. */
export const get = (path, query = {}, signal = undefined) => ask(address(path, query), { signal });

/** Write: POST or PUT JSON, and what the service answers. */
export const send = (method, path, body = undefined) =>
  ask(address(path), { method, headers: { "Content-Type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body) });

/** POST a file, as it is. */
export const upload = (path, file, type) => ask(address(path), { method: "POST", headers: { "Content-Type": type }, body: file });

const LONGEST_WAIT_S = 10;

const ask = async (where, { headers = {}, ...options }, left = 2) => {
  let answer;
  try {
    // Not through the browser's cache: it makes a request wait for an aborted one of the same address.
    answer = await fetch(where, { cache: "no-store", headers: { Accept: "application/json", ...headers }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer.json();
  // Too many at once: the service says when to come again. Reading twice does no harm.
  const wait = Number(answer.headers.get("Retry-After"));
  if (!options.method && left > 0 && (answer.status === 429 || answer.status === 503) && wait > 0 && wait <= LONGEST_WAIT_S) {
    await new Promise((resolve) => { setTimeout(resolve, 1000 * wait); });
    return ask(where, { headers, ...options }, left - 1);
  }
  throw new ServiceError(answer.status, await sentence(answer));
};

const sentence = async (answer) => {
  let said = null;
  try { said = await answer.json(); } catch { /* no JSON: the status must do */ }
  const detail = said?.error?.message ?? said?.message ?? said?.detail;
  if (typeof detail === "string" && detail) return detail;
  if (Array.isArray(detail) && detail[0]?.msg) return `${detail[0].loc?.at(-1) ?? "The request"}: ${detail[0].msg}.`;
  if (answer.status === 429) return "Too many requests at once; wait a moment.";
  return `The service answered with status ${answer.status}.`;
};

/** A line for the reader in place of what could not be loaded, with a button to try again. */
export const problem = (error, again) =>
  h("p", { class: "problem", role: "alert" }, `${error.message} `, again ? h("button", { type: "button", onclick: again }, "Try again") : null);
