// Opens a report in headless Chromium as people do: light and dark, on a desk and on a phone, with the pointer and the keys.
//
//   node look.mjs PAGE SHOTS [VIEW,...]
//
// Prints what was seen as JSON; ends with 2 on misuse.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"];
/** A machine may have much else to do. */
const PATIENCE_MS = 120_000;
const VIEWS = [
  { name: "light", colorScheme: "light", viewport: { width: 1280, height: 900 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  { name: "phone-light", colorScheme: "light", viewport: { width: 390, height: 844 } },
  { name: "phone-dark", colorScheme: "dark", viewport: { width: 390, height: 844 } },
];

/** What a browser made of the page. */
function facts() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  return {
    mode: document.compatMode,
    title: document.title,
    background: getComputedStyle(document.body).backgroundColor,
    overflows: document.documentElement.scrollWidth - innerWidth,
    sections: all("section").map((section) => section.id),
    plots: all(".plot").map((plot) => plot.dataset.plot),
    unnamed: all("[role=img]").filter((image) => !image.getAttribute("aria-label")).length,
    images: all("img").map((image) => [image.naturalWidth, image.naturalHeight]),
    broken: all("svg path").filter((path) => /NaN|undefined|inf/.test(path.getAttribute("d"))).length,
  };
}

/** Until what was scrolled has been told. */
const settled = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

/** What is shown where somebody points, and after the arrow keys. */
async function hover(page, plot) {
  const found = page.locator(`[data-plot="${plot}"]`);
  if ((await found.count()) === 0) return undefined;
  await found.scrollIntoViewIfNeeded();
  await settled(page);
  const box = await found.boundingBox();
  // Where a rung stands, or in the middle of the time.
  const [across, down] = await page.evaluate((name) => {
    const { points } = JSON.parse(document.getElementById("data").textContent);
    const planned = name === "curves" && points.find((point) => point.what === "planned");
    return planned ? [planned.left, planned.top] : [0.5, 0.4];
  }, plot);
  await page.mouse.move(box.x + box.width * across - 2, box.y + box.height * down);
  await page.mouse.move(box.x + box.width * across, box.y + box.height * down);
  const tip = page.locator(".tip");
  const pointed = (await tip.isVisible()) ? await tip.innerText() : "";
  await page.mouse.move(0, 0);
  const left = await tip.isVisible();
  await found.focus();
  await settled(page);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  const keyed = (await tip.isVisible()) ? await tip.innerText() : "";
  await page.keyboard.press("Escape");
  return { pointed, left, keyed };
}

/** The first rung is hidden and shown again: how many of its lines are seen. */
async function choose(page) {
  const box = page.locator('[data-rung="0"]');
  if ((await box.count()) === 0) return undefined;
  const seen = () => page.locator('svg [data-r="0"]:not(.off)').count();
  const before = await seen();
  await box.uncheck({ force: true });
  const without = await seen();
  await box.check({ force: true });
  return [before, without, await seen()];
}

async function look(browser, url, view, shots) {
  const context = await browser.newContext({ viewport: view.viewport, colorScheme: view.colorScheme });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const [said, asked] = [[], []];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(error.message));
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(url);
  const seen = await page.evaluate(facts);
  seen.hover = {};
  for (const plot of seen.plots) seen.hover[plot] = await hover(page, plot);
  seen.chosen = await choose(page);
  const wipe = page.locator("[data-wipe]").first();
  if (await wipe.count()) {
    await wipe.check();
    seen.wiped = await page.locator(".pair.wiped input[type=range]").count();
    await wipe.uncheck();
  }
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(shots, `${view.name}.png`), fullPage: true });
  await context.close();
  return { ...seen, said, asked: asked.filter((address) => address !== url && !address.startsWith("data:")) };
}

async function main() {
  const [file, shots, names] = process.argv.slice(2);
  const views = VIEWS.filter((view) => !names || names.split(",").includes(view.name));
  if (!file || !shots || !views.length) {
    console.error("usage: node look.mjs PAGE SHOTS [VIEW,...]");
    process.exit(2);
  }
  await mkdir(shots, { recursive: true });
  const profile = await mkdtemp(join(tmpdir(), "narrows-report-"));
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: [...FLAGS, `--disk-cache-dir=${profile}`] });
  const seen = {};
  try {
    for (const view of views) seen[view.name] = await look(browser, pathToFileURL(resolve(file)).href, view, shots);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
  console.log(JSON.stringify(seen, null, 2));
}

await main();
