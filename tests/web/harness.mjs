// A real Chromium, and what the page asked, sent and complained of in it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const require = createRequire(new URL("../../edge_runtime/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

/** The source of axe-core. */
export const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const SCREENS = {
  desk: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
};

/** Start Chromium with one page; `seen` tells what the page did so far. */
export async function open({ screen = "desk", ...more }) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"],
    timeout: 0,
  });
  const context = await browser.newContext({ ...SCREENS[screen], ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(0); // on a slow machine all takes longer; Python's side ends what hangs
  const errors = [];
  const asked = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // A request that is refused or fails is told in the page, and by Chromium in the console too.
    const text = message.text();
    if (message.type() === "error" && !text.startsWith("Failed to load resource")) errors.push(text);
  });
  // The size is what the browser put on the wire: Playwright hides the body where it is a file.
  page.on("request", (request) => {
    const { origin, pathname } = new URL(request.url());
    const bytes = request.allHeaders().then(
      (headers) => Number(headers["content-length"] ?? 0),
      () => 0,
    );
    const body = request.postDataBuffer()?.toString("base64");
    asked.push({ origin, path: pathname, method: request.method(), body, bytes });
  });
  const seen = async () => ({
    errors,
    asked: await Promise.all(asked.map(async (one) => ({ ...one, bytes: await one.bytes }))),
  });
  return { browser, page, seen };
}

/** Type a key into the dialog, which a wrong one opens again at once. */
export async function type(page, key) {
  await page.locator("#key[open]").waitFor();
  await page.locator("#key-value").fill(key);
  await page.keyboard.press("Enter");
}

/** Type a key that is known into the dialog. */
export async function enter(page, key) {
  await type(page, key);
  await page.locator("#key:not([open])").waitFor({ state: "attached" });
}

/** Open a part of the page, with the key entered. */
export async function visit(page, { url, key, hash = "" }) {
  await page.goto(`${url}/${hash}`);
  if (key) await enter(page, key);
}

/** Drop a file on something. */
export async function drop(page, picture, on = "#drop") {
  const content = readFileSync(picture).toString("base64");
  const data = await page.evaluateHandle(
    ({ content, name }) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name));
      return transfer;
    },
    { content, name: basename(picture) },
  );
  await page.dispatchEvent(on, "dragenter", { dataTransfer: data });
  await page.dispatchEvent(on, "drop", { dataTransfer: data });
}

/** What a list shows. */
export function list(page, id) {
  return page.locator(`#${id}`).evaluate((place) => {
    const all = (selector) => [...place.querySelectorAll(selector)].map((e) => e.textContent);
    return {
      ids: all("li .id"),
      labels: all("li .label"),
      scores: all("li .score").map(Number),
      costs: all(".costs div"),
      marked: [...place.querySelectorAll("li:has(.mark)")].map((li) => ({
        id: li.dataset.id,
        isFlip: li.classList.contains("flip"),
        text: li.querySelector(".mark").textContent,
      })),
    };
  });
}

/** How many pixels stick out of the screen at the right. */
export function overflow(page) {
  return page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth));
}

/** The text of an error, once there is one. */
export async function problem(page, id = "search-problem") {
  const box = page.locator(`#${id} .problem`);
  await box.waitFor();
  const button = box.locator("button");
  const text = await box.locator("p").textContent();
  return { text, button: (await button.count()) ? await button.textContent() : null };
}

/** Tell Python where this is, and wait until it says to go on. */
export async function tell(value) {
  console.log(JSON.stringify(value));
  await new Promise((resolve) => process.stdin.once("data", resolve));
}
