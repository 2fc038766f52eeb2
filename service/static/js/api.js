// Talks to the service. Every refusal becomes a Problem that says which field, and what to do next.

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The service answered ${status}.`);
    this.status = status;
    this.title = document.title || "Request refused";
    this.fields = Array.isArray(document.errors) ? document.errors : document.field ? [document] : [];
    this.remedy = document.remedy || "";
  }
}

export class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
    this.title = "Connection lost";
    this.remedy = "Check that `bantam serve` is still running; this page tries again by itself.";
    this.fields = [];
  }
}

async function send(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch {
    throw new Unreachable();
  }
  const text = await response.text();
  let document = {};
  try {
    document = text ? JSON.parse(text) : {};
  } catch {
    document = { detail: `${response.status} ${response.statusText}` };
  }
  if (!response.ok) throw new Problem(response.status, document ?? {});
  return document;
}

const job = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

export const signIn = (token) => send("POST", "/v1/session", { token });
export const listJobs = (limit, cursor) =>
  send("GET", `/v1/jobs?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
export const listModels = () => send("GET", "/v1/models");
export const getJob = (id) => send("GET", job(id));
export const getTrials = (id, after, limit) => send("GET", `${job(id)}/trials?after_rev=${after}&limit=${limit}`);
export const getLogs = (id, after, limit) => send("GET", `${job(id)}/logs?after=${after}&limit=${limit}`);
export const command = (id, name) => send("POST", `${job(id)}/${name}`);
export const artifactUrl = (id, which) => `${job(id)}/artifact?which=${which}`;
export const reportUrl = (id) => `${job(id)}/report`;
export const eventsUrl = (id, after) => `${job(id)}/events?after=${after}`;
