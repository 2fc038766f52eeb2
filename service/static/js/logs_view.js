// The log of a job. Follows the end while the reader stands there, and stays put while they read further up.

import { fill, h } from "./dom.js";
import { clock } from "./format.js";

const KEPT = 500;

export class LogsView {
  constructor() {
    this.list = h("ol", { class: "log", role: "log", "aria-label": "Log", "aria-live": "off", tabindex: "0" });
    this.empty = h("p", { class: "muted small" }, "Nothing logged yet.");
    this.view = h("div", {}, this.empty, this.list);
    this.list.hidden = true;
  }

  put(rows) {
    if (!rows.length) return;
    const list = this.list;
    list.hidden = false;
    this.empty.hidden = true;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    for (const row of rows) list.append(line(row));
    while (list.childElementCount > KEPT) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }
}

function line(row) {
  const level = ["warning", "error"].includes(row.level) ? row.level : "info";
  const trial = row.trial === null || row.trial === undefined ? null : h("span", { class: "log-trial" }, `trial ${row.trial}`);
  const tag = level === "info" ? null : h("strong", {}, level);
  const entry = h("li", { class: `log-${level}` }, h("time", { datetime: row.at ?? "" }, clock(row.at)));
  const text = h("span", { class: "log-text" });
  fill(text, tag, trial, row.message ?? "");
  entry.append(text);
  return entry;
}
