// Asks once for the token; the service answers with a cookie that scripts cannot read.

import * as api from "./api.js";
import { fill, h } from "./dom.js";

export function signInView(onDone) {
  const error = h("p", { class: "field-error", id: "token-error", role: "alert" });
  const input = h("input", {
    id: "token",
    name: "token",
    type: "password",
    autocomplete: "current-password",
    required: true,
    spellcheck: "false",
    "aria-describedby": "token-help token-error",
  });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");

  async function submit(event) {
    event.preventDefault();
    const token = input.value.trim();
    if (!token) {
      fill(error, "Paste the token first.");
      return input.focus();
    }
    button.disabled = true;
    fill(error);
    try {
      await api.signIn(token);
      onDone();
    } catch (problem) {
      const wrong = problem.status === 401 || problem.status === 403;
      fill(
        error,
        wrong
          ? "This token opens nothing here: it is mistyped, revoked or has ended. Copy it again."
          : `${problem.message} ${problem.remedy ?? ""}`,
      );
      input.setAttribute("aria-invalid", "true");
      input.select();
    } finally {
      button.disabled = false;
    }
  }

  const view = h(
    "section",
    { class: "card sign-in", "aria-labelledby": "sign-in-title" },
    h("h1", { id: "sign-in-title" }, "Sign in"),
    h("p", { class: "muted" }, "This service answers only to those who hold its token."),
    h(
      "form",
      { onsubmit: submit, novalidate: true },
      // Password managers file the token under this name.
      h("input", { name: "username", autocomplete: "username", value: "bantam", hidden: true, readonly: true }),
      h("label", { for: "token" }, "Token"),
      input,
      error,
      button,
    ),
    h(
      "p",
      { class: "muted small", id: "token-help" },
      "The first start wrote it to the file ",
      h("code", {}, "token"),
      " in the service's data folder. Print it there with ",
      h("code", {}, "cat token"),
      ".",
    ),
  );
  return { view, title: "Sign in", focus: () => input.focus(), stop() {} };
}
