#!/usr/bin/env python3
"""narrows against ONE ffmpeg command that makes the same ladder: time, bits, quality, memory.

    bench_speed.py [--narrows PROGRAM] [--source CLIP] [--repeat N] [--scorer "python score.py REF DIST --json"]

The source is the kept clip joined to itself by stream copy until it lasts 60 s. narrows runs first with `--preset h265`;
its plan gives the ffmpeg command: a scaler from the source for every rung, as such commands are written (narrows scales
small rungs from larger ones where that costs no quality; `--ffmpeg-scaling chain` lends ffmpeg the same chain), the same
encoder options, a keyframe forced at every segment start, the same audio renditions, one fragmented MP4 a rung. Then both run in turn, and last both run on one core
(`--slots 1` against the same command under taskset).

On all cores ffmpeg gets the plan's encoder options to the letter (`--ffmpeg-threads same`): bits can only be compared at
equal settings, for x265's wavefront threads alone cost some per cent of them. `own` leaves ffmpeg's encoders their own
threads instead; report both. The one-core comparison always gets the options to the letter.
"""
import argparse, json, os, shlex, shutil, statistics, subprocess, sys, tempfile
from fractions import Fraction
from pathlib import Path

from measure import run

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests/media/bunny-1080p25-12s.mp4"
# What an x265 or x264 parameter list says of threads; everything else decides about the picture and stays.
THREAD_PARAMETERS = {"pools", "frame-threads", "wpp", "threads", "lookahead-threads", "sliced-threads"}
TARGETS = {"wall": 0.92, "cpu": 1.03, "bits": 0.01, "neg": 0.3, "one core cpu": 1.05}


def joined(clip, seconds, folder):
    """The clip joined to itself by stream copy, at least `seconds` long."""
    probe = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(clip)],
                           capture_output=True, text=True, check=True)
    times = max(1, -int(-seconds // float(probe.stdout)))
    if times == 1:
        return clip
    listing, out = folder / "join.txt", folder / f"source{clip.suffix}"
    listing.write_text(f"file '{clip.resolve()}'\n" * times)
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "concat", "-safe", "0", "-i", str(listing),
                    "-map", "0:V:0", "-map", "0:a?", "-c", "copy", str(out)], check=True)
    return out


def read_plan(out, work):
    """The plan, from the work folder or from the report."""
    for path in [*Path(work).rglob("plan.json"), out / "report.json"]:
        if path.exists():
            found = json.loads(path.read_text())
            plan = found.get("plan", found)
            if isinstance(plan, dict) and (plan.get("video") or {}).get("chunks"):
                return plan
    sys.exit(f"bench: no plan with chunks in {work} or {out}/report.json")


def starts(video, source):
    """Seconds of every segment start on ffmpeg's clock, whose zero is the file's earliest start and not the first picture's;
    each a quarter of a frame early: ffmpeg forces the first frame at or after it."""
    done = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=start_time", "-of", "csv=p=0", str(source)],
                          capture_output=True, text=True, check=True)
    base, zero = Fraction(*video["source_base"]), Fraction(done.stdout.strip())
    ticks = sorted({tick for chunk in video["chunks"] for tick in chunk["segments"]})
    early = 1 / Fraction(*video["frame_rate"]) / 4
    return [max(Fraction(0), tick * base - zero - early) for tick in ticks]


def without_threads(name, value):
    """An encoder option with what it says of threads taken out; None where nothing is left."""
    if name == "threads":
        return None
    if not name.endswith("-params"):
        return value
    kept = [p for p in value.split(":") if p.split("=")[0].removeprefix("no-") not in THREAD_PARAMETERS]
    return ":".join(kept) or None


def ladder_command(plan, source, folder, threads, scaling="source"):
    """The one ffmpeg command, and where it puts each rung."""
    video, files, graph = plan["video"], {}, []
    rungs = [{**r, "scale_from": r["scale_from"] if scaling == "chain" else None} for r in video["rungs"]]
    users = {i: [j for j, r in enumerate(rungs) if r["scale_from"] == i] for i in [None, *range(len(rungs))]}

    def split(label, wanted):
        """Copies of one picture for an encoder and for the scalers that start from it."""
        if len(wanted) == 1:
            return f"[{label}]null[{wanted[0]}]"
        return f"[{label}]split={len(wanted)}" + "".join(f"[{w}]" for w in wanted)

    if video["filters"]["rotation"] or video["filters"]["deinterlace"] != "off" or video["filters"]["tone_map"]:
        sys.exit("bench: choose a source that needs no filter but scaling; the comparison covers no other")
    graph.append(split(f"0:{video['stream']}", [f"to{j}" for j in users[None]]))
    for i, rung in enumerate(rungs):
        scale = f"scale={rung['width']}:{rung['height']}:flags={rung['scaler'].replace('|', '+')}"
        graph.append(f"[to{i}]{scale},format={rung['pixel_format']}[at{i}]")
        graph.append(split(f"at{i}", [f"out{i}", *(f"to{j}" for j in users[i])]))
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-i", str(source),
               "-filter_complex", ";".join(graph)]
    keyframes = ",".join(f"{float(t):.6f}" for t in starts(video, source))
    for i, rung in enumerate(rungs):
        files[rung["name"]] = folder / f"{rung['name']}.mp4"
        encoder = rung["encoder"]
        command += ["-map", f"[out{i}]", "-fps_mode", "passthrough", "-c:v", encoder["library"]]
        for name, value in {"forced-idr": "1", **encoder["options"]}.items():
            value = without_threads(name, value) if threads == "own" else value
            if value is not None:
                command += [f"-{name}", value]
        command += ["-force_key_frames", keyframes, "-tag:v", encoder["sample_entry"],
                    "-movflags", "frag_keyframe+empty_moov+default_base_moof", str(files[rung["name"]])]
    for audio in plan["audio"]:
        files[audio["name"]] = folder / f"{audio['name']}.mp4"
        command += ["-map", f"0:{audio['stream']}", "-c:a", audio["encoder"]["library"], "-b:a", str(audio["bit_rate"]),
                    "-ar", str(audio["sample_rate"]), "-ac", str(audio["channels"]),
                    "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "4000000",
                    str(files[audio["name"]])]
    return command, files


def media_bytes(path):
    """Bytes of all packets of the first stream: no container counts."""
    done = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "0", "-show_entries", "packet=size",
                           "-of", "csv=p=0", str(path)], capture_output=True, text=True, check=True)
    return sum(int(line.strip(",")) for line in done.stdout.split())


def neg(scorer, reference, distorted):
    """VMAF-NEG of one rung by the scorer's own word: the first number whose key speaks of neg, its mean if it has one."""
    words = [str(reference) if w == "REF" else str(distorted) if w == "DIST" else w for w in shlex.split(scorer)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: the scorer failed\n{done.stderr[-2000:]}")

    def search(value, named=False):
        if isinstance(value, (int, float)) and named:
            return float(value)
        if isinstance(value, dict):
            keys = sorted(value, key=lambda k: (k != "mean", list(value).index(k)))
            for key in keys:
                found = search(value[key], named or "neg" in key.lower())
                if found is not None:
                    return found
        return None

    score = search(json.loads(done.stdout[done.stdout.index("{"):]))
    return score if score is not None else sys.exit(f"bench: no VMAF-NEG in what the scorer said:\n{done.stdout[:500]}")


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.rows = options, folder, []
        self.scaling = options.ffmpeg_scaling
        self.source = joined(options.source, options.seconds, folder)
        self.out, self.work, self.linear = folder / "narrows", folder / "work", folder / "linear"

    def narrows(self, slots=None, prefix=()):
        for path in (self.out, self.work):
            shutil.rmtree(path, ignore_errors=True)
        extra = ["--slots", str(slots)] if slots else []
        return run([*prefix, str(self.options.narrows), "transcode", str(self.source), "-o", str(self.out), "--preset",
                    self.options.preset, "--work", str(self.work), "--json", *extra])

    def ffmpeg(self, threads, prefix=()):
        shutil.rmtree(self.linear, ignore_errors=True)
        self.linear.mkdir()
        command, self.files = ladder_command(self.plan, self.source, self.linear, threads, self.scaling)
        return run([*prefix, *command])

    def row(self, what, value, target, met):
        self.rows.append((what, value, target, "" if met is None else "met" if met else "MISSED"))

    def sides(self, title, runs):
        """One line a run, and the medians."""
        print(f"\n{title}\n{'':10}{'wall s':>9}{'CPU s':>9}{'peak MB, all':>14}{'largest process MB':>20}")
        middle = {}
        for side in ("narrows", "ffmpeg"):
            costs = runs[side]
            for c in costs:
                print(f"{side:10}{c.wall_s:9.1f}{c.cpu_s:9.1f}{c.peak_bytes / 1e6:14.0f}{c.largest_process_bytes / 1e6:20.0f}")
            middle[side] = [statistics.median(x) for x in
                            zip(*((c.wall_s, c.cpu_s, c.peak_bytes) for c in costs))]
        return middle["narrows"], middle["ffmpeg"]

    def speed(self):
        runs = {"narrows": [], "ffmpeg": []}
        for repeat in range(self.options.repeat):
            print(f"repetition {repeat + 1} of {self.options.repeat}", file=sys.stderr, flush=True)
            runs["narrows"].append(self.narrows())
            self.plan = read_plan(self.out, self.work)
            runs["ffmpeg"].append(self.ffmpeg(self.options.ffmpeg_threads))
        ours, theirs = self.sides(f"all {os.cpu_count()} cores, side by side", runs)
        wall, cpu = ours[0] / theirs[0], ours[1] / theirs[1]
        self.row("wall clock, narrows / ffmpeg", f"{wall:.3f}", f"<= {TARGETS['wall']}", wall <= TARGETS["wall"])
        self.row("CPU, narrows / ffmpeg", f"{cpu:.3f}", f"<= {TARGETS['cpu']}", cpu <= TARGETS["cpu"])
        self.row("peak memory of all processes", f"{ours[2] / 1e6:.0f} MB, ffmpeg {theirs[2] / 1e6:.0f} MB", "reported", None)

    def bits(self, against, judged):
        """Bits of each rung against ffmpeg's files of the last run."""
        for rung in self.plan["video"]["rungs"]:
            name = rung["name"]
            ratio = media_bytes(self.out / name / "index.m3u8") / media_bytes(self.files[name])
            met = abs(ratio - 1) <= TARGETS["bits"] if judged else None
            self.row(f"bits of {name}, narrows / {against}", f"{ratio:.4f}", "within 1 %" if judged else "reported", met)

    def quality(self):
        for rung in self.plan["video"]["rungs"]:
            name = rung["name"]
            print(f"scoring {name}", file=sys.stderr, flush=True)
            both = (self.out / name / "index.m3u8", self.files[name])
            ours, theirs = (neg(self.options.scorer, self.source, path) for path in both)
            self.row(f"VMAF-NEG of {name}, narrows - ffmpeg", f"{ours - theirs:+.3f} ({ours:.2f}, {theirs:.2f})",
                     f"within {TARGETS['neg']}", abs(ours - theirs) <= TARGETS["neg"])

    def one_core(self):
        core = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
        runs = {"narrows": [], "ffmpeg": []}
        for repeat in range(self.options.one_core_repeat):
            print(f"one core, repetition {repeat + 1} of {self.options.one_core_repeat}", file=sys.stderr, flush=True)
            runs["narrows"].append(self.narrows(slots=1))
            runs["ffmpeg"].append(self.ffmpeg("same", core))
        ours, theirs = self.sides("--slots 1, against ffmpeg pinned to one core", runs)
        cpu = ours[1] / theirs[1]
        self.row("CPU with --slots 1, narrows / ffmpeg", f"{cpu:.3f}", f"<= {TARGETS['one core cpu']}",
                 cpu <= TARGETS["one core cpu"])

    def table(self):
        widths = [max(len(r[i]) for r in self.rows) for i in range(4)]
        print()
        for row in self.rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        return 1 if any(row[3] == "MISSED" for row in self.rows) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrows", type=Path, default=ROOT / "target/release/narrows")
    parser.add_argument("--source", type=Path, default=KEPT)
    parser.add_argument("--seconds", type=float, default=60, help="the source is joined to itself to last so long")
    parser.add_argument("--preset", default="h265")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one-core-repeat", type=int, default=1, help="0 leaves the one-core comparison out")
    parser.add_argument("--ffmpeg-threads", choices=["own", "same"], default="same")
    parser.add_argument("--ffmpeg-scaling", choices=["source", "chain"], default="source")
    parser.add_argument("--scorer", help='command that scores VMAF-NEG as JSON; the words REF and DIST become files')
    parser.add_argument("--keep", type=Path, help="work in this folder and leave everything there")
    parser.add_argument("--show", action="store_true", help="print the ffmpeg command for a plan in --keep, and stop")
    options = parser.parse_args()
    options.narrows = options.narrows.resolve()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="narrows-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        bench = Bench(options, folder)
        if options.show:
            plan = read_plan(bench.out, bench.work)
            print(shlex.join(ladder_command(plan, bench.source, bench.linear, options.ffmpeg_threads, options.ffmpeg_scaling)[0]))
            return 0
        bench.speed()
        literal = not options.one_core_repeat or options.ffmpeg_threads == "same"
        bench.bits("ffmpeg on all cores", judged=literal)
        if options.one_core_repeat:
            bench.one_core()
            bench.bits("ffmpeg, same options", judged=True)
        if options.scorer:
            bench.quality()
        return bench.table()
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
