// Asks the service, with the visitor's key where it wants one.

import { KEPT, newKey } from "./keys.js";
import { Refused } from "./refused.js";

/** The answer to a request, and when it was last sent; asks for a key once it is needed. */
export async function ask(path, { method = "GET", body, type } = {}) {
  for (;;) {
    const headers = {};
    const key = sessionStorage.getItem(KEPT);
    if (key) headers.authorization = `Bearer ${key}`;
    if (type) headers["content-type"] = type;
    const began = performance.now();
    let response;
    try {
      response = await fetch(path, { method, body, headers });
    } catch {
      throw new Refused("unreachable");
    }
    if (response.ok) return { response, began };
    if (response.status !== 401) throw await refusal(response);
    await newKey(key);
  }
}

/** The JSON of an answer, and the milliseconds that it took: time spent on a key left out. */
export async function askTimed(path, options) {
  const { response, began } = await ask(path, options);
  try {
    const value = await response.json();
    return { value, took: performance.now() - began };
  } catch {
    throw new Refused("unreachable");
  }
}

/** The JSON of an answer. */
export async function askJson(path, options) {
  return (await askTimed(path, options)).value;
}

async function refusal(response) {
  const wait = Number(response.headers.get("retry-after"));
  try {
    const { reason, detail, request_id: id } = await response.json();
    return new Refused(reason, detail, { wait, id });
  } catch {
    // Not the service, but something before it.
    return new Refused("internal", `HTTP status ${response.status}`, { wait });
  }
}
