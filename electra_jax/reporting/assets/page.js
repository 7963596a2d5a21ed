// Draws the charts of the page from the JSON in #data, with uPlot.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const controls = document.getElementById("controls");
  if (!controls) return;
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  const smoothing = document.getElementById("smoothing");
  const settings = { axis: "steps", smoothing: 0 };
  const several = data.runs.length > 1;
  const HEIGHT = 190;
  const DASHES = [[], [8, 4], [8, 3, 2, 3], [3, 3], [12, 3, 3, 3, 3, 3]];

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = (index) => style(`--series-${(index % 6) + 1}`);

  // Numbers.

  const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
  const compact = (value) => {
    const unit = UNITS.find(([size]) => Math.abs(value) >= size);
    return unit ? `${+(value / unit[0]).toPrecision(3)}${unit[1]}` : `${+value.toPrecision(3)}`;
  };
  const precise = (value) => {
    if (value == null) return "–";
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
    return Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : `${+value.toPrecision(4)}`;
  };
  // A tick of an axis, with as many digits as its neighbours differ in.
  const fixed = (value, step) => {
    if (Math.abs(value) >= 1e4) return compact(value);
    const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
    return digits > 5 && value !== 0 ? value.toExponential(1) : value.toFixed(Math.min(digits, 5));
  };
  const clock = (seconds) => {
    if (seconds < 90) return `${+seconds.toPrecision(3)} s`;
    if (seconds < 5400) return `${+(seconds / 60).toPrecision(3)} min`;
    return `${+(seconds / 3600).toPrecision(3)} h`;
  };
  const AXES = {
    steps: { name: "step", tick: compact, full: (x) => `Step ${Math.round(x).toLocaleString("en")}` },
    tokens: { name: "tokens", tick: compact, full: (x) => `${compact(x)} tokens` },
    time: { name: "time", tick: clock, full: (x) => clock(x) },
  };

  // Where a step of a run lies on the axis.
  const place = (run, step) => {
    const { tokens, clock: [steps, seconds] } = data.runs[run];
    if (settings.axis === "steps") return step;
    if (settings.axis === "tokens") return step * tokens;
    let low = 0, high = steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1; else high = middle;
    }
    if (low === 0 || steps[low] === step) return seconds[low];
    const share = (step - steps[low - 1]) / (steps[low] - steps[low - 1]);
    return seconds[low - 1] + share * (seconds[low] - seconds[low - 1]);
  };

  // A moving average that forgets, without the pull of its start.
  const smooth = (values, weight) => {
    let sum = 0, total = 0;
    return values.map((value) => {
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    });
  };

  const isSmoothed = (curve) => curve.kind !== "held out" && curve.kind !== "baseline";

  // How a curve looks: runs differ by colour and dashes, what was measured by its width and dots.
  const look = (curve, index) => {
    const colour = several ? palette(curve.run)
      : curve.kind === "baseline" ? style("--muted")
      : curve.kind === "training" ? palette(0)
      : curve.kind === "held out" ? palette(1) : palette(index);
    const dash = curve.kind === "baseline" ? [2, 4]
      : several ? DASHES[curve.run % DASHES.length]
      : curve.kind === "training" || curve.kind === "held out" ? [] : DASHES[index % DASHES.length];
    return {
      stroke: colour, dash, width: curve.kind === "held out" ? 2 : 1.5,
      points: curve.kind === "held out" || curve.steps.length === 1
        ? { show: true, size: 5, fill: colour, width: 0 } : { show: false },
    };
  };

  const nameOf = (curve) => several ? `${data.runs[curve.run].name}, ${curve.kind}` : curve.kind;

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.curves = data.charts[+figure.dataset.chart].curves;
      this.plot = figure.querySelector(".plot");
      this.at = figure.querySelector(".at");
      this.status = figure.querySelector("[role=status]");
      this.hidden = new Set();
      this.buttons = this.curves.map((curve, index) => this.legend(curve, index));
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("blur", () => this.leave());
      this.draw();
      new ResizeObserver(() => {
        const width = this.plot.clientWidth;
        if (width && width !== this.u.width) this.u.setSize({ width, height: HEIGHT });
      }).observe(this.plot);
    }

    legend(curve, index) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      key.setAttribute("viewBox", "0 0 26 8");
      key.setAttribute("aria-hidden", "true");
      const name = document.createElement("bdi");
      name.textContent = nameOf(curve);
      const value = document.createElement("span");
      value.className = "now";
      button.append(key, name, value);
      button.addEventListener("click", () => {
        if (this.hidden.has(index)) this.hidden.delete(index); else this.hidden.add(index);
        const shown = !this.hidden.has(index);
        button.setAttribute("aria-pressed", String(shown));
        this.u.batch(() => {
          this.u.setSeries(2 * index + 1, { show: shown && settings.smoothing > 0 });
          this.u.setSeries(2 * index + 2, { show: shown });
        });
      });
      this.figure.querySelector(".legend").append(button);
      return { button, key, value };
    }

    // Of each curve two series: as it was logged, and smoothed.
    table() {
      return uPlot.join(this.curves.map((curve) => {
        const xs = curve.steps.map((step) => place(curve.run, step));
        const kept = xs.map((x, i) => i).filter((i) => i === 0 || xs[i] > xs[i - 1]);
        const values = kept.map((i) => curve.values[i]);
        const soft = isSmoothed(curve) ? smooth(values, settings.smoothing) : values;
        return [kept.map((i) => xs[i]), values, soft];
      }));
    }

    draw() {
      if (this.u) this.u.destroy();
      const muted = style("--muted"), line = style("--line");
      const font = "12px system-ui, sans-serif";
      const series = this.curves.flatMap((curve, index) => {
        const one = look(curve, index);
        const shown = !this.hidden.has(index);
        const raw = { ...one, stroke: `${one.stroke}55`, dash: [], width: 1, points: { show: false } };
        return [
          { ...raw, show: shown && settings.smoothing > 0 && isSmoothed(curve), spanGaps: true },
          { ...one, show: shown, spanGaps: true },
        ];
      });
      this.curves.forEach((curve, index) => this.swatch(this.buttons[index].key, look(curve, index)));
      this.u = new uPlot({
        width: Math.max(this.plot.clientWidth, 200),
        height: HEIGHT,
        padding: [8, 12, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: "all", scales: ["x", null] }, drag: { x: true, y: false }, y: false },
        scales: { x: { time: false } },
        axes: [
          { stroke: muted, font, size: 28, space: 64, grid: { show: false }, ticks: { show: false },
            values: (_, ticks) => ticks.map((x) => AXES[settings.axis].tick(x)) },
          { stroke: muted, font, size: 52, space: 36, grid: { stroke: line, width: 1 },
            ticks: { show: false }, values: (_, ticks, axis, space, step) => ticks.map((y) => fixed(y, step)) },
        ],
        series: [{}, ...series],
        hooks: { setCursor: [(u) => this.read(u)] },
      }, this.table(), this.plot);
      this.read(this.u);
    }

    swatch(key, { stroke, dash, width, points }) {
      key.replaceChildren();
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("d", "M1 4H25");
      line.setAttribute("stroke", stroke);
      line.setAttribute("stroke-width", String(width + 0.5));
      line.setAttribute("stroke-dasharray", dash.join(" "));
      key.append(line);
      if (points.show) {
        const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        for (const [name, value] of [["cx", 13], ["cy", 4], ["r", 3]]) dot.setAttribute(name, String(value));
        dot.setAttribute("fill", stroke);
        key.append(dot);
      }
    }

    refresh() {
      this.u.batch(() => {
        this.curves.forEach((curve, index) => this.u.setSeries(2 * index + 1, {
          show: settings.smoothing > 0 && isSmoothed(curve) && !this.hidden.has(index),
        }));
        this.u.setData(this.table());
      });
    }

    // The values at the cursor, or the last ones.
    values(index) {
      return this.curves.map((_, curve) => {
        const column = this.u.data[2 * curve + 2];
        for (let i = index; i >= 0; i--) if (column[i] != null) return column[i];
        return null;
      });
    }

    read(u) {
      const last = u.data[0].length - 1;
      const index = u.cursor.idx == null || u.cursor.left < 0 ? last : u.cursor.idx;
      this.values(index).forEach((value, curve) => {
        this.buttons[curve].value.textContent = precise(value);
      });
      this.at.textContent = AXES[settings.axis].full(u.data[0][index]);
    }

    key(event) {
      const last = this.u.data[0].length - 1;
      const stride = event.shiftKey ? Math.max(1, Math.round(last / 10)) : 1;
      const now = this.index ?? -1;
      const next = {
        ArrowRight: Math.min(now + stride, last), ArrowLeft: this.index == null ? last : Math.max(now - stride, 0),
        Home: 0, End: last,
      }[event.key];
      if (next == null) {
        if (event.key === "Escape") this.leave();
        return;
      }
      event.preventDefault();
      this.index = next;
      this.u.setCursor({ left: this.u.valToPos(this.u.data[0][next], "x"), top: HEIGHT / 2 });
      const values = this.values(next);
      const told = this.curves.map((curve, i) => this.hidden.has(i) ? "" : `${nameOf(curve)} ${precise(values[i])}`);
      const x = AXES[settings.axis].full(this.u.data[0][next]);
      this.status.textContent = `${x}: ${told.filter(Boolean).join(", ")}`;
    }

    leave() {
      this.index = null;
      this.status.textContent = "";
      this.u.setCursor({ left: -10, top: -10 });
    }
  }

  const charts = [...document.querySelectorAll(".chart")].map((figure) => new Chart(figure));
  const each = (action) => charts.forEach(action);

  const apply = () => {
    settings.axis = controls.querySelector("[name=axis]:checked").value;
    settings.smoothing = Number(smoothing.value);
    document.getElementById("smoothing-value").textContent = settings.smoothing.toFixed(2).replace(/\.?0+$/, "");
    each((chart) => chart.refresh());
  };
  controls.addEventListener("input", apply);
  if (smoothing.value !== "0" || !controls.querySelector("[value=steps]").checked) apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => each((chart) => chart.draw()));
})();
