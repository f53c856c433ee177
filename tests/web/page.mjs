// Drives the service's page: node page.mjs WHAT JSON; prints what was seen, as JSON.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const require = createRequire(new URL("../../edge_runtime/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const [what, text] = process.argv.slice(2);
const { url, key, picture, width = 1280 } = JSON.parse(text);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"],
});
const page = await browser.newPage({ viewport: { width, height: 800 } });
const errors = [];
const sent = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => {
  // A refused request is told in the page, and by Chromium in the console too.
  if (message.type() === "error" && !/status of 40[14]/.test(message.text())) {
    errors.push(message.text());
  }
});
page.on("request", (request) => {
  const body = request.postDataBuffer();
  const { pathname, search } = new URL(request.url());
  if (body) sent.push({ path: pathname + search, bytes: body.length });
});

const seen = { search, compare, look, refused };
try {
  const found = await seen[what]();
  if (process.env.SHOT) await page.screenshot({ path: `${process.env.SHOT}-${what}-${width}.png`, fullPage: true });
  console.log(JSON.stringify({ ...found, sent, errors }));
} finally {
  await browser.close();
}

async function enter(value) {
  await page.locator("#key[open]").waitFor();
  await page.locator("#key-value").fill(value);
  await page.locator("#key button").click();
}

async function drop() {
  const content = [...readFileSync(picture)];
  const data = await page.evaluateHandle(
    ({ content, name }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
      return transfer;
    },
    { content, name: basename(picture) },
  );
  await page.dispatchEvent("#drop", "drop", { dataTransfer: data });
}

function list(id) {
  return page.locator(`#${id}`).evaluate((place) => ({
    ids: [...place.querySelectorAll("li")].map((li) => li.dataset.id),
    labels: [...place.querySelectorAll(".label")].map((p) => p.textContent),
    scores: [...place.querySelectorAll(".score")].map((p) => Number(p.textContent)),
    costs: place.querySelector(".costs").textContent,
    marked: [...place.querySelectorAll(".flip")].map((li) => ({
      id: li.dataset.id,
      text: li.querySelector(".mark").textContent,
    })),
  }));
}

async function search() {
  await page.goto(url);
  await drop();
  await enter(key);
  await page.locator("#here li img").last().scrollIntoViewIfNeeded();
  await page.waitForFunction(() =>
    [...document.querySelectorAll("#here li img")].every((image) => image.naturalWidth > 0),
  );
  const pictures = await page.locator("#here li img").count();
  const overflow = await page.evaluate(
    () => Math.max(0, document.documentElement.scrollWidth - innerWidth),
  );
  return { ...(await list("here")), pictures, overflow };
}

async function compare() {
  await page.goto(url);
  await page.locator("#compare:enabled").check();
  await page.locator("#file").setInputFiles(picture);
  await enter(key);
  await page.locator("#there li").first().waitFor();
  const agreement = await page.locator("#agreement").textContent();
  return { here: await list("here"), there: await list("there"), agreement };
}

async function look() {
  await page.goto(`${url}/#models`);
  await enter(key);
  await page.locator("#matrix tr").nth(1).waitFor();
  const models = await page
    .locator("#matrix tr")
    .evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
  if (process.env.SHOT) await page.screenshot({ path: `${process.env.SHOT}-models.png` });
  await page.locator("nav a[href='#upgrade']").click();
  const state = page.locator("#upgrade-state:not(:empty)");
  await state.waitFor();
  return { models, upgrade: await state.textContent() };
}

async function refused() {
  let asked = 0;
  await page.goto(`${url}/#models`);
  await enter("wrong");
  asked += 1;
  await enter(key);
  asked += 1;
  await page.locator("#matrix tr").nth(1).waitFor();
  await page.locator("nav a[href='#search']").click();
  await page.locator("#file").setInputFiles(picture);
  const error = page.locator("#error:not(:empty)");
  await error.waitFor();
  return { asked, error: await error.textContent() };
}
