#!/usr/bin/env python3
"""Ten-hour sources: what a probe takes. A clip is joined to itself by stream copy, as MP4 and as MPEG-TS.

    bench_scale.py [--narrows PROGRAM] [--source CLIP] [--hours H] [--folder DIR]

For each prints: size, seconds of `narrows probe --json`, bytes read (as the probe says), share of the file, memory of
the parent, largest memory of any process (the child, with libavformat's own sample table of an MP4). Targets: an MP4
probe reads under 1 % of the file; the parent's memory is flat, ten times the length takes at most 1.5 times as much.
The files are removed unless --folder says where to keep them.
"""
import argparse, json, shutil, subprocess, sys, tempfile
from pathlib import Path

from measure import run

ROOT = Path(__file__).resolve().parents[2]
# Small enough for a ten-hour file to be some gigabytes: the same film, 20 times smaller.
REDUCE = ["-vf", "scale=640:-2", "-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-c:a", "aac", "-b:a", "64k",
          "-ac", "2"]
MOST_SHARE = 0.01
MOST_GROWTH = 1.5


def ffmpeg(*words):
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)], check=True)


def join(clip, hours, out):
    if out.exists():
        return out
    probe = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(clip)],
                           capture_output=True, text=True, check=True)
    times = -int(-hours * 3600 // float(probe.stdout))
    listing = out.with_suffix(".txt")
    listing.write_text(f"file '{clip.resolve()}'\n" * times)
    part = out.with_name("part." + out.name)
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-map", "0:V:0", "-map", "0:a?", "-c", "copy", part)
    part.rename(out)
    return out


def number(value, key):
    """The first number of that name, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get(key), (int, float)):
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((n for n in (number(v, key) for v in value) if n is not None), None)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrows", type=Path, default=ROOT / "target/release/narrows")
    parser.add_argument("--source", type=Path, help="joined as it is (the kept clip, reduced)")
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="narrows-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    missed = False
    try:
        clip = options.source
        if not clip:
            clip = folder / "reduced.mp4"
            if not clip.exists():
                ffmpeg("-i", ROOT / "tests/media/bunny-1080p25-12s.mp4", *REDUCE, clip)
        print(f"{'source':12}{'MB':>9}{'probe s':>9}{'read MB':>9}{'share %':>9}{'parent MB':>11}{'largest MB':>12}")
        for suffix in (".mp4", ".ts"):
            peaks = []
            for hours in (options.hours / 10, options.hours):
                source = join(clip, hours, folder / f"{hours:g}h{suffix}")
                size = source.stat().st_size
                cost = run([str(options.narrows.resolve()), "probe", str(source), "--json"])
                read = number(json.loads(cost.stdout), "bytes_read") or 0
                peaks.append(cost.first_process_bytes)
                share = read / size
                print(f"{source.name:12}{size / 1e6:9.0f}{cost.wall_s:9.2f}{read / 1e6:9.1f}{share * 100:9.3f}"
                      f"{peaks[-1] / 1e6:11.0f}{cost.largest_process_bytes / 1e6:12.0f}", flush=True)
                if suffix == ".mp4" and hours == options.hours and share >= MOST_SHARE:
                    print(f"MISSED: the probe of an MP4 reads under {MOST_SHARE:.0%} of it")
                    missed = True
            if peaks[1] > MOST_GROWTH * peaks[0]:
                print(f"MISSED: ten times the length took {peaks[1] / peaks[0]:.2f} times the memory of the parent")
                missed = True
        print("missed" if missed else "met: an MP4 probe reads under 1 % of the file, and the parent's memory is flat")
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
