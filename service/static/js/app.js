// Starts the page: which view for which address, who is signed in, and what the connection does.

import { Problem } from "./api.js";
import { fill } from "./dom.js";
import { jobView } from "./job_view.js";
import { jobsView } from "./jobs_view.js";
import { clearProblems, showProblem } from "./notices.js";
import { signInView } from "./sign_in.js";

const LINKS = { live: "Live", polling: "Polling", lost: "Connection lost, trying again" };
const main = document.getElementById("main");
const live = document.getElementById("live");
let current = null;

function onLink(state) {
  live.hidden = !LINKS[state];
  live.className = `live live-${state}`;
  fill(live, LINKS[state] ?? "");
  if (state !== "lost") for (const note of document.querySelectorAll('.notice[data-key^="Connection lost"]')) note.remove();
}

function onProblem(error) {
  if (error instanceof Problem && error.status === 401) return show(signInView(route));
  showProblem(error);
}

function show(next) {
  current?.stop();
  current = next;
  main.replaceChildren(next.view);
  setTitle(next.title);
  onLink("");
  next.focus?.();
}

function setTitle(title) {
  document.title = `${title} · Bantam`;
}

function route() {
  clearProblems();
  const job = /^#\/jobs\/([^/]+)$/.exec(location.hash);
  const tools = { onProblem, onLink, onTitle: setTitle };
  show(job ? jobView(decodeURIComponent(job[1]), tools) : jobsView(tools));
  window.scrollTo(0, 0);
}

window.addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address's hash is the route
  main.focus();
});
route();
