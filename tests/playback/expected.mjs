// What a player must find, read from the HLS playlists with a few regular expressions: a reader that shares no code with
// the writer or with the players.

import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

const attribute = (line, name) => line.match(new RegExp(`[:,]${name}=(?:"([^"]*)"|([^,]*))`))?.slice(1).find(Boolean);

/** Buffered ahead by every player: little, so that a change of variant meets segments not yet loaded. */
const AHEAD_S = 6;

/** Variants (largest first), audio names, segment seams and duration of the title in `folder`. */
export async function expectations(folder, duration_s) {
  const lines = (await readFile(join(folder, "master.m3u8"), "utf8")).split("\n");
  const variants = lines.flatMap((line, i) => {
    if (!line.startsWith("#EXT-X-STREAM-INF:")) return [];
    const [width, height] = (attribute(line, "RESOLUTION") ?? "0x0").split("x").map(Number);
    const frame_rate = Number(attribute(line, "FRAME-RATE") ?? 0);
    const group = attribute(line, "AUDIO");
    return [{ uri: lines[i + 1], width, height, frame_rate, group, bandwidth: Number(attribute(line, "BANDWIDTH")) }];
  });
  if (variants.length === 0) throw new Error("master.m3u8 names no variant");
  variants.sort((a, b) => b.bandwidth - a.bandwidth);
  const media = lines.filter((line) => line.startsWith("#EXT-X-MEDIA:") && attribute(line, "TYPE") === "AUDIO");
  const audio = media.filter((l) => attribute(l, "GROUP-ID") === variants[0].group).map((l) => attribute(l, "NAME"));

  const playlist = (await readFile(join(folder, variants[0].uri), "utf8")).split("\n");
  const lengths = playlist.filter((l) => l.startsWith("#EXTINF:")).map((l) => Number.parseFloat(l.slice(8)));
  let at = 0;
  const ends = lengths.map((length) => (at += length));
  return {
    video: variants[0].width > 0,
    variants,
    folders: variants.map((v) => dirname(v.uri)),
    audio,
    seams_s: ends.slice(0, -1),
    duration_s: duration_s ?? at,
    ahead_s: AHEAD_S,
    /** When the variant is changed, and whether there is room for a change to show. */
    change_at_s: Math.max(0, at - AHEAD_S) / 2,
    changes: variants.length > 1 && at >= 2 * AHEAD_S,
    frames: Math.round(at * variants[0].frame_rate),
  };
}
