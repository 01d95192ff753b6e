// What must hold of one pass. Every problem is a sentence; no sentence, no problem.

const MAX_STALL_MS = 1000;
const DURATION_SLACK_S = 0.1;
/** Chromium reports buffered ranges to the microsecond, and audio ends up to one AAC frame away from video. */
const EDGE_SLACK_S = 0.1;
/** Share of frames by which the decoder's count may differ: frames near a change of variant are decoded twice. */
const FRAME_SLACK = 0.05;

function clock(expected, seen) {
  const found = [];
  const crossed = (seam) => seen.times.some((t) => t < seam) && seen.times.some((t) => t >= seam);
  const missed = expected.seams_s.filter((seam) => !crossed(seam));
  if (missed.length > 0) found.push(`segment seams never crossed: ${missed.join(", ")}`);
  if (seen.longest_stall_ms > MAX_STALL_MS) found.push(`playing stood still for ${seen.longest_stall_ms} ms`);
  if (seen.leaps.length > 0) found.push(`time leapt: ${JSON.stringify(seen.leaps)}`);
  const seeks = seen.seeks.slice(0, seen.seeks_before_return);
  if (seeks.length > 0) found.push(`the player sought by itself: ${seeks.join(", ")}`);
  if (!(Math.abs(seen.duration_s - expected.duration_s) <= DURATION_SLACK_S)) {
    found.push(`duration ${seen.duration_s} s, expected ${expected.duration_s} s`);
  }
  return found;
}

function buffer(expected, seen) {
  const found = [];
  if (seen.gaps.length > 0) found.push(`buffered in pieces: ${JSON.stringify(seen.gaps[0])}`);
  const [range, ...more] = seen.buffered ?? [];
  const whole = range && more.length === 0 && range[0] <= EDGE_SLACK_S && range[1] >= expected.duration_s - EDGE_SLACK_S;
  if (!whole) found.push(`buffered ${JSON.stringify(seen.buffered)} at the end, expected one range of ${expected.duration_s} s`);
  return found;
}

function tracks(expected, seen) {
  const found = [];
  const size = (v) => `${v.width}x${v.height}`;
  const want = expected.variants.map(size).join(" ");
  const have = seen.tracks?.variants.map(size).join(" ");
  if (want !== have) found.push(`variants ${have}, expected ${want}`);
  const labels = (seen.tracks?.audio ?? []).map((track) => track.label);
  // A title with one unnamed audio track in its variants has no EXT-X-MEDIA to compare with.
  if (expected.video && (labels.length !== expected.audio.length || expected.audio.some((name) => !labels.includes(name)))) {
    found.push(`audio tracks ${JSON.stringify(labels)}, expected ${JSON.stringify(expected.audio)}`);
  }
  return found;
}

function decoding(expected, seen) {
  const found = [];
  const { total, corrupted } = seen.frames ?? {};
  if (expected.video && !(Math.abs(total - expected.frames) <= expected.frames * FRAME_SLACK)) {
    found.push(`${total} frames decoded, expected about ${expected.frames}`);
  }
  if (corrupted > 0) found.push(`${corrupted} corrupted frames`);
  const silent = (expected.audio.length > 0 || !expected.video) && !(seen.decoded_bytes?.audio > 0);
  if (silent) found.push("no audio was decoded");
  return found;
}

function requests(expected, seen) {
  const missing = seen.requests.missing.map((path) => `asked for ${path}, which does not exist`);
  const played = expected.folders.filter((folder) => seen.requests.segments[folder] > 0).length;
  const fewest = expected.changes ? 2 : 1;
  return played >= fewest ? missing : [...missing, `played ${played} variants, expected at least ${fewest}`];
}

/** All that was wrong in one pass. */
export function problems(expected, seen) {
  const checks = [clock, buffer, tracks, decoding, requests];
  return [...seen.errors.map((e) => `error: ${e}`), ...checks.flatMap((check) => check(expected, seen))];
}
