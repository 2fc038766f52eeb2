// One job: verdict, budget, figures, trials, log, and the buttons that steer it.

import * as api from "./api.js";
import { budgetBar, budgetLines } from "./budget.js";
import { FrontChart, drawHistory } from "./charts.js";
import { fill, h, throttled } from "./dom.js";
import { FINAL, ago, capital, fileSize, metric, metricName, milliseconds, seconds } from "./format.js";
import { WISHES, jobTitle, progressBar, progressWords, stageSteps, statePill, verdict } from "./job_words.js";
import { JobFeed } from "./live.js";
import { LogsView } from "./logs_view.js";
import { TrialsTable } from "./trials_table.js";

export function jobView(id, { onProblem, onLink, onTitle }) {
  const parts = skeleton();
  const table = new TrialsTable();
  const logs = new LogsView();
  parts.trials.append(table.view);
  parts.logs.append(logs.view);
  const front = new FrontChart(parts.front, parts.card, (number) => table.pick(number));
  let job = null;

  const figures = throttled(async () => {
    if (!job) return;
    const trials = [...table.trials.values()].sort((a, b) => a.number - b.number);
    try {
      await front.draw(job, trials);
      await drawHistory(parts.history, job, trials);
      parts.view.dataset.drawn = String(trials.length);
    } catch (error) {
      onProblem(error);
    }
  }, 600);

  const rows = throttled(() => table.draw(), 250);

  const feed = new JobFeed(id, {
    job(next) {
      job = next;
      table.setBest(next.best?.trial ?? null);
      head(parts, next, act);
      onTitle(jobTitle(next));
      rows();
      figures();
    },
    trials(changed) {
      table.put(changed);
      rows();
      figures();
    },
    logs: (lines) => logs.put(lines),
    link: onLink,
    problem(error) {
      onProblem(error);
      if (error.status !== 404) return;
      feed.stop(); // it will not come into being by asking again
      onLink("");
      fill(parts.title, "No such job");
      fill(parts.verdict, "It may have been on another service. All jobs of this one are in the list.");
    },
  });

  async function act(name, button) {
    if (name === "cancel" && !(await confirmed(parts.dialog))) return;
    button.disabled = true;
    try {
      await api.command(id, name);
      await feed.refresh();
    } catch (error) {
      onProblem(error);
    } finally {
      button.disabled = false;
    }
  }

  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", figures);
  feed.start();
  return {
    view: parts.view,
    title: "Job",
    stop() {
      feed.stop();
      figures.stop();
      rows.stop();
      scheme.removeEventListener("change", figures);
      window.Plotly?.purge(parts.front);
      window.Plotly?.purge(parts.history);
    },
  };
}

function skeleton() {
  const p = {
    title: h("h1", {}, "Loading…"),
    pill: h("span", {}),
    verdict: h("p", { class: "verdict", role: "status" }),
    about: h("p", { class: "muted small" }),
    actions: h("div", { class: "actions" }),
    tiles: h("div", { class: "tiles" }),
    front: h("div", { class: "figure", role: "img", "aria-label": "Latency against metric of every trial; the table below has the numbers" }),
    card: h("div", { class: "hover-card", hidden: true }),
    history: h("div", { class: "figure", role: "img", "aria-label": "Best metric inside the budget over the trials" }),
    trials: h("div", {}),
    logs: h("div", {}),
    dialog: cancelDialog(),
  };
  const key = h(
    "ul",
    { class: "key" },
    [["accent", "best"], ["good", "inside the budget"], ["dim", "outside"], ["tick", "rejected before tuning"]].map(([tone, text]) =>
      h("li", {}, h("span", { class: `dot dot-${tone}`, "aria-hidden": "true" }), text),
    ),
    h("li", {}, "area is size in bytes"),
  );
  p.view = h(
    "article",
    { class: "job-page" },
    h("nav", { "aria-label": "Breadcrumb" }, h("a", { href: "#/", class: "back" }, "← All jobs")),
    h("header", { class: "job-head" }, h("div", { class: "job-head-text" }, h("div", { class: "title-row" }, p.title, p.pill), p.verdict, p.about), p.actions),
    p.tiles,
    h(
      "div",
      { class: "figures" },
      h("section", { class: "card" }, h("h2", {}, "Trade-off"), h("div", { class: "figure-box" }, p.front, p.card), key),
      h("section", { class: "card" }, h("h2", {}, "Best so far"), h("div", { class: "figure-box" }, p.history), h("ul", { class: "key" }, h("li", {}, h("span", { class: "dot dot-line", "aria-hidden": "true" }), "best inside the budget"), h("li", {}, h("span", { class: "dot dot-dots", "aria-hidden": "true" }), "uncompressed"))),
    ),
    h("section", { class: "card" }, h("h2", {}, "Trials"), p.trials),
    h("section", { class: "card" }, h("h2", {}, "Log"), p.logs),
    p.dialog,
  );
  return p;
}

function head(p, job, act) {
  fill(p.title, jobTitle(job));
  fill(p.pill, statePill(job));
  fill(p.verdict, verdict(job));
  const target = job.spec?.target ?? {};
  const words = [
    `created ${ago(job.created_at)}`,
    `${target.runtime ?? "onnxruntime"} on ${target.device ?? "cpu"}`,
    `${target.threads ?? 1} thread${target.threads > 1 ? "s" : ""}, batch ${target.batch_size ?? 1}`,
    `job ${job.id}`,
  ];
  fill(p.about, words.join(" · "));
  actions(p.actions, job, act);
  fill(p.tiles, tiles(job));
}

function actions(box, job, act) {
  const wish = job.state === "running" ? WISHES[job.directive] : undefined;
  const key = `${job.state}|${wish}|${job.best ? 1 : 0}|${job.outcome}`;
  if (box.dataset.key === key) return; // unchanged: keep the focus where it is
  box.dataset.key = key;
  const button = (name, label, look = "") => {
    const b = h("button", { type: "button", class: look, onclick: () => act(name, b) }, label);
    return b;
  };
  const link = (href, label, look, more = {}) => h("a", { class: `button ${look}`, href, ...more }, label);
  fill(
    box,
    (job.state === "running" || job.state === "queued") && !wish ? button("pause", "Pause") : null,
    job.state === "paused" || wish === "pausing" ? button("resume", "Resume", "primary") : null,
    FINAL.has(job.state) || wish === "cancelling" ? null : button("cancel", "Cancel job", "danger"),
    job.state === "succeeded" ? link(api.reportUrl(job.id), "Report", "", { target: "_blank", rel: "noopener" }) : null,
    job.state === "succeeded" && job.best
      ? link(api.artifactUrl(job.id, "winner"), job.outcome === "feasible" ? "Download model" : "Download nearest miss", "primary", { download: true })
      : null,
  );
}

function tiles(job) {
  const best = job.best;
  const base = job.baseline;
  const lines = Object.fromEntries(budgetLines(job).map((line) => [line.label, line]));
  const score = best?.test_metric ?? best?.metric;
  const drop = base && best ? best.metric - base.metric : null;
  const points = drop === null ? "" : `${drop >= 0 ? "+" : "−"}${Math.abs(drop).toFixed(4)} on validation`;
  return [
    tile(capital(metricName(job)), metric(score), best?.test_metric ? "on test" : best ? "on validation" : "", [base ? `${points || "validation"}, uncompressed ${metric(base.metric)}` : ""], lines["Metric drop"]),
    tile("Latency", milliseconds(best?.latency_ms), best ? times(best.latency_ratio, "faster", "slower") : "", [base ? `uncompressed ${milliseconds(base.latency_ms)}` : ""], lines.Latency),
    tile("Size", fileSize(best?.size_bytes), best ? times(best.size_ratio, "smaller", "larger") : "", [base ? `uncompressed ${fileSize(base.size_bytes)}` : ""], lines.Size),
    h(
      "section",
      { class: "card tile" },
      h("h2", {}, "Search"),
      h("p", { class: "tile-value" }, seconds(job.progress?.elapsed_s)),
      h("p", { class: "small muted" }, progressWords(job)),
      progressBar(job),
      stageSteps(job),
    ),
  ];
}

function times(share, less, more) {
  if (!share) return "";
  return share <= 1 ? `${(1 / share).toFixed(2)}× ${less}` : `${share.toFixed(2)}× ${more}`;
}

function tile(name, value, aside, notes, line) {
  return h(
    "section",
    { class: "card tile" },
    h("h2", {}, name),
    h("p", { class: "tile-value" }, value, aside ? h("span", { class: "tile-aside" }, aside) : null),
    notes.filter(Boolean).map((note) => h("p", { class: "small muted" }, note)),
    line
      ? h(
          "div",
          { class: "tile-budget" },
          budgetBar(line),
          h(
            "p",
            { class: `small is-${line.state}` },
            line.value === null ? `limit ${line.limitText}` : `${line.field === "max_metric_drop" ? "drop " : ""}${line.valueText} of ${line.limitText} allowed`,
          ),
        )
      : h("p", { class: "small muted tile-budget" }, "no limit set"),
  );
}

function cancelDialog() {
  return h(
    "dialog",
    { "aria-labelledby": "cancel-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "cancel-title" }, "Cancel this job?"),
      h("p", {}, "Running trials stop. Finished trials stay in the table; no model is delivered. Pause instead if you want to go on later."),
      h("div", { class: "actions" }, h("button", { value: "no" }, "Keep searching"), h("button", { value: "yes", class: "danger" }, "Cancel job")),
    ),
  );
}

function confirmed(dialog) {
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.returnValue = "no";
    dialog.showModal();
  });
}
