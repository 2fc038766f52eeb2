// The table of trials: the newest 200 at first, sortable, one row per trial that opens to show everything known of it.

import { fill, h } from "./dom.js";
import { NONE, count, fileSize, metric, milliseconds, ratio, recipeWords, seconds, trialSeconds, violationWords } from "./format.js";
import { pill } from "./job_words.js";

const FIRST = 200;
const TONES = { running: "busy", completed: "good", gated: "idle", stopped: "idle", failed: "bad" };

const COLUMNS = [
  { key: "number", label: "Trial", value: (t) => t.number },
  { key: "state", label: "State", value: (t) => t.state, text: true },
  { key: "metric", label: "Metric", value: (t) => t.metric },
  { key: "latency", label: "Latency ratio", value: (t) => t.latency?.ratio },
  { key: "size", label: "Size ratio", value: (t) => t.size_ratio },
  { key: "rung", label: "Rung", wide: true, value: (t) => t.fidelity?.rung },
  { key: "origin", label: "Proposed by", wide: true, value: (t) => t.origin, text: true },
  { key: "seconds", label: "Seconds", wide: true, value: trialSeconds },
  { key: "recipe", label: "Recipe, reason", wide: true, value: (t) => recipeWords(t.recipe), text: true },
];

export class TrialsTable {
  constructor() {
    this.trials = new Map();
    this.rows = new Map();
    this.open = new Set();
    this.sort = { key: "number", down: true };
    this.limit = FIRST;
    this.best = null;
    this.body = h("tbody");
    this.heads = COLUMNS.map((column) => this.head(column));
    this.note = h("p", { class: "muted small", role: "status" });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.showMore() });
    const table = h(
      "table",
      { class: "trials" },
      h("caption", { class: "hidden" }, "Trials of this job"),
      h("thead", {}, h("tr", {}, this.heads)),
      this.body,
    );
    this.view = h(
      "div",
      {},
      h("div", { class: "scroll", role: "region", "aria-label": "Trials", tabindex: "0" }, table),
      h("div", { class: "table-foot" }, this.note, this.more),
    );
  }

  head(column) {
    const button = h("button", { type: "button", class: "sort", onclick: () => this.sortBy(column) }, column.label);
    return h("th", { scope: "col", class: `${column.text ? "" : "num"} ${column.wide ? "wide" : ""}`, dataset: { key: column.key } }, button);
  }

  sortBy(column) {
    const same = this.sort.key === column.key;
    this.sort = { key: column.key, down: same ? !this.sort.down : !column.text };
    this.draw();
  }

  showMore() {
    this.limit += FIRST;
    this.draw();
  }

  /** Takes changed trials; only their rows are built anew. */
  put(trials) {
    for (const trial of trials) {
      this.trials.set(trial.number, trial);
      this.rows.delete(trial.number);
    }
  }

  setBest(number) {
    if (number === this.best) return;
    for (const n of [this.best, number]) this.rows.delete(n);
    this.best = number;
  }

  /** Opens a trial's row and brings it into view. */
  pick(number) {
    this.open.add(number);
    this.rows.delete(number);
    while (!this.sorted().slice(0, this.limit).some((t) => t.number === number)) {
      if (this.limit >= this.trials.size) return;
      this.limit += FIRST;
    }
    this.draw();
    this.rows.get(number)?.[0].querySelector("button")?.focus();
  }

  sorted() {
    const { key, down } = this.sort;
    const { value } = COLUMNS.find((c) => c.key === key);
    const missing = (v) => v === null || v === undefined || v === "";
    return [...this.trials.values()].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      // What is not known stands last, whichever way the column is sorted.
      if (missing(x) || missing(y)) return missing(x) - missing(y) || b.number - a.number;
      const order = x < y ? -1 : x > y ? 1 : 0;
      return (down ? -order : order) || b.number - a.number;
    });
  }

  draw() {
    for (const th of this.heads) {
      const mine = th.dataset.key === this.sort.key;
      if (mine) th.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    const all = this.sorted();
    const shown = all.slice(0, this.limit);
    const wanted = shown.flatMap((trial) => {
      if (!this.rows.has(trial.number)) this.rows.set(trial.number, this.build(trial));
      return this.rows.get(trial.number);
    });
    const now = this.body.children;
    if (wanted.length !== now.length || wanted.some((row, i) => row !== now[i])) {
      const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.trial : null;
      this.body.replaceChildren(...wanted);
      if (focused) this.body.querySelector(`button[data-trial="${focused}"]`)?.focus({ preventScroll: true });
    }
    fill(this.note, all.length ? `${shown.length} of ${all.length} trials` : "No trials yet. The first appear once the model is profiled.");
    this.more.hidden = shown.length >= all.length;
    fill(this.more, `Show ${Math.min(FIRST, all.length - shown.length)} more`);
  }

  toggle(number) {
    if (!this.open.delete(number)) this.open.add(number);
    this.rows.delete(number);
    this.draw();
  }

  build(trial) {
    const open = this.open.has(trial.number);
    const button = h(
      "button",
      {
        type: "button",
        class: "row-open",
        "aria-expanded": String(open),
        "aria-label": `Trial ${trial.number}, details`,
        dataset: { trial: trial.number },
        onclick: () => this.toggle(trial.number),
      },
      String(trial.number),
    );
    const marks = [
      trial.number === this.best ? pill("best", "accent") : null,
      trial.on_front && trial.number !== this.best ? pill("front", "good") : null,
    ];
    const row = h(
      "tr",
      { class: rowClass(trial) },
      h("th", { scope: "row", class: "num" }, button),
      h("td", {}, pill(trial.state, trial.state === "completed" && !trial.feasible ? "warn" : TONES[trial.state]), marks),
      number(metric(trial.metric)),
      number(ratio(trial.latency?.ratio), interval(trial.latency?.ratio_ci)),
      number(ratio(trial.size_ratio)),
      number(trial.fidelity ? String(trial.fidelity.rung) : NONE, null, "wide"),
      h("td", { class: "wide" }, trial.origin || NONE),
      number(secondsOf(trial), null, "wide"),
      h("td", { class: "words wide" }, recipeWords(trial.recipe), trial.reason ? h("span", { class: "reason" }, trial.reason) : null),
    );
    if (!open) return [row];
    return [row, h("tr", { class: "details" }, h("td", { colspan: COLUMNS.length }, details(trial)))];
  }
}

const number = (text, title, look = "") => h("td", { class: `num ${look}` }, text, title ? h("span", { class: "ci" }, title) : null);
const interval = (ci) => (ci ? `${ci[0].toFixed(3)} – ${ci[1].toFixed(3)}` : null);
const secondsOf = (t) => {
  const s = trialSeconds(t);
  return s === null ? NONE : s.toFixed(s < 10 ? 2 : 1);
};

function rowClass(trial) {
  return trial.state === "gated" || trial.state === "failed" || trial.feasible === false ? "is-dim" : "";
}

function details(trial) {
  const facts = [
    ["Recipe", recipeWords(trial.recipe)],
    ...(trial.reason ? [["Reason", trial.reason]] : []),
    ["Proposed by", trial.origin || NONE],
    ["Latency", trial.latency ? `p50 ${milliseconds(trial.latency.p50_ms)}, p90 ${milliseconds(trial.latency.p90_ms)}, ${trial.latency.repeats} repeats` : NONE],
    ["Size", fileSize(trial.size_bytes)],
    ["MACs", count(trial.macs)],
    ["Parameters", count(trial.parameters)],
    ["Tuning", trial.fidelity ? `rung ${trial.fidelity.rung}, ${count(trial.fidelity.samples)} samples` : NONE],
    ["Worker", trial.worker ?? NONE],
  ];
  const keep = (trial.recipe?.steps ?? []).find((s) => s.technique === "structured_pruning")?.keep ?? {};
  const groups = Object.entries(keep);
  const stages = trial.stages ?? [];
  return h(
    "div",
    { class: "detail" },
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    (trial.violations ?? []).length
      ? h("section", {}, h("h4", {}, "Missed"), h("ul", {}, trial.violations.map((v) => h("li", {}, violationWords(v)))))
      : null,
    groups.length
      ? h("section", {}, h("h4", {}, "Channels kept"), h("ul", { class: "chips" }, groups.map(([name, n]) => h("li", {}, h("code", {}, name), ` ${n}`))))
      : null,
    stages.length
      ? h(
          "section",
          {},
          h("h4", {}, "Seconds"),
          h("ul", { class: "chips" }, stages.map((s) => h("li", {}, `${s.name} ${s.cached ? "from cache" : seconds(s.seconds)}`))),
        )
      : null,
  );
}
