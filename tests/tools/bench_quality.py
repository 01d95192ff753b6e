#!/usr/bin/env python3
"""Narrowband against the ladders it replaces: bits, quality and cost on real clips.

    bench_quality.py CLIP... [--codec h265|h264] [--narrows PROGRAM] [--scorer "python score.py REF DIST --json"]
                     [--out FOLDER] [--set PATH=VALUE]... [--only a0,avc,a1,whole,shuffled,sharpened]

Of every clip these are made by narrows, all with the same encoder, speed and chunks, and every rung is scored at the size
the source is shown in:

    narrowband   the preset narrowband-CODEC
    a0           the fixed ladder of capped VBR; rungs above the source are left out
    avc          the fixed ladder of H.264 beside narrowband H.265
    a1           narrowband's own rungs, each at one CRF for the whole title: the mean of what narrowband chose, by time
    whole        a1 in one chunk, its key frames where they are: what cutting costs
    shuffled     narrowband with the CRFs of the chunks interchanged: has to lose
    sharpened    the clip sharpened, without any encode: has to score as a loss

Several clips joined by `+` are joined by stream copy (the same codec, size and rate), or, where they differ, by one
lossless encode in the size of the first: titles of several scenes. What was made and scored stays in FOLDER, and is not
made again: a run that was broken off is taken up. At the end a Markdown table on standard output, and all figures in
FOLDER/quality.json.

The scorer prints JSON with `neg`, `v1` (each with `mean` and `p5`) and `xpsnr_y_db`; without one it is `narrows measure`.
"""
import argparse, json, math, os, random, shlex, signal, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXED = {  # short side: kbit/s
    "h265": [(1080, 5800), (1080, 4500), (720, 3400), (720, 2400), (540, 1600), (432, 900), (360, 600), (234, 300), (234, 145)],
    "h264": [(1080, 7800), (1080, 6000), (720, 4500), (720, 3000), (540, 2000), (432, 1100), (360, 730), (234, 365), (234, 145)],
}
# The speed of the narrowband presets, which all that is compared has.
SPEED = {"h265": "fast", "h264": "slow"}
# Of a capped VBR the peak over the mean.
CAP = 1.5
# VMAF saturates above; points there say nothing of rate.
SATURATED = 97.0
VARIANTS = ["a0", "avc", "a1", "whole", "shuffled", "sharpened"]


def sh(command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"bench: {shlex.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def probe(clip):
    """Width, height, frame rate and codec of the first picture stream."""
    fields = "stream=width,height,r_frame_rate,codec_name,pix_fmt"
    found = json.loads(sh(["ffprobe", "-v", "error", "-select_streams", "V:0", "-show_entries", fields, "-of", "json", clip]))
    stream = found["streams"][0]
    return tuple(stream[name] for name in ("width", "height", "r_frame_rate", "codec_name", "pix_fmt"))


def source_of(word, folder):
    """The clip, or the clips joined, and its name."""
    clips = [Path(clip) for clip in word.split("+")]
    name = "+".join(clip.stem.split("__")[0] for clip in clips)
    if len(clips) == 1:
        return clips[0].stem, clips[0]
    out = folder / f"{name}.mkv"
    if not out.exists():
        listing = folder / f"{name}.txt"
        kinds = [probe(clip) for clip in clips]
        if all(kind == kinds[0] for kind in kinds) and all(clip.suffix == clips[0].suffix for clip in clips):
            listing.write_text("".join(f"file '{clip.resolve()}'\n" for clip in clips))
            made = ["-f", "concat", "-safe", "0", "-i", listing, "-map", "0:V:0", "-c", "copy"]
        else:
            width, height, rate = kinds[0][:3]
            inputs = [word for clip in clips for word in ("-i", clip)]
            scale = f"scale={width}:{height}:force_original_aspect_ratio=decrease:flags=lanczos,pad={width}:{height}:-1:-1"
            each = ";".join(f"[{n}:V:0]{scale},fps={rate},format=yuv420p,setsar=1[v{n}]" for n in range(len(clips)))
            graph = each + ";" + "".join(f"[v{n}]" for n in range(len(clips))) + f"concat=n={len(clips)}:v=1[v]"
            made = [*inputs, "-filter_complex", graph, "-map", "[v]", "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-g", "48"]
        part = out.with_suffix(".part.mkv")
        sh(["ffmpeg", "-v", "error", "-nostdin", "-y", *made, part])
        part.rename(out)
    return name, out


class Bench:
    def __init__(self, options):
        self.options, self.codec, self.folder = options, options.codec, Path(options.out)
        self.folder.mkdir(parents=True, exist_ok=True)

    def transcode(self, source, out, preset, settings):
        """Runs narrows unless it has; the report."""
        if not (out / "report.json").exists():
            sets = [word for path, value in settings.items() for word in ("--set", f"{path}={json.dumps(value)}")]
            sh([self.options.narrows, "transcode", source, "-o", out, "--preset", preset, *sets, *self.own(preset)])
        return json.loads((out / "report.json").read_text())

    def own(self, preset):
        """What the caller has set, as arguments: what is narrowband's to narrowband only."""
        fit = [s for s in self.options.set if not s.startswith("narrowband.") or preset.startswith("narrowband")]
        return [word for setting in fit for word in ("--set", setting)]

    def joined(self, out, rung):
        """The rung as one file: its init segment and its segments, in order."""
        folder = out / rung
        file = out / f"{rung}.joined.mp4"
        if not file.exists():
            lines = (folder / "index.m3u8").read_text().splitlines()
            init = next(line.split('URI="')[1].split('"')[0] for line in lines if line.startswith("#EXT-X-MAP"))
            names = [init] + [line for line in lines if line and not line.startswith("#")]
            file.write_bytes(b"".join((folder / name).read_bytes() for name in names))
        return file

    def score(self, source, distorted, cache):
        if not cache.exists():
            if self.options.scorer:
                words = shlex.split(self.options.scorer)
                words = [{"REF": str(source), "DIST": str(distorted)}.get(word, word) for word in words]
                found = json.loads(sh(words))
            else:
                # Smaller pictures are too small for the model.
                models = ["--model", "neg", "--model", "v1"] if min(probe(source)[:2]) >= 216 else ["--model", "neg"]
                own = [self.options.narrows, "measure", source, distorted, "--json", "--subsample", self.options.subsample, *models]
                found = own_score(json.loads(sh(own)))
            cache.write_text(json.dumps(found))
        return json.loads(cache.read_text())

    def rungs(self, source, out, report):
        """Every rung with its rate, size and scores."""
        found = []
        for rung in report["rungs"]:
            scores = self.score(source, self.joined(out, rung["name"]), out / f"{rung['name']}.score.json")
            found.append({
                "name": rung["name"], "height": min(rung["width"], rung["height"]), "kbps": rung["bytes"] * 8e-3 / rung["duration_s"],
                "bytes": rung["bytes"], "neg": scores["neg"]["mean"], "p5": scores["neg"]["p5"],
                "v1": (scores.get("v1") or {}).get("mean"), "xpsnr": scores.get("xpsnr_y_db"),
            })
        return found

    def clip(self, word):
        name, source = source_of(word, self.folder)
        base = self.folder / f"{name}-{self.codec}"
        base.mkdir(exist_ok=True)
        quiet = {"narrowband.grid.mode": "fixed"}
        # Of the fixed ladders, too: what is compared is what is decided, not where segments begin.
        chunks = {"chunk.target_s": 4, "chunk.shortest_s": 2, "chunk.longest_s": 6}
        speed = {"video.speed": SPEED[self.codec]}
        made = self.transcode(source, base / "narrowband", f"narrowband-{self.codec}", quiet)
        result = {"clip": name, "seconds": made["totals"]["duration_s"], "chunks": len(made["chunks"]), "cost": made["narrowband"]["cost"]}
        top = made["narrowband"]["decision"]["rungs"][0]
        result["goal"], result["planned"] = top["goal_vmaf"], top["predicted_vmaf"]
        scored = [chunk["rungs"][0].get("measured") for chunk in made["chunks"]]
        result["below_floor"] = sum(1 for m in scored if m and m["vmaf_neg"] < top["floor_vmaf"])
        result["narrowband"] = self.rungs(source, base / "narrowband", made)
        short = min(probe(source)[:2])
        fixed = [("a0", self.codec)] + [("avc", "h264")] * (self.codec == "h265")
        for variant, codec in fixed:
            if variant in self.options.only:
                rungs = [(side, kbps) for side, kbps in FIXED[codec] if side <= short] or [(short, FIXED[codec][-1][1])]
                ladder = [{"height": side, "kbps": kbps, "max_kbps": int(kbps * CAP)} for side, kbps in rungs]
                made_fixed = self.transcode(source, base / variant, codec, chunks | {"video.speed": SPEED[codec], "video.rungs": ladder})
                result[variant] = self.rungs(source, base / variant, made_fixed)
        constant = [{"height": min(rung["width"], rung["height"]), "crf": mean_crf(made, n)}
                    for n, rung in enumerate(made["narrowband"]["decision"]["rungs"])]
        if "a1" in self.options.only:
            result["a1"] = self.rungs(source, base / "a1", self.transcode(source, base / "a1", self.codec, chunks | speed | {"video.rungs": constant}))
        if "whole" in self.options.only:
            made_whole = self.changed(source, base / "whole", self.codec, chunks | speed | {"video.rungs": constant}, "plan.json", one_chunk)
            result["whole"] = self.rungs(source, base / "whole", made_whole)
        if "shuffled" in self.options.only and len(made["chunks"]) > 2:
            result["shuffled"] = self.rungs(source, base / "shuffled", self.changed(
                source, base / "shuffled", f"narrowband-{self.codec}", quiet, "plan-decided.json", shuffled))
        if "sharpened" in self.options.only:
            sharp = base / "sharpened.mkv"
            if not sharp.exists():
                sharpen = ["-map", "0:V:0", "-vf", "unsharp=5:5:1.0", "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"]
                sh(["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", source, *sharpen, "-fps_mode", "passthrough", sharp])
            result["sharpened"] = self.score(source, sharp, base / "sharpened.score.json")["neg"]["mean"]
        return result

    def changed(self, source, out, preset, settings, plan, change):
        """A run broken off when its plan (a file of this name) is written, and taken up again after `change(plan)`."""
        if not (out / "report.json").exists():
            sets = [word for path, value in settings.items() for word in ("--set", f"{path}={json.dumps(value)}")]
            command = [str(w) for w in [self.options.narrows, "transcode", source, "-o", out, "--preset", preset, *sets, *self.own(preset)]]
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            written = None
            while not written and running.poll() is None:
                time.sleep(0.02)
                written = next(out.rglob(plan), None) if out.exists() else None
            running.send_signal(signal.SIGKILL)
            running.wait()
            if not written:
                sys.exit(f"bench: no {plan} of {out.name} to change")
            found = json.loads(written.read_text())
            change(found.get("plan", found))
            written.write_text(json.dumps(found))
            for marker in written.parent.glob("done/encode/*"):
                marker.unlink()
        return self.transcode(source, out, preset, settings)


def one_chunk(plan):
    """All of a title in one encode, its key frames where they are."""
    video = plan["video"]
    chunks = video["chunks"]
    video["chunks"] = [chunks[0] | {"end": None, "segments": [start for chunk in chunks for start in chunk["segments"]]}]


def shuffled(plan):
    """The CRFs of a title's chunks interchanged."""
    random.Random(4).shuffle(plan["video"]["narrowband"]["crf"])


def own_score(found):
    """The report of `narrows measure` as the scorers of the field write it."""
    models = {name: {"mean": of["mean"], "p5": of["p5"]} for name, of in found["vmaf"].items()}
    return models | {"xpsnr_y_db": found["xpsnr"]["y"]["mean"]}


def mean_crf(report, rung):
    """The CRF of a rung over the title, by time, in quarters."""
    total = sum(chunk["duration_s"] for chunk in report["chunks"])
    crfs = report["narrowband"]["decision"]["rungs"][rung]["chunks"]
    mean = sum(of["crf"] * chunk["duration_s"] for of, chunk in zip(crfs, report["chunks"])) / total
    return round(mean * 4) / 4


def bd_rate(anchor, test, by="neg"):
    """Mean difference of rate at equal quality, %, between monotone cubics of the logarithm of rate over quality (Bjontegaard,
    VCEG-M33, with the interpolation that has no overshoot). None: they overlap by less than half."""
    def curve(rungs):
        points = []
        for rung in sorted(rungs, key=lambda rung: rung["kbps"]):
            if rung[by] is not None and (by == "xpsnr" or rung[by] <= SATURATED) and (not points or rung[by] > points[-1][0]):
                points.append((rung[by], math.log(rung["kbps"])))
        return points
    a, t = curve(anchor), curve(test)
    if len(a) < 2 or len(t) < 2:
        return None
    low, high = max(a[0][0], t[0][0]), min(a[-1][0], t[-1][0])
    if high - low < 0.5 * min(a[-1][0] - a[0][0], t[-1][0] - t[0][0]):
        return None
    steps = 400
    qualities = [low + (high - low) * (n + 0.5) / steps for n in range(steps)]
    at_a, at_t = monotone(a), monotone(t)
    mean = sum(at_t(q) - at_a(q) for q in qualities) / steps
    return 100 * (math.exp(mean) - 1)


def monotone(points):
    """The cubic through points (x, y) of rising x that has no extremum between them, as a function (Fritsch and Butland, 1984)."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    widths = [b - a for a, b in zip(xs, xs[1:])]
    slopes = [(b - a) / w for a, b, w in zip(ys, ys[1:], widths)]

    def inner(n):
        before, after = slopes[n - 1], slopes[n]
        if before * after <= 0:
            return 0.0
        long, short = 2 * widths[n] + widths[n - 1], widths[n] + 2 * widths[n - 1]
        return (long + short) / (long / before + short / after)

    def end(width, beyond, slope, next_slope):
        tangent = ((2 * width + beyond) * slope - width * next_slope) / (width + beyond)
        if tangent * slope <= 0:
            return 0.0
        return 3 * slope if slope * next_slope <= 0 and abs(tangent) > 3 * abs(slope) else tangent

    if len(slopes) < 2:
        tangents = slopes * 2
    else:
        first, last = (widths[0], widths[1], slopes[0], slopes[1]), (widths[-1], widths[-2], slopes[-1], slopes[-2])
        tangents = [end(*first), *(inner(n) for n in range(1, len(slopes))), end(*last)]

    def at(x):
        n = max(0, min(len(widths) - 1, next((n for n, right in enumerate(xs[1:]) if x <= right), len(widths) - 1)))
        width, part = widths[n], (x - xs[n]) / widths[n]
        rise = ys[n + 1] - ys[n]
        c = 3 * rise - width * (2 * tangents[n] + tangents[n + 1])
        d = width * (tangents[n] + tangents[n + 1]) - 2 * rise
        return ys[n] + part * (width * tangents[n] + part * (c + part * d))
    return at


def rate_at(rungs, quality, by):
    """The rate, kbit/s, that gives this quality, between rungs as in `bd_rate`; that of the last where even it is better, None
    where the first is worse."""
    rising = []
    for rung in sorted(rungs, key=lambda rung: rung["kbps"]):
        if not rising or rung[by] > rising[-1][by]:
            rising.append(rung)
    if quality > rising[-1][by] + 0.05:
        return None
    if quality <= rising[0][by] or len(rising) < 2:
        return rising[0]["kbps"]
    points = [(rung[by], math.log(rung["kbps"])) for rung in rising]
    return math.exp(monotone(points)(min(quality, rising[-1][by])))


def matched(fixed, ours):
    """For every fixed rung what ours spends for no less in mean and p5: (kbit/s of the fixed rung, of ours or None)."""
    pairs = []
    for rung in fixed:
        rates = [rate_at(ours, rung[by], by) for by in ("neg", "p5")]
        pairs.append((rung["kbps"], None if None in rates else max(rates)))
    return pairs


def summary(result):
    ours = result["narrowband"]
    line = {"clip": result["clip"], "seconds": result["seconds"], "chunks": result["chunks"], "goal": result["goal"], "neg": ours[0]["neg"],
            "share": result["cost"]["share"], "below_floor": result["below_floor"]}
    if "a0" in result:
        fixed = result["a0"]
        pairs = matched(fixed, ours)
        equal = [(f, o) for f, o in pairs if o]
        line |= {
            "a0_storage": 100 * (sum(o["bytes"] for o in ours) / sum(f["bytes"] for f in fixed) - 1),
            "a0_bd_neg": bd_rate(fixed, ours), "a0_bd_v1": bd_rate(fixed, ours, "v1"), "a0_bd_xpsnr": bd_rate(fixed, ours, "xpsnr"),
            "a0_matched": f"{len(equal)}/{len(pairs)}",
            "a0_matched_bits": 100 * (sum(o for _, o in equal) / sum(f for f, _ in equal) - 1) if equal else None,
        }
    if "avc" in result:
        pairs = [pair for pair in matched(result["avc"], ours) if pair[1]]
        line |= {"avc_storage": 100 * (sum(o["bytes"] for o in ours) / sum(f["bytes"] for f in result["avc"]) - 1),
                 "avc_bd_neg": bd_rate(result["avc"], ours),
                 "avc_matched_bits": 100 * (sum(o for _, o in pairs) / sum(f for f, _ in pairs) - 1) if pairs else None}
    if "a1" in result:
        line |= {"a1_bd_neg": bd_rate(result["a1"], ours), "a1_bd_v1": bd_rate(result["a1"], ours, "v1")}
    if "whole" in result:
        line["cut_bd_neg"] = bd_rate(result["whole"], result["a1"]) if "a1" in result else None
    if "shuffled" in result:
        line["shuffled_bd_neg"] = bd_rate(ours, result["shuffled"])
    if "sharpened" in result:
        line["sharpened"] = result["sharpened"]
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="CLIP")
    parser.add_argument("--codec", choices=FIXED, default="h265")
    parser.add_argument("--narrows", default=str(ROOT / "target/release/narrows"))
    parser.add_argument("--scorer")
    parser.add_argument("--subsample", default="3", help="one picture in so many is scored, by `narrows measure`")
    parser.add_argument("--out", default="target/bench-quality")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--only", default=",".join(VARIANTS), type=lambda text: [word for word in text.split(",") if word])
    options = parser.parse_args()
    bench = Bench(options)
    results = []
    for word in options.clips:
        begun = time.time()
        results.append(bench.clip(word))
        print(f"bench: {results[-1]['clip']} in {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
        (bench.folder / "quality.json").write_text(json.dumps(results, indent=1))
    lines = [summary(result) for result in results]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    show = lambda value: f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for line in lines:
        print("| " + " | ".join(show(line.get(name)) for name in columns) + " |")
    for name in columns:
        values = [line[name] for line in lines if isinstance(line.get(name), float)]
        if name.endswith(("_neg", "_v1", "_xpsnr", "_storage", "_bits")) and values:
            mean = math.exp(sum(math.log(1 + value / 100) for value in values) / len(values))
            print(f"\ngeometric mean of {name}: {100 * (mean - 1):+.2f} % over {len(values)} clips", end="")
    print()


if __name__ == "__main__":
    main()
