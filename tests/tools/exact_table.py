#!/usr/bin/env python3
"""Is every clip of a folder split frame-exactly? Prints a Markdown table.

    exact_table.py CLIPDIR NARROWS [--grid gop|2s|odd]... [--only TEXT] [--out FILE]

Each clip goes through the lossless preset on every chunk grid. The ffmpeg program decodes the source and both outputs
(progressive file and HLS); they must have the same number of frames, the same MD5 for each, and the same times to a
tick of the source. A cell says `exact`, or the documented rule by which the output differs (deinterlaced, damaged),
or `DIFFERS` with the first differing frame, or the error that narrows gave. Ends with exit code 1 if any cell DIFFERS
or narrows failed other than by an error about the media (exit code 65).
"""
import argparse, json, subprocess, sys, tempfile
from fractions import Fraction
from pathlib import Path

GRIDS = {
    "gop": ["chunk.grid=gop"],
    "2s": ["chunk.grid=keyframes", "chunk.target_s=2", "chunk.shortest_s=1"],
    "odd": ["chunk.grid=frames", "chunk.frames=37"],
}
TITLES = {"gop": "one GOP", "2s": "2 s", "odd": "37 frames"}
MEDIA_ERROR = 65
# What narrows writes beside the picture: no clip here has more than a few minutes.
TIMEOUT_S = 3600


def run(command):
    """(exit code, stdout, stderr); a hang is exit code 124."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return 124, "", f"no end after {TIMEOUT_S} s"


def pictures(path):
    """Video streams that are no attached picture: index, size as shown, pixel format."""
    code, out, _ = run(["ffprobe", "-v", "error", "-select_streams", "V", "-of", "json", "-show_entries",
                        "stream=index,width,height,pix_fmt:stream_side_data=rotation", str(path)])
    if code:
        return []
    streams = []
    for s in json.loads(out or "{}").get("streams", []):
        turned = any(int(d.get("rotation", 0)) % 180 for d in s.get("side_data_list", []))
        size = (s.get("width", 0), s.get("height", 0))
        if s.get("pix_fmt") and size[0]:
            streams.append({"stream": s["index"], "size": size[::-1] if turned else size, "pixels": s["pix_fmt"]})
    return streams


def decode(path, stream, pixels, crop=None):
    """(seconds a tick, [(pts, md5)]) of a linear decode; timestamps are the stream's own. One thread: several conceal
    damage differently, by their number."""
    filters = ["-vf", f"crop={crop[0]}:{crop[1]}:0:0:exact=1"] if crop else []
    _, out, _ = run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "1", "-copyts", "-i", str(path),
                     "-map", f"0:{stream}", "-fps_mode", "passthrough", "-enc_time_base", "-1", *filters,
                     "-pix_fmt", pixels, "-f", "framemd5", "-"])
    base, frames = Fraction(1), []
    for line in out.splitlines():
        if line.startswith("#tb 0: "):
            base = Fraction(line[7:].strip())
        elif line and line[0] != "#":
            cells = [c.strip() for c in line.split(",")]
            frames.append((int(cells[2]), cells[5]))
    return base, frames


def difference(source, output):
    """None, or in words the first way in which the output differs."""
    (source_base, wanted), (base, got) = source, output
    for i, (a, b) in enumerate(zip(wanted, got)):
        if a[1] != b[1]:
            return f"frame {i} of {len(wanted)} has other pixels ({len(got)} frames came out)"
    if len(wanted) != len(got):
        return f"{len(got)} frames instead of {len(wanted)}"
    for i, (a, b) in enumerate(zip(wanted, got)):
        apart = (a[0] - wanted[0][0]) * source_base - (b[0] - got[0][0]) * base
        if abs(apart) > source_base:
            return f"frame {i} is {float(-apart) * 1000:+.3f} ms off"
    return None


def find(value, key, kind):
    """Every value of that key and kind, however deep."""
    if isinstance(value, dict):
        for k, v in value.items():
            if k == key and isinstance(v, kind):
                yield v
            yield from find(v, key, kind)
    elif isinstance(value, list):
        for v in value:
            yield from find(v, key, kind)


def facts(out, work):
    """What narrows wrote of its decisions: the report, and the plan of the work folder."""
    report = Path(out) / "report.json"
    report = json.loads(report.read_text()) if report.exists() else {}
    read = [report.get("damage"), report, *(json.loads(p.read_text()) for p in Path(work).rglob("plan.json"))]
    video = next((v for v in find(read, "video", dict) if isinstance(v.get("stream"), int)), {})
    modes = {m for m in find(read, "deinterlace", str)}
    return {
        "stream": video.get("stream"),
        "deinterlaced": bool(modes - {"off", "auto"}),
        # The report's own sum comes first; below it stands the same by chunk.
        "lost": next(find(read, "lost_frames", int), 0),
        "damaged": next(find(read, "damaged_frames", int), 0),
        "notes": list(dict.fromkeys(n for notes in find(read, "notes", list) for n in notes if isinstance(n, str))),
    }


def transcode(narrows, clip, out, work, grid, extra):
    sets = [word for assignment in GRIDS[grid] for word in ("--set", assignment)]
    return run([str(narrows), "transcode", str(clip), "-o", out, "--work", work, "--preset", "mezzanine", "--json",
                *sets, *extra])


class Clip:
    """One row of the table."""

    def __init__(self, narrows, path):
        self.narrows, self.path, self.decodes, self.notes = narrows, path, {}, []
        self.streams = pictures(path)

    def source(self, stream):
        if stream["stream"] not in self.decodes:
            self.decodes[stream["stream"]] = decode(self.path, stream["stream"], stream["pixels"])
        return self.decodes[stream["stream"]]

    def compare(self, grid, extra=()):
        """(verdict, facts): exact, an error, or the difference."""
        with tempfile.TemporaryDirectory() as out, tempfile.TemporaryDirectory() as work:
            code, _, err = transcode(self.narrows, self.path, out, work, grid, extra)
            if code:
                last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "no message")
                return f"error {code}: {last[:200]}", {"code": code}
            said = facts(out, work)
            made = [Path(out) / "source.mp4", Path(out) / "master.m3u8"]
            shown = pictures(made[0])
            if not shown:
                return ("no picture in, none out" if not self.streams else "DIFFERS: no picture came out"), said
            chosen = [s for s in self.streams if s["stream"] == said["stream"]] or \
                     [s for s in self.streams if s["size"] == shown[0]["size"]] or self.streams
            if not chosen:
                return "DIFFERS: a picture came out of none", said
            stream, wanted = chosen[0], self.source(chosen[0])
            for path in made:
                got = next(iter(pictures(path)), None)
                if not got:
                    return f"DIFFERS: {path.name} cannot be opened", said
                crop = stream["size"] if got["size"] != stream["size"] else None
                worse = difference(wanted, decode(path, got["stream"], stream["pixels"], crop))
                if worse:
                    return f"DIFFERS in {path.name}: {worse}", said
            return f"exact ({len(wanted[1])})", said

    def verdict(self, grid):
        """As `compare`, with the documented rules tried out before anything is called a difference."""
        verdict, said = self.compare(grid)
        self.notes += [n for n in said.get("notes", []) if n not in self.notes]
        if verdict.startswith("DIFFERS") and said["deinterlaced"]:
            off, _ = self.compare(grid, ["--set", "video.deinterlace=off"])
            return f"deinterlaced; with deinterlace off: {off}"
        if verdict.startswith("DIFFERS") and said["lost"] + said["damaged"]:
            return f"damaged ({said['lost']} lost, {said['damaged']} concealed): {verdict.removeprefix('DIFFERS ')}"
        if verdict.startswith(f"error {MEDIA_ERROR}"):
            salvaged, also = self.compare(grid, ["--on-damage", "salvage"])
            if "code" not in also:
                rule = f"{also['lost']} lost, {also['damaged']} concealed"
                return f"{verdict}; salvaged ({rule}): {salvaged.replace('DIFFERS', 'damaged')}"
        return verdict


def failed(verdict):
    error = verdict.startswith("error ") and not verdict.startswith(f"error {MEDIA_ERROR}")
    return error or "DIFFERS" in verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("narrows", type=Path)
    parser.add_argument("--grid", action="append", choices=GRIDS, help="only these grids (all three)")
    parser.add_argument("--only", default="", help="only clips with this in their name")
    parser.add_argument("--out", type=Path, help="write the table here, too")
    options = parser.parse_args()
    grids = options.grid or list(GRIDS)
    media = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".avi", ".264", ".ogv", ".mpg", ".flv"}
    clips = sorted(p for p in options.clips.iterdir() if p.suffix in media and options.only in p.name)
    if not clips:
        sys.exit(f"exact_table: no clip in {options.clips}")

    narrows = options.narrows.resolve()
    rows = ["| clip | " + " | ".join(TITLES[g] for g in grids) + " | notes |", "| --- " * (len(grids) + 2) + "|"]
    bad, exact = 0, 0
    for number, path in enumerate(clips, 1):
        print(f"[{number}/{len(clips)}] {path.name}", file=sys.stderr, flush=True)
        clip = Clip(narrows, path)
        verdicts = [clip.verdict(grid) for grid in grids]
        bad += sum(map(failed, verdicts))
        exact += all(v.startswith("exact") for v in verdicts)
        if len(set(verdicts)) == 1 and not verdicts[0].startswith("exact"):
            verdicts = verdicts[:1] + ["same"] * (len(verdicts) - 1)
        cells = [path.name, *verdicts, "; ".join(clip.notes)]
        rows.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    text = "\n".join(rows) + f"\n\n{len(clips)} clips: {exact} exact on every grid; {bad} cells that no rule explains.\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
