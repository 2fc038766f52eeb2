// Follows one job: server-sent events as a hint of what changed, and polling whenever they are not there.
//
// The tables of the service are the truth, so an event only says "fetch what is newer than what I have"; a lost,
// repeated or reordered event can then do no harm.

import * as api from "./api.js";
import { throttled } from "./dom.js";
import { FINAL } from "./format.js";

const PAGE = 1000;
const POLL_MS = 2000;

export class JobFeed {
  /** handlers: job(job), trials([trial]), logs([row]), link("live" | "polling" | "lost"), problem(error) */
  constructor(id, handlers) {
    this.id = id;
    this.handlers = handlers;
    this.rev = 0;
    this.trialRev = 0;
    this.logId = 0;
    this.state = "";
    this.stopped = false;
    this.busy = false;
    this.again = false;
    this.soon = throttled(() => this.refresh(), 300);
  }

  async start() {
    await this.refresh();
    if (!this.stopped) this.listen();
    this.timer = setInterval(() => {
      if (document.hidden || (FINAL.has(this.state) && this.linked)) return;
      if (!this.linked) this.refresh();
    }, POLL_MS);
    if (this.stopped) clearInterval(this.timer);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    this.soon.stop();
    this.source?.close();
  }

  listen() {
    if (FINAL.has(this.state)) return;
    this.source = new EventSource(api.eventsUrl(this.id, this.rev));
    this.source.onopen = () => this.link(true);
    this.source.onerror = () => {
      this.link(false);
      // A closed source does not come back by itself (the service answered with something else than events).
      if (this.source.readyState === EventSource.CLOSED && !this.stopped && !FINAL.has(this.state)) {
        setTimeout(() => !this.stopped && this.listen(), 5 * POLL_MS);
      }
    };
    for (const kind of ["job", "trial", "log"]) this.source.addEventListener(kind, () => this.soon());
  }

  link(up) {
    this.linked = up;
    if (FINAL.has(this.state)) return;
    this.handlers.link(up ? "live" : "polling");
  }

  /** Fetches all that is newer; a call during a fetch makes one more round afterwards. */
  async refresh() {
    if (this.stopped) return;
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      const job = await api.getJob(this.id);
      await this.fetchTrials();
      await this.fetchLogs();
      if (this.stopped) return;
      this.state = job.state;
      this.rev = job.rev;
      this.handlers.job(job);
      if (FINAL.has(job.state)) {
        this.handlers.link("");
        this.source?.close();
        this.linked = true; // nothing more will come: no polling either
      } else {
        this.handlers.link(this.linked ? "live" : "polling");
      }
    } catch (error) {
      if (this.stopped) return;
      this.linked = false;
      this.handlers.link("lost");
      this.handlers.problem(error);
    } finally {
      this.busy = false;
      if (this.again) {
        this.again = false;
        this.soon();
      }
    }
  }

  async fetchTrials() {
    for (;;) {
      const page = await api.getTrials(this.id, this.trialRev, PAGE);
      if (this.stopped) return;
      if (page.items.length) this.handlers.trials(page.items);
      const moved = page.next_rev > this.trialRev;
      this.trialRev = Math.max(this.trialRev, page.next_rev ?? 0);
      if (!moved || page.items.length < PAGE) return;
    }
  }

  async fetchLogs() {
    for (;;) {
      const page = await api.getLogs(this.id, this.logId, PAGE);
      if (this.stopped || !page.items.length) return;
      this.logId = page.next;
      this.handlers.logs(page.items);
      if (page.items.length < PAGE) return;
    }
  }
}
