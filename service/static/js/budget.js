// The limits of a budget against the best candidate so far.

import { h } from "./dom.js";
import { fileSize, metric, milliseconds, ratio } from "./format.js";

const LABELS = {
  latency_ms: "Latency",
  latency_ratio: "Latency",
  size_mb: "Size",
  size_ratio: "Size",
  max_metric_drop: "Metric drop",
};

/** [{field, label, limit, value, limitText, valueText, state: "within" | "over" | "unknown"}] */
export function budgetLines(job) {
  const budget = job.spec?.budget ?? {};
  const best = job.best ?? {};
  const before = job.baseline?.metric;
  const drop = before !== undefined && best.metric !== undefined ? Math.max(0, before - best.metric) : null;
  const megabytes = best.size_bytes === undefined ? null : best.size_bytes / 1e6;
  const rows = {
    latency_ms: [best.latency_ms, milliseconds],
    latency_ratio: [best.latency_ratio, ratio],
    size_mb: [megabytes, (v) => fileSize(v === null ? null : v * 1e6)],
    size_ratio: [best.size_ratio, ratio],
    max_metric_drop: [drop, metric],
  };
  return Object.keys(rows)
    .filter((field) => typeof budget[field] === "number")
    .map((field) => {
      const [given, words] = rows[field];
      const value = given ?? null;
      const limit = budget[field];
      return {
        field,
        label: LABELS[field],
        limit,
        value,
        limitText: words(limit),
        valueText: words(value),
        state: value === null ? "unknown" : value <= limit ? "within" : "over",
      };
    });
}

/** A bar whose tick is the limit: fill left of the tick is inside the budget. */
export function budgetBar(line, { compact = false } = {}) {
  // The limit stands at 70 % of the track unless the value is far beyond it.
  const span = Math.max(line.limit / 0.7, (line.value ?? 0) * 1.04, 1e-12);
  const percent = (v) => `${Math.min(100, (100 * v) / span).toFixed(2)}%`;
  const said =
    line.value === null
      ? `${line.label}: not measured yet, limit ${line.limitText}`
      : `${line.label} ${line.valueText} of ${line.limitText} allowed, ${line.state === "over" ? "over" : "within"} budget`;
  const fill = h("span", { class: "bar-fill" });
  fill.style.width = line.value === null ? "0" : percent(line.value);
  const tick = h("span", { class: "bar-tick" });
  tick.style.left = percent(line.limit);
  const track = h("span", { class: `bar bar-${line.state}`, role: "img", "aria-label": said }, fill, tick);
  if (!compact) return track;
  return h(
    "div",
    { class: "bar-row" },
    h("span", { class: "bar-label" }, line.label),
    track,
    h("span", { class: `bar-value is-${line.state}` }, line.value === null ? `≤ ${line.limitText}` : line.valueText),
  );
}
