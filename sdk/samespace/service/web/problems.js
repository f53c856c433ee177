// What went wrong, in words that a visitor can act on.

import { changeKey } from "./keys.js";
import { element, make } from "./dom.js";

const AGAIN = "Try again";
const OTHER_KEY = "Use another key";

const WORDS = {
  unreachable: () => [
    "The service does not answer.",
    "It may be restarting, or this device is offline. Check the connection, then try again.",
    AGAIN,
  ],
  cancelled: () => [
    "This gallery asks for a key.",
    "Without one nothing can be searched or shown. Whoever runs the gallery gives you one.",
    "Enter a key",
  ],
  "no-scope": () => [
    "This key may not read.",
    "It was made for something else. Ask for a key with the scope “read”.",
    OTHER_KEY,
  ],
  "too-many-requests": ({ wait }) => [
    "Too many searches in a short time.",
    `Wait ${wait > 1 ? `${wait} seconds` : "a second"}, then try again.`,
    AGAIN,
  ],
  "too-much-at-once": busy,
  "gallery-busy": busy,
  "not-ready": busy,
  "request-timeout": () => [
    "The service took too long.",
    "It has much to do at the moment. Wait a little, then try again.",
    AGAIN,
  ],
  "slow-body": () => [
    "The picture took too long to arrive.",
    "Use a smaller picture or a faster connection, or switch the comparison off: then only the vector is sent.",
    AGAIN,
  ],
  "body-too-large": tooLarge,
  "picture-too-large": tooLarge,
  "picture-unreadable": () => [
    "The server cannot read this file.",
    "Use a JPEG, PNG or WebP picture, or switch the comparison off.",
  ],
  "not-certified": () => [
    "The gallery does not accept this model’s vectors.",
    "Whoever runs the service has to admit its certificate: samespace gallery admit. The page Models lists the models that are accepted.",
  ],
  "wrong-width": () => [
    "This page’s model does not fit the gallery.",
    "Its vectors have another width. Whoever runs the service has to name a bundle of the gallery’s space with --page.",
  ],
  "foreign-page": () => [
    "The service was asked by another name than its own.",
    "Open this page at http://localhost or http://127.0.0.1, or ask for a key to be made.",
  ],
};

const KINDS = {
  DecodeError: (error, file) => [
    `${file?.name ? `“${file.name}”` : "This"} is not a picture that this browser can read.`,
    "It is of another kind, or damaged. Use a JPEG, PNG or WebP picture.",
  ],
  ImageTooLargeError: (error) => ["The picture is too large.", error.message],
  Insecure: () => [
    "Pictures cannot be embedded here, because this page was not opened over https.",
    "Open it by its https address, or at localhost on the machine that serves it.",
  ],
  BundleError: () => [
    "The model could not be fetched.",
    "The service may be restarting, or this device is offline. Check the connection, then try again.",
    AGAIN,
  ],
  BundleTamperedError: (error) => [
    "The model is not the one that was exported, so it is not run.",
    error.message,
    AGAIN,
  ],
  DepartingGraphError: (error) => [
    "This browser computes other vectors than the model should, so they would find other things.",
    `Use another browser, or show whoever runs the service this: ${error.message}`,
  ],
  BundleFormatError: (error) => ["The page’s model cannot be used.", error.message, AGAIN],
  RuntimeUnavailableError: (error) => [
    "This browser cannot run the model.",
    `Use a current Chrome, Edge, Firefox or Safari. (${error.message})`,
    AGAIN,
  ],
};

function busy() {
  return ["The service is busy.", "Wait a moment, then try again.", AGAIN];
}

function tooLarge() {
  return [
    "The picture is too large for the server.",
    "Use a smaller one, or switch the comparison off: then only the vector is sent.",
  ];
}

function words(error, file) {
  if (WORDS[error.reason]) return WORDS[error.reason](error);
  if (error.reason) {
    const number = error.id ? ` If it stays, tell whoever runs the service this number: ${error.id}` : "";
    return ["The service could not do that.", `${error.detail}.${number}`.replace("..", "."), AGAIN];
  }
  if (KINDS[error.name]) return KINDS[error.name](error, file);
  return ["Something went wrong in this page.", error.message, AGAIN];
}

/** Show an error in a place; the button, if it has one, calls `retry`. */
export function tell(id, error, retry, file) {
  const [title, text, action] = words(error, file);
  const place = element(id);
  // What is read out is read out once, however often it is tried by itself.
  if (place.querySelector("p")?.textContent === `${title} ${text}`) return;
  const box = make("div", { class: "problem" }, make("p", {}, make("strong", {}, title), ` ${text}`));
  if (action && retry) {
    const button = make("button", { type: "button" }, action);
    button.addEventListener("click", async () => {
      if (action === OTHER_KEY && !(await changeKey())) return;
      place.closest("section")?.querySelector("h1, h2")?.focus(); // the button goes away
      retry();
    });
    box.append(button);
  }
  place.replaceChildren(box);
}

/** Take an error away again. */
export function forget(id) {
  element(id).replaceChildren();
}
