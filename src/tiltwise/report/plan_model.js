"use strict";
/* The planner's model in the page: the same sums as tiltwise.plan, from tables that Python wrote beside it. Tests run
   both and compare. Angles in degrees, lengths in Å, exposure in e⁻/Å². No document is touched here. */
const PlanModel = (() => {
  const RAD = Math.PI / 180;
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  /* What the sliders start from. */
  function initialState(model) {
    return {
      scheme: model.tilting.scheme,
      tilts: Math.round((model.tilting.tilt_max - model.tilting.tilt_min) / model.tilting.tilt_step) + 1,
      step: model.tilting.tilt_step, // null once the number or the range was moved: then the number divides the range
      range: (model.tilting.tilt_max - model.tilting.tilt_min) / 2,
      exposure: model.total_exposure,
      thickness: model.slab.thickness,
      particles: model.target.particles,
      target: model.target.resolution,
    };
  }

  function limits(model, state) {
    const centre = (model.tilting.tilt_max + model.tilting.tilt_min) / 2;
    return [centre - state.range, centre + state.range];
  }

  function tiltStep(state) {
    return state.step === null ? (2 * state.range) / (state.tilts - 1) : state.step;
  }

  function grown(step, amount, begin, every) {
    if (amount === 0 || step < begin) return 0;
    return amount * (1 + (every > 0 ? Math.floor((step - begin) / every) : 0));
  }

  function doseSymmetric(below, above, direction, group, growth, change) {
    const ends = { "1": above, "-1": below }, done = { "1": 0, "-1": 0 }, sequence = [0];
    let side = direction;
    while (done[1] < ends[1] || done[-1] < ends[-1]) {
      let stop = Math.min(ends[side], done[side] + group + grown(done[side] + 1, ...growth));
      if (Math.max(stop, done[1], done[-1]) >= change) stop = ends[side];
      for (let j = done[side] + 1; j <= stop; j++) sequence.push(side * j);
      done[side] = stop;
      side = -side;
    }
    return sequence;
  }

  /* Angles in the order of acquisition. */
  function tiltAngles(model, state) {
    const tilting = model.tilting, step = tiltStep(state), [low, high] = limits(model, state);
    const oneWay = state.scheme === "unidirectional" || state.scheme === "continuous";
    const start = oneWay ? low : Math.min(Math.max(tilting.start_tilt, low), high);
    const below = Math.floor((start - low) / step + 1e-6), above = Math.floor((high - start) / step + 1e-6);
    const up = Array.from({ length: above }, (_, j) => j + 1), down = Array.from({ length: below }, (_, j) => -j - 1);
    let steps;
    if (oneWay) {
      steps = [...down.slice().reverse(), 0, ...up];
      if (tilting.first_direction < 0) steps.reverse();
    } else if (state.scheme === "bidirectional") {
      steps = tilting.first_direction > 0 ? [0, ...up, ...down] : [0, ...down, ...up];
    } else {
      const growth = [tilting.group_growth, tilting.growth_angle / step - 1e-6, tilting.growth_interval / step];
      const change = tilting.switch_angle === null ? Infinity : tilting.switch_angle / step - 1e-6;
      steps = doseSymmetric(below, above, tilting.first_direction, tilting.group_size, growth, change);
    }
    return steps.map((j) => start + step * j);
  }

  function schedule(model, state) {
    const angle = tiltAngles(model, state), tracking = model.session.tracking_exposure;
    const share = angle.map((a) => Math.cos((a - model.slab.pretilt) * RAD) ** -model.tilting.exposure_power);
    const total = sum(share), left = state.exposure - tracking * angle.length;
    const exposure = share.map((s) => (left * s) / total);
    const before = [];
    let seen = 0;
    for (const own of exposure) {
      before.push(seen + tracking);
      seen += own + tracking;
    }
    return { angle, exposure, before };
  }

  /* Mean amplitude left while exposure goes from `before` on by `own`, for a critical exposure. */
  function amplitudeLeft(critical, before, own) {
    const x = own / (2 * critical);
    return Math.exp(-before / (2 * critical)) * (x > 1e-6 ? -Math.expm1(-x) / x : 1 - x / 2);
  }

  function path(model, state, angle) {
    return state.thickness / Math.cos((angle - model.slab.pretilt) * RAD);
  }

  function transmission(model, state, angle) {
    return Math.exp(-path(model, state, angle) / model.mean_free_path);
  }

  function meanTransfer(model, state, angle, k, j) {
    const tilt = (angle - model.slab.pretilt) * RAD, wave = model.wavelength * k * k;
    const depth = (state.thickness - 2 * model.slab.damage_layer) * Math.cos(tilt);
    const damping = model.tables.defocus_damping[j] * sinc(wave * model.field * Math.abs(Math.sin(tilt))) * sinc(wave * depth);
    return (1 - model.tables.cos_two_chi[j] * damping) / 2;
  }

  function blurVariance(model, state, angle, exposure) {
    const budget = model.budget, radius = model.target.diameter / 2;
    let variance = budget.shift_error ** 2 + 0.4 * radius ** 2 * (budget.rotation_error * RAD) ** 2;
    variance += budget.alignment_error ** 2 + budget.settling_error ** 2 + budget.alignment_exposure_error / exposure;
    if (state.scheme !== "continuous") return variance;
    const turn = (tiltStep(state) / model.frames) * RAD, tilt = angle * RAD;
    const across = (model.field * Math.sin(tilt)) ** 2 + (state.thickness * Math.cos(tilt)) ** 2;
    return variance + ((across / 12 + model.target.diameter ** 2 / 20) * turn ** 2) / 24;
  }

  /* SSNR of one particle's average over frequency, and what each tilt brings. */
  function predict(model, state) {
    const plan = schedule(model, state), tables = model.tables, number = plan.angle.length;
    const ssnr = new Array(tables.frequency.length).fill(0);
    const eta = plan.angle.map((a) => transmission(model, state, a));
    for (let i = 0; i < number; i++) {
      const blur = blurVariance(model, state, plan.angle[i], plan.exposure[i]);
      const counted = plan.exposure[i] * eta[i], ice = model.ice_per_path * path(model, state, plan.angle[i]);
      for (let j = 0; j < ssnr.length; j++) {
        const k = tables.frequency[j], q = amplitudeLeft(tables.critical_exposure[j], plan.before[i], plan.exposure[i]);
        const common = tables.common[j] * q * q * meanTransfer(model, state, plan.angle[i], k, j);
        const noise = common * ice + 1 / (counted * tables.quantum_efficiency[j]);
        ssnr[j] += ((common * tables.signal[j] * Math.exp(-4 * Math.PI ** 2 * k * k * blur)) / noise) * tables.slices[j];
      }
    }
    return { ...plan, eta, frequency: tables.frequency, ssnr };
  }

  function bestIndex(values) {
    let best = 0;
    values.forEach((value, j) => { if (value > values[best]) best = j; });
    return best;
  }

  /* Spacing at which the SSNR of so many particles falls below 1/3. */
  function resolution(prediction, particles) {
    const k = prediction.frequency, s = prediction.ssnr.map((v) => v * particles), peak = bestIndex(s);
    for (let j = peak; j < k.length; j++) {
      if (s[j] >= 1 / 3) continue;
      if (j === peak) return Infinity;
      const low = Math.log(s[j - 1] * 3), high = Math.log(s[j] * 3);
      return 1 / (k[j - 1] + (low / (low - high)) * (k[j] - k[j - 1]));
    }
    return 1 / k[k.length - 1];
  }

  function particlesNeeded(prediction, wanted) {
    const k = prediction.frequency, s = prediction.ssnr, peak = bestIndex(s), at = 1 / wanted;
    if (at > k[k.length - 1] * (1 + 1e-9)) return Infinity;
    if (at <= k[peak]) return 1 / 3 / s[peak];
    let worst = s[peak];
    for (let j = peak + 1; j < k.length; j++) {
      const next = Math.min(worst, s[j]);
      if (k[j] >= at || j === k.length - 1) {
        const part = Math.min(1, (at - k[j - 1]) / (k[j] - k[j - 1]));
        return 1 / 3 / Math.exp(Math.log(worst) + part * (Math.log(next) - Math.log(worst)));
      }
      worst = next;
    }
    return Infinity;
  }

  function criticalExposure(model, spacing) {
    return model.damage_scale * (0.24499 * spacing ** 1.6649 + 2.8141);
  }

  function crowtherTilts(model, state) {
    const [low, high] = limits(model, state);
    const steepest = Math.max(Math.abs(low - model.slab.pretilt), Math.abs(high - model.slab.pretilt));
    const slab = state.thickness / Math.cos(steepest * RAD);
    const extent = model.target.sampling === "particle" ? model.target.diameter : slab;
    return Math.ceil((2 * state.range) / (state.target / extent / RAD) - 1e-9) + 1;
  }

  /* Other numbers of tilts over the same range and total exposure. */
  function sweetSpot(model, state) {
    const tracking = model.session.tracking_exposure, budget = model.budget, crowther = crowtherTilts(model, state);
    const critical = criticalExposure(model, state.target), rows = [];
    for (let tilts = 11; tilts <= 181; tilts += 2) {
      if (tilts * tracking >= 0.9 * state.exposure) break;
      const other = { ...state, tilts, step: null }, plan = schedule(model, other), overhead = 1 - (tilts * tracking) / state.exposure;
      const each = (state.exposure * overhead) / tilts;
      const variance = budget.alignment_error ** 2 + budget.settling_error ** 2 + budget.alignment_exposure_error / each;
      const alignment = Math.exp((-4 * Math.PI ** 2 * variance) / state.target ** 2);
      const damage = sum(plan.angle.map((a, i) =>
        plan.exposure[i] * amplitudeLeft(critical, plan.before[i], plan.exposure[i]) ** 2 * transmission(model, state, a)));
      const left = damage / (state.exposure * overhead), sampling = Math.min(1, tilts / crowther);
      rows.push({ tilts, sampling, alignment, overhead, damage: left, total: sampling * alignment * overhead * left });
    }
    const best = rows[bestIndex(rows.map((r) => r.total))];
    const most = Math.max(...rows.map((r) => r.damage)), top = best.total;
    rows.forEach((r) => { r.damage /= most; r.total /= top; });
    return { rows, best: best.tilts, crowther };
  }

  /* The numbers that the page shows. */
  function figures(model, state) {
    const prediction = predict(model, state), spot = sweetSpot(model, state), [low, high] = limits(model, state);
    const a = Math.min(Math.abs(low), Math.abs(high)) * RAD, sc = Math.sin(a) * Math.cos(a), step = tiltStep(state);
    const critical = criticalExposure(model, state.target), session = model.session, number = prediction.angle.length;
    const moves = state.scheme === "continuous" ? 1 : number;
    const seconds = session.series_time + moves * session.tilt_time + state.exposure / session.exposure_rate;
    const needed = particlesNeeded(prediction, state.target);
    const series = Math.ceil(needed / model.slab.particles_per_series);
    return {
      prediction,
      spot,
      tilts: number,
      resolution: resolution(prediction, state.particles),
      fine: resolution(prediction, state.particles * model.band),
      coarse: resolution(prediction, state.particles / model.band),
      needed,
      series,
      hours: (series * seconds) / 3600,
      wedge: 1 - (Math.max(...prediction.angle) - Math.min(...prediction.angle)) / 180,
      elongation: Math.sqrt((a + sc) / (a - sc)),
      crowther_particle: step * RAD * model.target.diameter,
      amplitude: prediction.angle.map((_, i) => amplitudeLeft(critical, prediction.before[i], prediction.exposure[i])),
      noise: prediction.angle.map((_, i) => 100 / Math.sqrt(prediction.exposure[i] * prediction.eta[i] * 100)),
    };
  }

  return { initialState, limits, tiltAngles, schedule, predict, resolution, particlesNeeded, sweetSpot, figures };
})();
if (typeof module !== "undefined") module.exports = PlanModel;
