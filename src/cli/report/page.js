"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.querySelector(".tip");
  const hidden = new Set();
  const plots = [...document.querySelectorAll(".plot")];
  const timed = plots.filter((plot) => plot.dataset.plot !== "curves");
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const number = (value, digits) =>
    value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    const pad = (n) => String(n).padStart(2, "0");
    const [h, m, s] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, Math.floor(tenths / 10) % 60];
    return `${h ? `${h}:${pad(m)}` : m}:${pad(s)}.${tenths % 10}`;
  };
  /** The last entry of a sorted list of [start, value] that began at or before a time. */
  const at = (steps, time) => {
    let [low, high] = [0, steps.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle][0] <= time + 1e-6) low = middle + 1;
      else high = middle;
    }
    return low > 0 ? steps[low - 1][1] : undefined;
  };

  const place = (x, y) => {
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const right = x + 16 + box.width < innerWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(right ? x + 16 : x - 16 - box.width, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(y - box.height / 2, innerHeight - box.height - 8))}px`;
  };
  const leave = () => {
    tip.hidden = true;
    for (const plot of plots) plot.classList.remove("active");
  };

  const heading = (time) => {
    const chunk = at(data.chunks, time);
    const words = [clock(time)];
    if (chunk !== undefined) words.push(`chunk ${number(chunk, 0)}`);
    if (data.repaired.includes(chunk)) words.push("encoded once more");
    if (data.cuts.some((cut) => Math.abs(cut - time) < data.duration_s / 250)) words.push("scene cut");
    return words.join(" \u00b7 ");
  };
  const table = (plot, time) => {
    const shown = plot.rows.filter((row) => row.rung === 0 && plot.rows.length === 1 || !hidden.has(row.rung));
    if (!shown.length) return element("p", "every rung is hidden");
    const made = element("table");
    const head = made.createTHead().insertRow();
    head.append(element("th", plot.unit), ...shown[0].columns.map((column) => element("th", column.name)));
    const body = made.createTBody();
    for (const row of shown) {
      const line = body.insertRow();
      const name = element("th", row.name);
      name.prepend(element("i", "", `swatch r${Math.min(row.rung, 8)}`));
      line.append(name);
      for (const { steps, digits } of row.columns) {
        const value = at(steps, time);
        line.append(element("td", value === undefined ? "\u2013" : number(value, value < 100 && digits === 0 ? 1 : digits)));
      }
    }
    return made;
  };
  const showTime = (plot, part, x, y) => {
    const time = Math.max(0, Math.min(1, part)) * data.duration_s;
    for (const other of timed) {
      other.classList.add("active");
      other.querySelector(".cross").style.left = `${Math.max(0, Math.min(1, part)) * 100}%`;
    }
    const values = data.plots[plot.dataset.plot];
    tip.replaceChildren(element("b", heading(time)), ...(values ? [table(values, time)] : []));
    place(x, y);
  };
  const showPoint = (plot, point) => {
    const box = plot.getBoundingClientRect();
    plot.classList.add("active");
    const ring = plot.querySelector(".ring");
    ring.style.left = `${point.left * 100}%`;
    ring.style.top = `${point.top * 100}%`;
    const what = { size: "at this size", planned: "rung, planned", measured: "rung, measured" }[point.what] ?? point.what;
    const values = `${number(point.kbps, point.kbps < 100 ? 1 : 0)} kbit/s, VMAF-NEG ${number(point.vmaf, 1)}`;
    tip.replaceChildren(element("b", `${point.name} \u00b7 ${what}`), element("p", values));
    place(box.left + point.left * box.width, box.top + point.top * box.height);
  };
  const nearest = (plot, x, y) => {
    const box = plot.getBoundingClientRect();
    let best, least = 30;
    for (const point of data.points) {
      const distance = Math.hypot(box.left + point.left * box.width - x, box.top + point.top * box.height - y);
      // What was decided lies over the curves.
      const weighed = point.what === "size" ? distance + 8 : distance;
      if (weighed < least) [best, least] = [point, weighed];
    }
    return best;
  };

  for (const plot of plots) {
    const isCurves = plot.dataset.plot === "curves";
    const point = (event) => {
      const box = plot.getBoundingClientRect();
      if (!isCurves) return showTime(plot, (event.clientX - box.left) / box.width, event.clientX, event.clientY);
      const found = nearest(plot, event.clientX, event.clientY);
      if (found) showPoint(plot, found);
      else leave();
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    // A finger that is lifted leaves, and what it pointed at is to be read.
    plot.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && leave());
    plot.addEventListener("blur", leave);
    let where = -1;
    plot.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") leave();
      if (!way) return;
      event.preventDefault();
      const box = plot.getBoundingClientRect();
      if (isCurves) {
        const decided = data.points.filter((point) => point.what !== "size").sort((a, b) => a.kbps - b.kbps);
        if (!decided.length) return;
        where = Math.max(0, Math.min(decided.length - 1, where + way));
        return showPoint(plot, decided[where]);
      }
      where = Math.max(0, Math.min(100, where + way));
      showTime(plot, where / 100, box.left + (where / 100) * box.width, box.top + box.height / 2);
    });
  }
  addEventListener("scroll", leave, { passive: true });

  for (const box of document.querySelectorAll("[data-rung]")) {
    const apply = () => {
      const rung = Number(box.dataset.rung);
      if (box.checked) hidden.delete(rung);
      else hidden.add(rung);
      for (const drawn of document.querySelectorAll(`[data-r="${rung}"]`)) drawn.classList.toggle("off", !box.checked);
    };
    box.addEventListener("change", apply);
    // A browser that goes back to a page keeps its switches.
    apply();
  }

  for (const figure of document.querySelectorAll(".moment:has(.pair)")) {
    const [label, pair] = [figure.querySelector(".wipe"), figure.querySelector(".pair")];
    const [box, range] = [label.querySelector("input"), pair.querySelector("input")];
    const apply = () => {
      pair.classList.toggle("wiped", box.checked);
      range.hidden = !box.checked;
      pair.style.setProperty("--cut", `${range.value}%`);
    };
    label.hidden = false;
    box.addEventListener("change", apply);
    range.addEventListener("input", apply);
    apply();
  }
})();
