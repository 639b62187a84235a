"use strict";
/* Sliders and drawings. Every drawing is made anew from PlanModel at each move of a slider. */
(() => {
  const model = JSON.parse(document.getElementById("model").textContent);
  const start = PlanModel.initialState(model);
  let state = { ...start };
  const SVG = "http://www.w3.org/2000/svg", WIDTH = 460, HEIGHT = 250, LEFT = 48, RIGHT = 12, TOP = 12, BOTTOM = 38;

  function draw(id, make) {
    const svg = document.getElementById(id);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    make((element, attributes, text) => {
      const node = document.createElementNS(SVG, element);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      svg.appendChild(node);
    });
  }

  function scale([low, high], [from, to], log) {
    const f = log ? Math.log : (x) => x, a = f(low), b = f(high);
    return (value) => from + ((f(value) - a) / (b - a)) * (to - from);
  }

  /* Axes with ticks; gives the two scales. */
  function axes(add, x, y) {
    const sx = scale(x.limits, [LEFT, WIDTH - RIGHT], x.log), sy = scale(y.limits, [HEIGHT - BOTTOM, TOP], y.log);
    add("path", { d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`, class: "axis" });
    for (const [value, label] of x.ticks) {
      add("path", { d: `M${sx(value)} ${HEIGHT - BOTTOM}v4`, class: "axis" });
      add("text", { x: sx(value), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, label);
    }
    for (const [value, label] of y.ticks) {
      add("path", { d: `M${LEFT} ${sy(value)}h-4`, class: "axis" });
      add("text", { x: LEFT - 7, y: sy(value) + 4, "text-anchor": "end" }, label);
    }
    add("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 5, "text-anchor": "middle" }, x.label);
    add("text", { x: 12, y: (TOP + HEIGHT - BOTTOM) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(TOP + HEIGHT - BOTTOM) / 2})` }, y.label);
    return [sx, sy];
  }

  function line(points) {
    return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  }

  function key(add, entries, top = TOP) {
    entries.forEach(([name, label], i) => {
      add("path", { d: `M${WIDTH - 150} ${top + 8 + 15 * i}h18`, class: `curve ${name}` });
      add("text", { x: WIDTH - 127, y: top + 12 + 15 * i }, label);
    });
  }

  const tens = (list) => list.map((v) => [v, String(v)]);

  function drawFan(f) {
    draw("fan", (add) => {
      const cx = WIDTH / 2, cy = HEIGHT / 2, r = HEIGHT / 2 - 14;
      add("circle", { cx, cy, r, class: "axis" });
      const critical = f.amplitude;
      f.prediction.angle.forEach((a, i) => {
        const x = r * Math.cos((a * Math.PI) / 180), y = r * Math.sin((a * Math.PI) / 180);
        add("path", { d: `M${cx - x} ${cy + y}L${cx + x} ${cy - y}`, class: "curve first", "stroke-opacity": 0.12 + 0.88 * critical[i] });
      });
      add("text", { x: 8, y: 18 }, `${f.tilts} slices`);
      add("text", { x: 8, y: HEIGHT - 8 }, `missing ${(100 * f.wedge).toFixed(0)} %`);
    });
  }

  function drawSpot(f) {
    draw("spot", (add) => {
      const [sx, sy] = axes(add, { limits: [11, 181], ticks: tens([21, 61, 101, 141, 181]), label: "number of tilts" },
        { limits: [0, 1.05], ticks: tens([0, 0.5, 1]), label: "part kept" });
      for (const [name, cls] of [["sampling", "second"], ["alignment", "third"], ["damage", "fourth"], ["total", "first"]])
        add("path", { d: line(f.spot.rows.map((r) => [sx(r.tilts), sy(r[name])])), class: `curve ${cls}` });
      add("path", { d: `M${sx(Math.min(181, state.tilts))} ${TOP}V${HEIGHT - BOTTOM}`, class: "here" });
      key(add, [["second", "sampling"], ["third", "alignment"], ["fourth", "dose"], ["first", "all of it"]], HEIGHT - BOTTOM - 72);
    });
  }

  function byAngle(f, values) {
    return f.prediction.angle.map((a, i) => [a, values[i]]).sort((p, q) => p[0] - q[0]);
  }

  function angleAxis() {
    const [low, high] = PlanModel.limits(model, state);
    const ticks = [-60, -30, 0, 30, 60].filter((v) => v >= low && v <= high);
    return { limits: [low - 2, high + 2], ticks: tens(ticks), label: "tilt angle (°)" };
  }

  function drawDamage(f) {
    draw("damage", (add) => {
      const [sx, sy] = axes(add, angleAxis(), { limits: [0, 1.05], ticks: tens([0, 0.5, 1]), label: "left of the signal" });
      add("path", { d: line(byAngle(f, f.amplitude).map(([a, v]) => [sx(a), sy(v)])), class: "curve first" });
      add("path", { d: line(byAngle(f, f.prediction.eta).map(([a, v]) => [sx(a), sy(v)])), class: "curve second" });
      key(add, [["first", `damage, ${state.target} Å`], ["second", "electrons"]]);
    });
  }

  function drawNoise(f) {
    draw("noise", (add) => {
      const top = Math.max(20, Math.ceil(Math.max(...f.noise) / 10) * 10);
      const [sx, sy] = axes(add, angleAxis(), { limits: [0, top], ticks: tens([0, top / 2, top]), label: "noise, % of the mean" });
      add("path", { d: line(byAngle(f, f.noise).map(([a, v]) => [sx(a), sy(v)])), class: "curve first" });
    });
  }

  function drawFsc(f) {
    draw("fsc", (add) => {
      const k = f.prediction.frequency, last = k[k.length - 1];
      const ticks = [40, 20, 15, 12, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2].filter((d) => 1 / d <= last);
      const kept = ticks.filter((d, i) => i === 0 || (1 / d - 1 / ticks[i - 1]) / last > 0.05);
      const [sx, sy] = axes(add, { limits: [0, last], ticks: kept.map((d) => [1 / d, String(d)]), label: "spacing (Å)" },
        { limits: [-0.02, 1.02], ticks: tens([0, 0.5, 1]), label: "FSC of half maps" });
      const fsc = (n) => k.map((x, j) => [sx(x), sy((f.prediction.ssnr[j] * n) / (f.prediction.ssnr[j] * n + 2))]);
      const band = [...fsc(state.particles * model.band), ...fsc(state.particles / model.band).reverse()];
      add("path", { d: line(band) + "Z", class: "band" });
      add("path", { d: line(fsc(state.particles)), class: "curve first" });
      add("path", { d: `M${LEFT} ${sy(1 / 7)}H${WIDTH - RIGHT}`, class: "here" });
    });
  }

  function drawNumber(f) {
    draw("number", (add) => {
      const numbers = Array.from({ length: 61 }, (_, i) => 10 ** (1 + i / 10)), nyquist = 2 * model.pixel_size;
      const at = (n) => Math.min(60, PlanModel.resolution(f.prediction, n));
      const [sx, sy] = axes(add, { limits: [10, 1e7], log: true, ticks: [1, 2, 3, 4, 5, 6, 7].map((e) => [10 ** e, `1e${e}`]), label: "particles" },
        { limits: [nyquist, 60], log: true, ticks: tens([60, 40, 20, 10, 8, 6, 4, 3].filter((d) => d > nyquist)), label: "resolution (Å)" });
      const curve = (factor) => numbers.map((n) => [sx(n), sy(at(n * factor))]);
      add("path", { d: line([...curve(model.band), ...curve(1 / model.band).reverse()]) + "Z", class: "band" });
      add("path", { d: line(curve(1)), class: "curve first" });
      add("circle", { cx: sx(state.particles), cy: sy(at(state.particles)), r: 4, class: "dot" });
      if (state.target > nyquist) add("path", { d: `M${LEFT} ${sy(state.target)}H${WIDTH - RIGHT}`, class: "here" });
    });
  }

  const round = (x, digits) => (Number.isFinite(x) ? x.toFixed(digits) : "not reached");
  const count = (x) => (Number.isFinite(x) ? Math.round(x).toLocaleString("en") : "not reached");

  function say(id, text) {
    document.getElementById(id).textContent = text;
  }

  function show() {
    const f = PlanModel.figures(model, state);
    say("out-resolution", `${round(f.resolution, 1)} Å`);
    say("out-band", `${round(f.fine, 1)} to ${round(f.coarse, 1)} Å`);
    say("out-needed", count(f.needed));
    say("out-hours", `${count(f.series)} / ${round(f.hours, 1)} h`);
    say("out-each", `${round(state.exposure / f.tilts, 2)} e⁻/Å²`);
    say("out-noise", `${round(f.noise[0], 0)} to ${round(f.noise[f.noise.length - 1], 0)} %`);
    say("out-best", `${f.spot.best} tilts`);
    say("out-sampled", `${round(f.crowther_particle, 1)} Å`);
    [drawFan, drawSpot, drawDamage, drawNoise, drawFsc, drawNumber].forEach((make) => make(f));
    document.body.dataset.resolution = String(f.resolution);
    document.body.dataset.needed = String(f.needed);
    document.body.dataset.best = String(f.spot.best);
  }

  const log = { particles: true };
  function bind(name, unit, digits) {
    const input = document.getElementById(`in-${name}`), label = document.getElementById(`val-${name}`);
    const write = () => { label.textContent = `${log[name] ? count(state[name]) : state[name].toFixed(digits)}${unit}`; };
    input.addEventListener("input", () => {
      state[name] = log[name] ? Math.round(10 ** Number(input.value)) : Number(input.value);
      if (name === "tilts" || name === "range") state.step = null;
      write();
      show();
    });
    return () => {
      input.value = log[name] ? Math.log10(state[name]) : state[name];
      write();
    };
  }

  const renew = [bind("tilts", "", 0), bind("exposure", " e⁻/Å²", 0), bind("thickness", " Å", 0), bind("range", "°", 0), bind("particles", "", 0), bind("target", " Å", 1)];
  const scheme = document.getElementById("in-scheme");
  scheme.addEventListener("change", () => { state.scheme = scheme.value; show(); });
  document.getElementById("reset").addEventListener("click", () => {
    state = { ...start };
    scheme.value = state.scheme;
    renew.forEach((write) => write());
    show();
  });
  scheme.value = state.scheme;
  renew.forEach((write) => write());
  show();
})();
