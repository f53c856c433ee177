// The visitor's key: asked for once it is needed, kept until the tab is closed.

import { element } from "./dom.js";
import { Refused } from "./refused.js";

/** Where the key is kept. */
export const KEPT = "samespace-key";

let asking;

/**
 * Ask for a key that is not `refused`; one dialog, however many requests wait for it.
 *
 * @throws Refused, `cancelled`, where the visitor would rather not.
 */
export function newKey(refused) {
  const kept = sessionStorage.getItem(KEPT);
  if (refused !== kept) return undefined; // another request has one by now
  asking ??= enter(Boolean(kept)).finally(() => {
    asking = undefined;
  });
  return asking;
}

/** Let the visitor change the key whenever he wants to; whether he did. */
export async function changeKey() {
  try {
    await (asking ?? enter(false));
    return true;
  } catch {
    return false;
  }
}

function enter(wrong) {
  const dialog = element("key");
  const field = element("key-value");
  element("key-wrong").hidden = !wrong;
  field.value = "";
  dialog.returnValue = ""; // as Escape leaves it
  dialog.showModal();
  field.focus();
  return new Promise((resolve, reject) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = field.value.trim();
        field.value = "";
        if (dialog.returnValue !== "use" || !key) return reject(new Refused("cancelled"));
        sessionStorage.setItem(KEPT, key);
        element("change-key").hidden = false;
        return resolve();
      },
      { once: true },
    );
  });
}
