// What a job says about itself: state, verdict, progress. Shared by the list and the job page.

import { h } from "./dom.js";
import { FINAL, STAGES, seconds, violationWords } from "./format.js";

const TONES = {
  queued: "idle",
  running: "busy",
  paused: "idle",
  succeeded: "good",
  failed: "bad",
  cancelled: "idle",
};

// Asked for and not done yet: the search looks about once a second.
export const WISHES = { cancel: "cancelling", pause: "pausing" };

/** The label a person wants: the outcome once there is one. */
export function statePill(job) {
  if (job.state === "succeeded" && job.outcome === "nearest_miss") return pill("nearest miss", "warn");
  if (job.state === "succeeded" && job.outcome === "feasible") return pill("budget met", "good");
  if (job.state === "running" && WISHES[job.directive]) return pill(WISHES[job.directive], "warn");
  return pill(job.state, TONES[job.state] ?? "idle");
}

export const pill = (text, tone) => h("span", { class: `pill pill-${tone}` }, text);

export function jobTitle(job) {
  return job.name || job.spec?.name || `Job ${String(job.id).slice(0, 8)}`;
}

/** One or two sentences: where the job stands, and what to do if that is not good. */
export function verdict(job) {
  const best = job.best;
  const missed = (best?.violations ?? []).map(violationWords).join("; ");
  switch (job.state) {
    case "queued":
      return "Waiting for a worker. If it stays queued, start one with: bantam worker";
    case "running":
      if (!best) return "Searching. No candidate has been measured to the end yet.";
      return best.feasible
        ? `Trial ${best.trial} meets the budget. Searching on for a better trade-off.`
        : `Nothing meets the budget yet. Nearest is trial ${best.trial}: ${missed}.`;
    case "paused":
      return "Paused. Finished trials are kept; resume to go on.";
    case "succeeded":
      if (job.outcome === "nearest_miss") {
        return sentences("No candidate meets the budget.", `Nearest is trial ${best?.trial ?? "?"}: ${missed || "see the report"}.`, job.reason);
      }
      return sentences(`Trial ${best?.trial ?? "?"} meets every limit of the budget.`, job.reason);
    case "failed":
      return job.reason || "The search stopped with an error. The log below says where.";
    case "cancelled":
      return job.reason || "Cancelled. Trials that had finished are kept.";
    default:
      return "";
  }
}

const sentences = (...parts) =>
  parts
    .filter(Boolean)
    .map((p) => p[0].toUpperCase() + p.slice(1) + (/[.!?]$/.test(p) ? "" : "."))
    .join(" ");

/** 0..1; a job can also be done early, so the share of seconds counts as well as that of trials. */
export function progressShare(job) {
  if (job.state === "succeeded") return 1;
  const p = job.progress ?? {};
  if (p.eta_s !== null && p.eta_s !== undefined && p.elapsed_s) return p.elapsed_s / (p.elapsed_s + p.eta_s);
  return p.planned ? Math.min(1, p.finished / p.planned) : 0;
}

export function progressWords(job) {
  const p = job.progress;
  if (!p || (job.state === "queued" && !p.finished)) return "not started";
  const trials = p.planned ? `${p.finished} of ${Math.max(p.planned, p.finished)} trials` : `${p.finished} trials`;
  if (FINAL.has(job.state)) return `${p.finished} trials in ${seconds(p.elapsed_s)}`;
  if (job.state === "paused") return `${trials}, paused`;
  return p.eta_s === null || p.eta_s === undefined ? trials : `${trials}, ${seconds(p.eta_s)} left`;
}

export function progressBar(job) {
  const share = Math.round(100 * progressShare(job));
  const fill = h("span", { class: "progress-fill" });
  fill.style.width = `${share}%`;
  return h(
    "span",
    {
      class: `progress${job.state === "running" ? " is-running" : ""}`,
      role: "progressbar",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": share,
      "aria-label": "Progress of the search",
    },
    fill,
  );
}

/** The five steps of a search with the present one marked. */
export function stageSteps(job) {
  const done = job.state === "succeeded";
  const at = done ? STAGES.length : STAGES.findIndex(([name]) => name === job.progress?.stage);
  return h(
    "ol",
    { class: "steps", "aria-label": "Stages" },
    STAGES.map(([, label], i) =>
      h(
        "li",
        { class: i < at ? "is-done" : i === at ? "is-now" : "", "aria-current": i === at ? "step" : null },
        label,
      ),
    ),
  );
}
