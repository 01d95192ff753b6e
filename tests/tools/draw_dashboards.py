#!/usr/bin/env python3
"""Draw Grafana dashboards as pages without Grafana, from what a Prometheus answered to their panels.

Usage: draw_dashboards.py DASHBOARDS ANSWERS.json OUT

DASHBOARDS is the folder of dashboards, ANSWERS.json what the test of the monitoring wrote ({"from", "to", "answers": {expression: result of
query_range}}; times in seconds), OUT a folder that gets one HTML page a dashboard. Panels stand where Grafana puts them, with their own
units and legends; a panel without data says so.
"""
import html
import json
import math
import re
import sys
from pathlib import Path

COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#ffb357", "#ca95e5"]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 620, 190, 64, 18, 6
PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title><style>
body {{ background: #111217; color: #ccccdc; font: 13px system-ui, sans-serif; margin: 12px }}
h1 {{ font-size: 18px; margin: 4px 0 2px }} p {{ margin: 0 0 10px; color: #9a9aa8 }}
main {{ display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px }}
section {{ background: #181b1f; border: 1px solid #2a2d33; border-radius: 3px; padding: 6px 10px; min-width: 0 }}
h2 {{ font-size: 13px; font-weight: 500; margin: 0 0 4px }} .big {{ font-size: 34px; text-align: center; padding: 12px 0 }}
svg {{ width: 100%; display: block }} text {{ fill: #9a9aa8; font-size: 11px }} ul {{ margin: 4px 0 0; padding: 0; font-size: 11px }}
li {{ display: inline-block; margin-right: 12px }} i {{ display: inline-block; width: 12px; height: 3px; margin-right: 4px; vertical-align: middle }}
.none {{ color: #f2495c; text-align: center; padding: 40px 0 }}</style><h1>{title}</h1><p>{description}</p><main>{panels}</main>
"""


def scaled(value, base, names, digits):
    """A value with the prefix that keeps it between 1 and the base."""
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    return f"{value:.{digits}g} {names[step]}".strip()


def shown(value, unit, digits=3):
    """A value as Grafana writes it in this unit, to so many digits."""
    if unit == "percentunit":
        return f"{100 * value:.{digits}g} %"
    if unit == "s":
        size = abs(value)
        for least, factor, name in ((7200, 1 / 3600, "h"), (120, 1 / 60, "min"), (1, 1, "s"), (1e-3, 1e3, "ms"), (1e-9, 1e6, "us")):
            if size >= least:
                return f"{value * factor:.{digits}g} {name}"
        return "0 s"
    if unit in ("bytes", "Bps"):
        names = ["B", "KiB", "MiB", "GiB", "TiB"] if unit == "bytes" else ["B/s", "kB/s", "MB/s", "GB/s"]
        return scaled(value, 1024 if unit == "bytes" else 1000, names, digits)
    if unit == "bps":
        return scaled(value, 1000, ["b/s", "kb/s", "Mb/s", "Gb/s"], digits)
    return scaled(value, 1000, ["", "K", "M"], digits) + (" ops/s" if unit == "ops" else "")


def round_step(span):
    """A step of 1, 2 or 5 times a power of ten, for about four lines."""
    raw = span / 4
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)


def series_of(panel, answers):
    """The panel's lines: (legend, [(time, value)]), values finite."""
    found = []
    for target in panel["targets"]:
        for one in answers.get(target["expr"], []):
            legend = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda label: one["metric"].get(label[1], ""), target.get("legendFormat", ""))
            points = [(float(at), float(value)) for at, value in one["values"]]
            points = [point for point in points if math.isfinite(point[1])]
            if points:
                found.append((legend.strip() or "value", points))
    return found


def stacked(series):
    """Each line on top of those before it."""
    below = {}
    for legend, points in series:
        raised = [(at, below.get(at, 0) + value) for at, value in points]
        below.update(raised)
        yield legend, raised


def graph(panel, series, start, end):
    """The lines of a panel as SVG, and its legend."""
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "none")
    is_stacked = "stacking" in defaults.get("custom", {})
    lines = list(stacked(series)) if is_stacked else series
    values = [value for _, points in lines for _, value in points]
    low, high = min(values + [defaults.get("min", min(values))]), max(values)
    low = 0 if 0 < low < high / 2 or is_stacked else low
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = (min(0, low), high) if high else (0, 1)
    x = lambda at: LEFT + (at - start) / (end - start) * (WIDTH - LEFT - 8)
    y = lambda value: TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
    parts, step = [], round_step(high - low)
    # Neighbouring ticks differ.
    digits = max(3, 2 + math.floor(math.log10(max(abs(low), abs(high)) / step)))
    for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        at = y(n * step)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{at:.1f}" y2="{at:.1f}" stroke="#2a2d33"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{shown(n * step, unit, digits)}</text>')
    for n in range(5):
        at = start + (end - start) * n / 4
        anchor = "start" if n == 0 else "end" if n == 4 else "middle"
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 3}" text-anchor="{anchor}">{at - start:.0f} s</text>')
    # The last stands on all others: what is filled first lies under the rest.
    for n, (_, points) in reversed(list(enumerate(lines))):
        colour = COLOURS[n % len(COLOURS)]
        drawn = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        if is_stacked:
            ends = f"{x(points[-1][0]):.1f},{y(0):.1f} {x(points[0][0]):.1f},{y(0):.1f}"
            parts.append(f'<polygon points="{drawn} {ends}" fill="#181b1f"/><polygon points="{drawn} {ends}" fill="{colour}" fill-opacity="0.3"/>')
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    keys = "".join(
        f'<li><i style="background:{COLOURS[n % len(COLOURS)]}"></i>{html.escape(legend)}</li>' for n, (legend, _) in enumerate(series)
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg><ul>{keys}</ul>'


def body(panel, answers, start, end):
    """What stands in a panel."""
    series = series_of(panel, answers)
    if not series:
        return '<div class="none">No data</div>'
    if panel["type"] == "stat":
        value = series[0][1][-1][1]
        return f'<div class="big">{shown(value, panel["fieldConfig"]["defaults"].get("unit", "none"))}</div>'
    return graph(panel, series, start, end)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    folder, told, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text())
        panels = []
        for panel in dashboard["panels"]:
            place, title = panel["gridPos"], html.escape(panel["title"])
            note = html.escape(panel.get("description", ""), quote=True)
            inside = body(panel, told["answers"], told["from"], told["to"])
            panels.append(f'<section style="grid-column: {place["x"] + 1} / span {place["w"]}"><h2 title="{note}">{title}</h2>{inside}</section>')
        page = PAGE.format(title=html.escape(dashboard["title"]), description=html.escape(dashboard["description"]), panels="".join(panels))
        (out / path.with_suffix(".html").name).write_text(page)
        print(out / path.with_suffix(".html").name)


if __name__ == "__main__":
    main()
