// Numbers and rows in words. The command line uses the same words (service/wording.py).

export const NONE = "–";
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const ratio = (v) => (known(v) ? `${v.toFixed(3)}×` : NONE);
/** Four decimals; perplexities and errors may be far larger or smaller than a share. */
export function metric(v) {
  if (!known(v)) return NONE;
  if (Math.abs(v) >= 1000) return v.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return v !== 0 && Math.abs(v) < 0.00005 ? String(Number(v.toPrecision(2))) : v.toFixed(4);
}

/** What the job's metric is called: "top-1 accuracy". */
export const metricName = (job) => job?.metric_name ?? "metric";
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const whole = (v) => (known(v) ? v.toLocaleString("en") : NONE);

export function milliseconds(v) {
  if (!known(v)) return NONE;
  return v < 10 ? `${v.toFixed(3)} ms` : `${v.toFixed(1)} ms`;
}

export function fileSize(v) {
  if (!known(v)) return NONE;
  if (v >= 1e9) return `${(v / 1e9).toFixed(2)} GB`;
  if (v >= 1e6) return `${(v / 1e6).toFixed(2)} MB`;
  if (v >= 1e3) return `${(v / 1e3).toFixed(1)} kB`;
  return `${Math.round(v)} B`;
}

export function count(v) {
  if (!known(v)) return NONE;
  for (const [limit, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (v >= limit) return `${Number((v / limit).toPrecision(3))}${unit}`;
  }
  return String(Math.round(v));
}

export function seconds(v) {
  if (!known(v)) return NONE;
  if (v < 1) return `${Math.round(v * 1000)} ms`;
  if (v < 60) return `${v.toFixed(v < 10 ? 1 : 0)} s`;
  if (v < 3600) return `${Math.floor(v / 60)} min ${String(Math.floor(v % 60)).padStart(2, "0")} s`;
  return `${Math.floor(v / 3600)} h ${String(Math.floor((v % 3600) / 60)).padStart(2, "0")} min`;
}

export function ago(iso, now = Date.now()) {
  const then = Date.parse(iso);
  if (!Number.isFinite(then)) return NONE;
  const s = Math.max(0, (now - then) / 1000);
  if (s < 45) return "just now";
  if (s < 3600) return `${Math.max(1, Math.round(s / 60))} min ago`;
  if (s < 86400) return `${Math.round(s / 3600)} h ago`;
  return new Date(then).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

export const clock = (iso) => {
  const then = new Date(iso);
  return Number.isNaN(then.getTime()) ? "" : then.toLocaleTimeString("en-GB");
};

export function trialSeconds(trial) {
  const stages = trial.stages ?? [];
  return stages.length ? stages.reduce((sum, stage) => sum + stage.seconds, 0) : null;
}

const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

/** "pruned 9 groups, distilled on 20 k samples, int8" */
export function recipeWords(recipe) {
  if (!recipe) return NONE;
  const words = (recipe.steps ?? []).map(stepWords).filter(Boolean);
  return words.join(", ") || "as uploaded";
}

// Fields that say how much a step does; service/wording.py has the same list.
const TELLING = ["bits", "weight_bits", "format", "sparsity", "ratio", "energy", "n", "m", "count", "copies", "factor", "model"];

function stepWords(step) {
  if (step.technique === "structured_pruning") {
    const groups = Object.keys(step.keep ?? {}).length;
    return groups ? `pruned ${plural(groups, "group")}` : "";
  }
  if (step.technique === "distillation") return step.samples ? `distilled on ${count(step.samples)} samples` : "";
  if (step.technique === "quantization") {
    const left = (step.float_layers ?? []).length;
    const weights = step.weight_bits ?? step.bits ?? 8;
    const activations = step.activation_bits ?? 8;
    const kind = weights === activations ? `int${weights}` : `W${weights}A${activations}`;
    return `${kind}${left ? ` (${plural(left, "layer")} in float32)` : ""}`;
  }
  const told = TELLING.filter((name) => step[name] !== null && step[name] !== undefined).map((name) => `${name.replaceAll("_", " ")} ${step[name]}`);
  return String(step.technique).replaceAll("_", " ") + (told.length ? ` (${told.join(", ")})` : "");
}

export function violationWords(v) {
  const g = (x) => (known(x) ? String(Number(x.toPrecision(4))) : NONE);
  return `${FIELD_LABELS[v.field] ?? v.field} ${g(v.value)} is above ${g(v.limit)} by ${g(v.excess)}`;
}

export const FIELD_LABELS = {
  latency_ms: "latency in ms",
  latency_ratio: "latency ratio",
  size_mb: "size in MB",
  size_ratio: "size ratio",
  max_metric_drop: "metric drop",
};

export const STAGES = [
  ["profile", "Profile"],
  ["cheap", "Cheap answers"],
  ["sensitivity", "Sensitivity"],
  ["search", "Search"],
  ["confirm", "Confirm"],
];
export const FINAL = new Set(["succeeded", "failed", "cancelled"]);
