// Whether everybody can use the page: axe, contrast, keyboard, motion; and what the policy stops.

import { AXE, enter, visit } from "./harness.mjs";

// What is looked at by axe: every part of the page, as it is with something in it.
async function* states(page, { picture, flip, bad, ...where }) {
  await page.goto(where.url);
  await page.locator("#key[open]").waitFor();
  yield "key";
  await enter(page, where.key);
  await page.locator("#items:not(:empty)").waitFor();
  yield "empty";
  await page.locator("#file").setInputFiles(picture);
  await page.locator("#here li img").last().waitFor();
  yield "search";
  await page.locator("#compare").check();
  await page.locator("#file").setInputFiles(flip);
  await page.locator("#agreement").waitFor();
  await page.locator("#there li img").last().waitFor();
  yield "compare";
  await page.locator("#file").setInputFiles(bad);
  await page.locator("#search-problem .problem").waitFor();
  yield "error";
  await page.locator("nav a[href='#models']").click();
  await page.locator("#certificates summary").first().click();
  yield "models";
  await page.locator("nav a[href='#upgrade']").click();
  await page.locator("#by-model li").first().waitFor();
  yield "upgrade";
}

/** What axe finds in every state of the page, in light and in dark. */
export async function audit(page, given) {
  const found = [];
  const looked = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    for await (const state of states(page, given)) {
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      looked.push(`${state}, ${colorScheme}`);
      for (const { id, impact, nodes } of violations) {
        found.push({ state, colorScheme, id, impact, at: nodes.map((n) => n.html.slice(0, 120)) });
      }
    }
    await page.evaluate(() => sessionStorage.clear());
  }
  return { looked, found };
}

const TEXT = [
  ...["ink", "soft", "here", "there", "wrong"].flatMap((ink) => [[ink, "ground"], [ink, "raised"]]),
  ["ink", "here-pale"], ["soft", "here-pale"], ["here", "here-pale"], ["there", "there-pale"],
  ["ink", "wrong-pale"], ["wrong", "wrong-pale"], ["on-colour", "here"], ["on-colour", "there"],
];
const EDGES = [["edge", "ground"], ["edge", "raised"], ["here", "raised"], ["there", "ground"]];

/** The contrast of every pair of colours that is used together, as it is computed. */
export async function contrast(page, { url }) {
  const found = {};
  await page.goto(url);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    found[colorScheme] = await page.evaluate(
      ({ text, edges }) => {
        const probe = document.body.appendChild(document.createElement("i"));
        const luminance = (name) => {
          probe.style.color = `var(--${name})`;
          const rgb = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map((c) => c / 255);
          const [r, g, b] = rgb.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = ([a, b]) => {
          const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
          return [`${a} on ${b}`, (high + 0.05) / (low + 0.05)];
        };
        const made = { text: text.map(ratio), edges: edges.map(ratio) };
        probe.remove();
        return made;
      },
      { text: TEXT, edges: EDGES },
    );
  }
  return found;
}

/** Everything with the keyboard: the key, the skip link, a file, the switch, the pages. */
export async function keyboard(page, { url, key, picture }) {
  page.on("filechooser", (chooser) => chooser.setFiles(picture));
  await page.goto(url);
  await page.locator("#key[open]").waitFor();
  const order = [];
  const at = async () => {
    const found = await page.evaluate(() => {
      const e = document.activeElement;
      const shown = e.closest(".button, .switch") ?? e;
      return [e.id || e.textContent.trim(), getComputedStyle(shown).outlineStyle];
    });
    order.push(found);
    return found[0];
  };
  await at(); // the field, without a click
  await page.keyboard.type(key);
  await page.keyboard.press("Enter");
  await page.locator("#items:not(:empty)").waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("Tab");
  await at();
  await page.keyboard.press("Enter"); // skips to the content
  const skipped = await page.evaluate(() => [document.activeElement.id, location.hash]);
  await page.keyboard.press("Tab");
  await at();
  await page.keyboard.press("Enter"); // opens the chooser
  await page.locator("#here li").first().waitFor();
  while ((await at()) !== "compare") await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  await page.locator("#agreement").waitFor();
  for (let i = 0; i < 20 && (await at()) !== "Models"; i++) await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await page.locator("#matrix tbody tr").first().waitFor();
  const title = await page.evaluate(() => [document.activeElement.id, document.title]);
  await page.keyboard.press("Tab");
  await at(); // the table, which may have to be scrolled
  return { order, skipped, title };
}

/** What moves, for those who asked that nothing does, and for the others. */
export async function motion(page, { url }) {
  const moving = async () =>
    page.evaluate(() => {
      const wait = document.getElementById("models-wait");
      wait.textContent = "…";
      return [
        getComputedStyle(document.getElementById("drop")).transitionDuration,
        getComputedStyle(document.querySelector(".switch input"), "::before").transitionDuration,
        getComputedStyle(wait).animationDuration,
      ];
    });
  await page.goto(url);
  const usual = await moving();
  await page.emulateMedia({ reducedMotion: "reduce" });
  return { usual, reduced: await moving() };
}

/** What the content-security policy stops, once there are so many kinds of it. */
export async function policy(page, given) {
  await visit(page, given);
  const stopped = await page.evaluate(async (kinds) => {
    const found = [];
    addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "globalThis.ran = true";
    document.body.append(script);
    const style = document.createElement("style");
    document.body.append(style);
    style.textContent = "body { color: red }";
    await fetch("http://127.0.0.1:9/").catch(() => undefined);
    const image = document.createElement("img");
    image.src = "http://127.0.0.1:9/x.png";
    document.body.append(image);
    while (new Set(found).size < kinds) await new Promise((resolve) => setTimeout(resolve, 20));
    return { found, ran: globalThis.ran ?? false };
  }, given.kinds);
  return stopped;
}
