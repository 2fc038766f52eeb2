// The two figures of a job page. plotly is loaded when the first job is opened, from this service.

import { fill, h } from "./dom.js";
import { fileSize, metric, metricName, milliseconds, ratio, recipeWords } from "./format.js";

let loading = null;

export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/static/plotly.min.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("The figures could not be loaded; the table below has the same numbers. Reload to try again."));
    };
    document.head.append(script);
  });
  return loading;
}

const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true, scrollZoom: false };
const MOST_POINTS = 1500; // SVG gets slow beyond
const SMALLEST = 7;
const LARGEST = 30;

/** Colours come from the style sheet, so the figures follow the light and the dark scheme. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

function layout(color, xTitle, yTitle, extra = {}) {
  const axis = (text, more = {}) => ({
    title: { text, font: { size: 12, color: color("muted") }, standoff: 10 },
    gridcolor: color("grid"),
    zeroline: false,
    linecolor: color("line"),
    tickfont: { size: 11, color: color("muted") },
    automargin: true,
    fixedrange: true,
    ...more,
  });
  return {
    autosize: true,
    margin: { l: 52, r: 14, t: 12, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style("font"), size: 12, color: color("ink") },
    showlegend: false,
    hovermode: "closest",
    dragmode: false,
    xaxis: axis(xTitle),
    yaxis: axis(yTitle),
    ...extra,
  };
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Limits of the budget in the units of the figure: latency as a share of the baseline, metric as a floor. */
export function limitsOf(job) {
  const budget = job.spec?.budget ?? {};
  const baseline = job.baseline;
  let latency = budget.latency_ratio ?? null;
  if (latency === null && budget.latency_ms && baseline?.latency_ms) latency = budget.latency_ms / baseline.latency_ms;
  const drop = budget.max_metric_drop ?? null;
  return { latency, metric: drop === null || !baseline ? null : baseline.metric - drop };
}

/** The newest rows, and those that must not be missing. */
function newest(rows, always) {
  if (rows.length <= MOST_POINTS) return rows;
  const from = rows.length - MOST_POINTS;
  return rows.filter((row, i) => i >= from || always(row));
}

/** Draws into `box` and shows the trial under the pointer in `card`. */
export class FrontChart {
  constructor(box, card, onPick) {
    Object.assign(this, { box, card, onPick });
  }

  async draw(job, trials) {
    const Plotly = await loadPlotly();
    const color = theme();
    const isBest = (t) => job.best?.trial === t.number;
    const scored = trials.filter((t) => t.latency && t.metric !== null && t.metric !== undefined);
    const shown = newest(scored, (t) => t.on_front || isBest(t));
    const unscored = trials.filter((t) => t.latency && (t.metric === null || t.metric === undefined)).slice(-MOST_POINTS);
    const sizes = shown.map((t) => t.size_bytes ?? 0);
    const biggest = Math.max(job.baseline?.size_bytes ?? 0, ...sizes, 1);
    const area = (bytes) => Math.max(SMALLEST, LARGEST * Math.sqrt((bytes ?? 0) / biggest));
    const points = (rows, look) => ({
      type: "scatter",
      mode: "markers",
      x: rows.map((t) => t.latency.ratio),
      y: rows.map((t) => t.metric),
      customdata: rows.map((t) => t.number),
      hoverinfo: "none",
      marker: { size: rows.map((t) => area(t.size_bytes)), ...look },
    });
    const admitted = shown.filter((t) => t.feasible && !isBest(t));
    const others = shown.filter((t) => !t.feasible && !isBest(t));
    const front = trials.filter((t) => t.on_front && t.latency).sort((a, b) => a.latency.ratio - b.latency.ratio);
    const baseline = job.baseline;
    const metrics = [...shown.map((t) => t.metric), ...(baseline ? [baseline.metric] : [])];
    const limits = limitsOf(job);
    if (limits.metric !== null) metrics.push(limits.metric);
    const low = Math.min(...metrics);
    const high = Math.max(...metrics);
    const pad = Math.max((high - low) * 0.12, 0.002);
    const yRange = metrics.length ? [low - 1.6 * pad, high + pad] : [0, 1];
    const xs = [1, ...trials.filter((t) => t.latency).map((t) => t.latency.ratio), limits.latency ?? 0];
    const xRange = [0, Math.max(...xs) * 1.08];
    const data = [
      {
        type: "scatter",
        mode: "lines",
        x: front.map((t) => t.latency.ratio),
        y: front.map((t) => t.metric),
        line: { color: color("good"), width: 1.5, shape: "hv", dash: "dot" },
        hoverinfo: "skip",
      },
      points(others, { color: color("dim"), opacity: 0.5, line: { width: 0 } }),
      {
        ...points(unscored, { color: color("dim"), symbol: "line-ns-open", opacity: 0.9, line: { width: 1.5 } }),
        y: unscored.map(() => yRange[0] + (yRange[1] - yRange[0]) * 0.03),
      },
      points(admitted, { color: color("good"), opacity: 0.75, line: { color: color("surface"), width: 1 } }),
      points(shown.filter(isBest), { color: color("accent"), opacity: 1, line: { color: color("surface"), width: 2 } }),
    ];
    data[2].marker.size = 9;
    const note = (text, x, y, more) => ({
      text,
      x,
      y,
      showarrow: false,
      font: { size: 11, color: color("muted") },
      ...more,
    });
    const shapes = [];
    const annotations = [];
    if (baseline) {
      data.push({
        type: "scatter",
        mode: "markers",
        x: [1],
        y: [baseline.metric],
        customdata: ["baseline"],
        hoverinfo: "none",
        marker: { symbol: "diamond-open", size: 13, color: color("ink"), line: { width: 2 } },
      });
      annotations.push(note("uncompressed", 1, baseline.metric, { yshift: 16, xanchor: "right" }));
    }
    const line = { color: color("warn"), width: 1.5, dash: "dash" };
    if (limits.latency !== null) {
      shapes.push({ type: "line", x0: limits.latency, x1: limits.latency, yref: "paper", y0: 0, y1: 1, line });
      shapes.push({
        type: "rect",
        x0: 0,
        x1: limits.latency,
        y0: limits.metric ?? yRange[0],
        y1: yRange[1],
        fillcolor: color("good"),
        opacity: 0.06,
        line: { width: 0 },
        layer: "below",
      });
      annotations.push(
        note("latency limit", limits.latency, 0, { yref: "paper", yanchor: "bottom", xanchor: "left", xshift: 4, yshift: 12 }),
      );
    }
    if (limits.metric !== null) {
      shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: limits.metric, y1: limits.metric, line });
      annotations.push(
        note("lowest metric allowed", 1, limits.metric, { xref: "paper", xanchor: "right", yanchor: "bottom" }),
      );
    }
    const page = layout(color, "latency, share of the uncompressed model", metricName(job), { shapes, annotations });
    page.xaxis.range = xRange;
    page.yaxis.range = yRange;
    await Plotly.react(this.box, data, page, CONFIG);
    this.trials = new Map(trials.map((t) => [t.number, t]));
    this.job = job;
    if (!this.wired) this.wire();
  }

  wire() {
    this.wired = true;
    this.box.on("plotly_hover", ({ points }) => this.show(points[0]));
    this.box.on("plotly_unhover", () => (this.card.hidden = true));
    this.box.on("plotly_click", ({ points }) => {
      this.show(points[0]);
      if (typeof points[0].customdata === "number") this.onPick(points[0].customdata);
    });
  }

  show(point) {
    const trial = this.trials.get(point.customdata);
    const rows = trial ? trialRows(trial, metricName(this.job)) : baselineRows(this.job.baseline, metricName(this.job));
    const title = trial ? `Trial ${trial.number}` : "Uncompressed model";
    fill(
      this.card,
      h("strong", {}, title),
      trial ? h("p", {}, recipeWords(trial.recipe)) : null,
      h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    );
    this.card.hidden = false;
    const left = point.xaxis.l2p(point.xaxis.d2l(point.x)) + point.xaxis._offset;
    const top = point.yaxis.l2p(point.yaxis.d2l(point.y)) + point.yaxis._offset;
    const room = this.box.clientWidth;
    this.card.style.left = `${left > room / 2 ? Math.max(0, left - this.card.offsetWidth - 16) : Math.min(left + 16, room - this.card.offsetWidth)}px`;
    this.card.style.top = `${Math.max(0, Math.min(top - 20, this.box.clientHeight - this.card.offsetHeight))}px`;
  }
}

function trialRows(t, name) {
  return [
    [name, metric(t.metric)],
    ["latency", `${ratio(t.latency?.ratio)} · ${milliseconds(t.latency?.p50_ms)}`],
    ["size", `${ratio(t.size_ratio)} · ${fileSize(t.size_bytes)}`],
    ["budget", t.feasible ? "met" : t.state === "gated" ? "missed before tuning" : "missed"],
    ["from", t.origin || "–"],
  ];
}

function baselineRows(b, name) {
  return [
    [name, metric(b?.metric)],
    ["latency", milliseconds(b?.latency_ms)],
    ["size", fileSize(b?.size_bytes)],
  ];
}

/** The best metric inside the budget (or, while there is none, over all) after each trial. */
export function bestSoFar(trials) {
  const scored = trials.filter((t) => t.metric !== null && t.metric !== undefined).sort((a, b) => a.number - b.number);
  const inside = scored.filter((t) => t.feasible);
  let top = -Infinity;
  return inside.map((t) => {
    top = Math.max(top, t.metric);
    return { number: t.number, metric: top };
  });
}

export async function drawHistory(box, job, trials) {
  const Plotly = await loadPlotly();
  const color = theme();
  const scored = newest(
    trials.filter((t) => t.metric !== null && t.metric !== undefined),
    () => false,
  );
  const dots = (rows, look) => ({
    type: "scatter",
    mode: "markers",
    x: rows.map((t) => t.number),
    y: rows.map((t) => t.metric),
    hovertemplate: "trial %{x}: %{y:.4f}<extra></extra>",
    marker: { size: 7, ...look },
  });
  const best = bestSoFar(trials);
  const last = Math.max(0, ...trials.map((t) => t.number));
  if (best.length) best.push({ number: last, metric: best.at(-1).metric });
  const data = [
    dots(scored.filter((t) => !t.feasible), { color: color("dim"), opacity: 0.5 }),
    dots(scored.filter((t) => t.feasible), { color: color("good"), opacity: 0.75 }),
    {
      type: "scatter",
      mode: "lines",
      x: best.map((p) => p.number),
      y: best.map((p) => p.metric),
      line: { color: color("accent"), width: 2, shape: "hv" },
      hoverinfo: "skip",
    },
  ];
  const shapes = [];
  if (job.baseline) {
    const line = { color: color("muted"), width: 1, dash: "dot" };
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: job.baseline.metric, y1: job.baseline.metric, line });
  }
  const page = layout(color, "trial", metricName(job), { shapes });
  page.xaxis.range = [-0.5, Math.max(4, last) + 0.5];
  page.xaxis.tickformat = "d";
  await Plotly.react(box, data, page, CONFIG);
}
