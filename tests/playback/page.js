// Plays one title from beginning to end in the page, and writes down what happened.

const video = document.querySelector("video");
const SAMPLE_MS = 20;

const round = (seconds) => Math.round(seconds * 1000) / 1000;
const ranges = (list) => Array.from({ length: list.length }, (_, i) => [round(list.start(i)), round(list.end(i))]);
const event = (name) => new Promise((done) => video.addEventListener(name, done, { once: true }));

/** Follows the clock of the video: the longest stand-still, leaps, the places where it was seen. */
function watch(seen, rate) {
  let last = { wall: performance.now(), time: video.currentTime, moved: performance.now() };
  const sample = () => {
    const now = { wall: performance.now(), time: video.currentTime };
    const moved = now.time !== last.time;
    if (!moved && !video.ended) seen.longest_stall_ms = Math.max(seen.longest_stall_ms, Math.round(now.wall - last.moved));
    // The clock of the video is read up to a tenth of a second late; what leaps less shows as a seek or a gap.
    const most = ((now.wall - last.wall) / 1000 + 0.1) * rate;
    if (now.time < last.time || now.time - last.time > most) seen.leaps.push([round(last.time), round(now.time)]);
    if (moved) seen.times.push(round(now.time));
    const buffered = ranges(video.buffered);
    if (buffered.length > 1) seen.gaps.push(buffered);
    last = { ...now, moved: moved ? now.wall : last.moved };
  };
  const timer = setInterval(sample, SAMPLE_MS);
  return () => {
    sample();
    clearInterval(timer);
  };
}

/** Mean and spread of the brightness of the picture now shown. */
function picture() {
  if (!video.videoWidth) return undefined;
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 36 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  const luma = Array.from({ length: 64 * 36 }, (_, i) => (data[i * 4] + data[i * 4 + 1] + data[i * 4 + 2]) / 3);
  return { darkest: Math.round(Math.min(...luma)), lightest: Math.round(Math.max(...luma)) };
}

function within(limit_ms, what, promise) {
  const late = new Promise((_, failed) => setTimeout(() => failed(new Error(`${what} took over ${limit_ms} ms`)), limit_ms));
  return Promise.race([promise, late]);
}

/** Everything after loading: play to the end, changing the variant on the way, then seek back to a seam. */
async function through(seen, player, order, fatal) {
  const { expected, rate, second, limit_ms } = order;
  video.addEventListener("timeupdate", function change() {
    if (video.currentTime < expected.change_at_s) return;
    video.removeEventListener("timeupdate", change);
    player.pin(second);
  });
  const playing = event("playing");
  await within(20000, "the start", Promise.race([video.play().then(() => playing), fatal]));
  video.playbackRate = rate;
  video.addEventListener("seeking", () => seen.seeks.push(round(video.currentTime)));
  seen.tracks = player.tracks();
  const stop = watch(seen, rate);
  await within(limit_ms, "playing", Promise.race([event("ended"), fatal])).finally(stop);
  seen.duration_s = round(video.duration);
  seen.end_s = round(video.currentTime);
  seen.buffered = ranges(video.buffered);
  const quality = video.getVideoPlaybackQuality();
  seen.frames = { total: quality.totalVideoFrames, dropped: quality.droppedVideoFrames, corrupted: quality.corruptedVideoFrames };
  seen.decoded_bytes = { video: video.webkitVideoDecodedByteCount, audio: video.webkitAudioDecodedByteCount };
  const seam = expected.seams_s[Math.floor(expected.seams_s.length / 2)] ?? expected.duration_s / 2;
  const back = event("seeked");
  video.pause();
  seen.seeks_before_return = seen.seeks.length;
  video.currentTime = seam;
  await within(15000, "the seek", Promise.race([back, fatal]));
  seen.returned_to_s = round(video.currentTime);
  seen.picture = picture();
}

window.playTitle = async (order) => {
  const seen = { longest_stall_ms: 0, leaps: [], gaps: [], seeks: [], times: [], errors: [], warnings: [] };
  let stop;
  const fatal = new Promise((_, failed) => (stop = failed));
  fatal.catch(() => {});
  const fail = (message, isFatal) => {
    (isFatal ? seen.errors : seen.warnings).push(message);
    if (isFatal) stop(new Error(message));
  };
  video.addEventListener("error", () => fail(`media element: ${video.error?.code} ${video.error?.message}`, true));
  try {
    const player = window.players[order.player](video, `/out/${order.manifest}`, fail, order);
    await within(20000, "loading", Promise.race([player.load(order.first), fatal]));
    await through(seen, player, order, fatal);
  } catch (error) {
    if (!seen.errors.includes(error.message)) seen.errors.push(error.message);
  }
  document.querySelector("p").textContent =
    `${order.player} ${order.manifest} ${video.videoWidth}x${video.videoHeight} at ${round(video.currentTime)} s of ${round(video.duration)} s`;
  return seen;
};
