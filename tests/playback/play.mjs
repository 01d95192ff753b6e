// Plays an output folder of narrows in headless Chromium through hls.js, dash.js and shaka-player.
//
//   node play.mjs OUTDIR [--shots DIR] [--rate 4] [--duration SECONDS] [--passes hls.js,dash.js,shaka-hls,shaka-dash]
//
// Prints what was seen as JSON; ends with 0 when every pass held, 1 when one did not, 2 on misuse.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { problems } from "./checks.mjs";
import { expectations } from "./expected.mjs";
import { serve } from "./server.mjs";

const PASSES = {
  "hls.js": { player: "hls.js", manifest: "master.m3u8" },
  "dash.js": { player: "dash.js", manifest: "manifest.mpd" },
  "shaka-hls": { player: "shaka", manifest: "master.m3u8" },
  "shaka-dash": { player: "shaka", manifest: "manifest.mpd" },
};

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

function usage(reason) {
  console.error(`play.mjs: ${reason}`);
  console.error(
    "usage: node play.mjs OUTDIR [--shots DIR] [--rate N] [--duration SECONDS] [--passes NAME,...]",
  );
  process.exit(2);
}

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      shots: { type: "string" },
      rate: { type: "string", default: "4" },
      duration: { type: "string" },
      passes: { type: "string", default: Object.keys(PASSES).join(",") },
    },
  });
  if (positionals.length !== 1) usage("give one output folder");
  const passes = values.passes.split(",");
  const unknown = passes.find((name) => !PASSES[name]);
  if (unknown) usage(`no pass '${unknown}'; there are ${Object.keys(PASSES).join(", ")}`);
  const rate = Number(values.rate);
  if (!(rate > 0 && rate <= 16)) usage("--rate is over 0 and at most 16");
  const duration = values.duration === undefined ? undefined : Number(values.duration);
  if (Number.isNaN(duration)) usage("--duration is a number of seconds");
  return { folder: resolve(positionals[0]), shots: values.shots, rate, duration, passes };
}

/** One player over the whole title, in a page of its own. */
async function play(context, server, expected, name, turn, { rate, shots }) {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(`page: ${error.message}`));
  server.startLog();
  try {
    await page.goto(`${server.origin}/page.html`);
    // Each pass begins with another variant and changes to the next one on the way, so that the passes together play
    // most rungs and cross from one rung to another.
    const count = expected.variants.length;
    const order = { ...PASSES[name], rate, expected, first: turn % count, second: (turn + 1) % count };
    const limit_ms = ((expected.duration_s / rate) * 3 + 40) * 1000;
    const seen = await page.evaluate((order) => window.playTitle(order), { ...order, limit_ms });
    if (shots) await page.screenshot({ path: join(shots, `${name}.png`) });
    seen.errors.push(...errors);
    seen.requests = server.log();
    return seen;
  } finally {
    await page.close();
  }
}

async function main() {
  const settings = options();
  const expected = await expectations(settings.folder, settings.duration);
  if (settings.shots) await mkdir(settings.shots, { recursive: true });
  const server = await serve(settings.folder);
  const profile = await mkdtemp(join(tmpdir(), "narrows-playback-"));
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const viewport = { width: 960, height: 600 };
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, viewport });
  const passes = {};
  try {
    for (const [turn, name] of settings.passes.entries()) {
      const seen = await play(context, server, expected, name, turn, settings);
      const { times: _, ...report } = seen;
      passes[name] = { ...report, problems: problems(expected, seen) };
    }
  } finally {
    await context.close();
    await server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
  const ok = Object.values(passes).every((pass) => pass.problems.length === 0);
  console.log(JSON.stringify({ ok, expected, passes }, null, 2));
  process.exit(ok ? 0 : 1);
}

await main();
