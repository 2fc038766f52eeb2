// One place for what went wrong: what happened, which field, what to do next.

import { h } from "./dom.js";

const area = () => document.getElementById("notices");

export function showProblem(error) {
  const key = `${error.title}|${error.message}`;
  for (const shown of area().children) if (shown.dataset.key === key) return;
  const fields = (error.fields ?? []).map((f) => `${f.field ? `${f.field}: ` : ""}${f.message ?? f.detail ?? ""}`);
  const note = h(
    "div",
    { class: "notice", dataset: { key } },
    h(
      "div",
      { class: "notice-text" },
      h("strong", {}, error.title || "Something went wrong"),
      fields.length ? fields.map((f) => h("p", {}, f)) : h("p", {}, error.message),
      error.remedy ? h("p", { class: "notice-remedy" }, error.remedy) : null,
    ),
    h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => note.remove() }, "×"),
  );
  area().append(note);
}

export const clearProblems = () => area().replaceChildren();
