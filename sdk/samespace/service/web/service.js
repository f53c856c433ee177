// Asks the service, with the visitor's key where it wants one.

const KEPT = "samespace-key";
let asking;

/** What a refused request says, in a sentence for people. */
export class Refused extends Error {}

/** The answer to a request under /v1; asks for a key once it is needed. */
export async function ask(path, { method = "GET", body, type } = {}) {
  for (;;) {
    const headers = {};
    const key = sessionStorage.getItem(KEPT);
    if (key) headers.authorization = `Bearer ${key}`;
    if (type) headers["content-type"] = type;
    let response;
    try {
      response = await fetch(path, { method, body, headers });
    } catch {
      throw new Refused("The service cannot be reached. Is it running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await newKey(key);
      continue;
    }
    throw new Refused(await reason(response));
  }
}

/** The JSON of an answer. */
export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

async function reason(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The service answered with ${response.status}.`;
  }
}

// One dialog, however many requests wait for it.
function newKey(refused) {
  if (refused !== sessionStorage.getItem(KEPT)) return undefined; // another request has one by now
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-value");
    field.value = "";
    dialog.showModal();
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem(KEPT, field.value.trim());
        asking = undefined;
        resolve();
      },
      { once: true },
    );
  });
  return asking;
}
