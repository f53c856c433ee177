// Drives the service's page: node page.mjs WHAT JSON; its last line is what was seen, as JSON.

import { enter, list, open, overflow, problem, tell, type, visit, drop } from "./harness.mjs";
import { audit, contrast, keyboard, motion, policy } from "./access.mjs";

const [what, text] = process.argv.slice(2);
const given = JSON.parse(text);
const visits = {
  search, again, compare, models, upgrade, unreadable, keys, away, uncertified, departing, empty,
  audit, contrast, keyboard, motion, policy,
};
const { browser, page, seen } = await open(given);
try {
  const found = await visits[what](page, given);
  console.log(JSON.stringify({ ...found, ...(await seen()) }));
} finally {
  await browser.close();
}
process.exit(0);

// A picture comes in: dropped on a desk, taken with the camera on a phone.
async function search(page, { picture, screen, ...where }) {
  await visit(page, where);
  if (screen === "phone") {
    await page.locator("#take").waitFor({ state: "visible" });
    await page.locator("#camera").setInputFiles(picture);
  } else {
    await drop(page, picture);
  }
  const last = page.locator("#here li").last();
  await last.locator("img").waitFor();
  await last.scrollIntoViewIfNeeded();
  const capture = await page.locator("#camera").getAttribute("capture");
  const status = await page.locator("#status").textContent();
  const pictures = await page.locator("#here li img").count();
  const items = await page.locator("#items").textContent();
  return { ...(await list(page, "here")), capture, status, pictures, items, overflow: await overflow(page) };
}

// The page is opened twice in one browser.
async function again(page, { picture, ...where }) {
  const files = [];
  page.on("request", (request) => files.push(new URL(request.url()).pathname));
  const visits = [];
  for (let i = 0; i < 2; i++) {
    if (i) await page.reload();
    else await visit(page, where);
    await page.locator("#status:empty").waitFor({ state: "attached" });
    await page.locator("#file").setInputFiles(picture);
    await page.locator("#here li").first().waitFor();
    visits.push(files.splice(0).filter((path) => path.startsWith("/page/bundle/")).sort());
  }
  return { visits };
}

async function compare(page, { picture, ...where }) {
  await visit(page, where);
  await drop(page, picture, "h1"); // beside the box
  await page.locator("#here li").first().waitFor();
  await page.locator("#compare").check();
  const agreement = page.locator("#agreement");
  await agreement.waitFor();
  const [here, there] = [await list(page, "here"), await list(page, "there")];
  const tops = await page.evaluate(() =>
    ["here", "there"].map((id) => {
      const { left, top } = document.querySelector(`#${id} .hits`).getBoundingClientRect();
      return [left, top];
    }),
  );
  return {
    here,
    there,
    tops,
    agreement: await agreement.textContent(),
    promise: await page.locator("#promise").textContent(),
    overflow: await overflow(page),
  };
}

async function models(page, given) {
  await visit(page, { ...given, hash: "#models" });
  await page.locator("#matrix tbody tr").first().waitFor();
  const rows = (part) =>
    page.locator(`#matrix ${part} tr`).evaluateAll((all) =>
      all.map((row) => [...row.cells].map((cell) => [...cell.childNodes].map((n) => n.textContent))),
    );
  return {
    head: await rows("thead"),
    body: await rows("tbody"),
    certificates: await page.locator("#certificates article").allTextContents(),
    overflow: await overflow(page),
  };
}

async function upgrade(page, given) {
  await visit(page, { ...given, hash: "#upgrade" });
  const look = async () => ({
    state: await page.locator("#upgrade-state").textContent(),
    share: await page.locator("#upgrade-share").textContent(),
    count: await page.locator("#upgrade-count").textContent(),
    bar: await page.locator("#upgrade-bar").evaluate((bar) => bar.value),
    models: await page.locator("#by-model li").allTextContents(),
    aside: await page.locator("#unreadable:not([hidden]) summary").allTextContents(),
    why: await page.locator("#unreadable li").allTextContents(),
    said: await page.locator("#upgrade-said").textContent(),
    overflow: await overflow(page),
  });
  await page.locator("#upgrade-state:not(:empty)").waitFor();
  if (await page.locator("#upgrade-running").isHidden()) return { none: await look() };
  const half = await look();
  await tell(half); // Python goes on with the upgrade
  await page.locator("#upgrade-pace", { hasText: "Commit it" }).waitFor();
  const all = await look();
  return { half, all };
}

async function unreadable(page, { picture, bad, ...where }) {
  await visit(page, where);
  await page.locator("#file").setInputFiles(bad);
  const alone = await problem(page);
  await page.locator("#compare").check();
  await page.locator("#status", { hasText: /^$/ }).waitFor({ state: "attached" });
  const compared = await problem(page);
  const alerts = await page.locator(".problem:visible").count();
  await page.locator("#compare").uncheck();
  await page.locator("#file").setInputFiles(picture);
  await page.locator("#here li").first().waitFor();
  return { alone, compared, alerts, left: await page.locator(".problem:visible").count() };
}

// No key at first, then a wrong one, one without the scope, and at last the right one.
async function keys(page, { url, key, writer, picture }) {
  await page.goto(url);
  await page.locator("#key[open]").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#file").setInputFiles(picture);
  await page.locator("#key[open]").waitFor();
  await page.locator("#key button", { hasText: "Cancel" }).click();
  const none = await problem(page);
  await page.locator("#search-problem button").click();
  await type(page, "wrong");
  const wrong = page.locator("#key-wrong");
  await wrong.waitFor();
  const refused = await wrong.textContent();
  await enter(page, writer);
  const scope = await problem(page);
  await page.locator("#search-problem button").click();
  await enter(page, key);
  await page.locator("#here li").first().waitFor();
  const kept = await page.evaluate(() => [
    Object.keys(localStorage).filter((name) => !name.startsWith("samespace-edge verdict ")).length,
    document.cookie,
  ]);
  return { none, refused, scope, kept };
}

// The service goes away, and comes back.
async function away(page, { picture, ...where }) {
  await visit(page, where);
  await page.locator("#file").setInputFiles(picture);
  await page.locator("#here li").first().waitFor();
  await tell({ what: "stop it" });
  await page.locator("#file").setInputFiles(picture);
  const search = await problem(page);
  await page.locator("nav a[href='#models']").click();
  const models = await problem(page, "models-problem");
  await page.locator("nav a[href='#upgrade']").click();
  const upgrade = await problem(page, "upgrade-problem");
  await tell({ what: "start it again" });
  await page.locator("#upgrade-problem:empty").waitFor({ state: "attached" }); // by itself
  await page.locator("nav a[href='#models']").click();
  await page.locator("#matrix tbody tr").first().waitFor();
  await page.locator("nav a[href='#search']").click();
  await page.locator("#search-problem button").click();
  await page.locator("#here li").first().waitFor();
  return { search, models, upgrade };
}

async function uncertified(page, { picture, ...where }) {
  await visit(page, where);
  await page.locator("#file").setInputFiles(picture);
  const refused = await problem(page);
  const hint = await page.locator("#compare-hint").textContent();
  return { refused, hint, disabled: await page.locator("#compare").isDisabled() };
}

async function departing(page, where) {
  await visit(page, where);
  return { refused: await problem(page) };
}

async function empty(page, { picture, ...where }) {
  await visit(page, where);
  await page.locator("#file").setInputFiles(picture);
  await page.locator("#nothing").waitFor();
  return { status: await page.locator("#status").textContent() };
}
