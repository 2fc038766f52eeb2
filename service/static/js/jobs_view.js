// The list of jobs, newest first.

import * as api from "./api.js";
import { budgetBar, budgetLines } from "./budget.js";
import { fill, h } from "./dom.js";
import { FINAL, ago } from "./format.js";
import { jobTitle, progressBar, progressWords, statePill } from "./job_words.js";

const PAGE = 25;
const POLL_MS = 3000;

export function jobsView({ onProblem, onLink }) {
  const list = h("ul", { class: "jobs", "aria-label": "Jobs" });
  const summary = h("p", { class: "muted", role: "status" });
  const more = h("button", { type: "button", class: "quiet", hidden: true }, "Show older jobs");
  const view = h("section", {}, h("div", { class: "page-head" }, h("h1", {}, "Jobs"), summary), list, more);
  const names = new Map();
  let limit = PAGE;
  let seen = "";
  let timer = 0;

  more.addEventListener("click", () => {
    limit = Math.min(500, limit + PAGE); // 500 is the most that one page holds
    refresh();
  });

  async function refresh() {
    try {
      const page = await api.listJobs(limit);
      await learnNames(page.items);
      onLink("");
      draw(page);
    } catch (error) {
      onLink("lost");
      onProblem(error);
    }
  }

  async function learnNames(jobs) {
    if (jobs.every((job) => names.has(job.spec?.model))) return;
    const models = await api.listModels();
    for (const model of models.items) names.set(model.id, model.name);
    for (const job of jobs) if (!names.has(job.spec?.model)) names.set(job.spec?.model, job.spec?.model ?? "");
  }

  function draw(page) {
    // An unchanged list is left alone, so that focus and selection survive the poll.
    const key = JSON.stringify(page.items.map((job) => [job.id, job.rev, job.state, ago(job.created_at)]));
    if (key === seen) return;
    seen = key;
    const active = page.items.filter((job) => !FINAL.has(job.state)).length;
    fill(summary, page.items.length ? `${page.items.length} shown, ${active} active` : "");
    const focused = document.activeElement?.getAttribute?.("href");
    fill(list, page.items.length ? page.items.map((job) => h("li", {}, jobRow(job, names))) : empty());
    if (focused?.startsWith("#/jobs/")) list.querySelector(`a[href="${focused}"]`)?.focus();
    more.hidden = !page.next_cursor;
  }

  refresh();
  timer = setInterval(() => !document.hidden && refresh(), POLL_MS);
  return { view, title: "Jobs", stop: () => clearInterval(timer) };
}

function jobRow(job, names) {
  const lines = budgetLines(job);
  return h(
    "a",
    { class: "job card", href: `#/jobs/${encodeURIComponent(job.id)}` },
    h(
      "span",
      { class: "job-name" },
      h("strong", {}, jobTitle(job)),
      h("span", { class: "muted small" }, `${names.get(job.spec?.model) ?? ""} · ${ago(job.created_at)}`),
    ),
    h("span", { class: "job-state" }, statePill(job)),
    h("span", { class: "job-budget" }, lines.map((line) => budgetBar(line, { compact: true }))),
    h("span", { class: "job-progress" }, progressBar(job), h("span", { class: "muted small" }, progressWords(job))),
  );
}

function empty() {
  return h(
    "li",
    { class: "card empty" },
    h("h2", {}, "No jobs yet"),
    h("p", { class: "muted" }, "A job is a model, data and a budget. Send one from a terminal:"),
    h("pre", {}, h("code", {}, "bantam submit job.json --watch")),
    h("p", { class: "muted" }, "or see a whole search on handwritten digits first:"),
    h("pre", {}, h("code", {}, "bantam demo")),
  );
}
