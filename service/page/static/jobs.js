// A job: its events as they come, its stages, its end.

import { Problem, call, connection, heard, json, keyed, said } from "./api.js";
import { announce, ask, duration, el, fill, shownProblem } from "./dom.js";

const FIRST = 6000; // ms until something must have come of a stream: what stands in between may hold it back
const LATER = 40000; // the service says every 15 s that it is still there
const PAUSE = 1000;
const STAGES = [
  ["wait", "Wait for a free place", []],
  ["read", "Read and convert", ["read", "inference mode"]],
  ["fold", "Fold", ["plan", "fold"]],
  ["verify", "Verify", ["verify", "look for the fault", "layers"]],
  ["write", "Write", ["write"]],
];
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export const hasEnded = (job) => ENDED.has(job.state);

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

// Follow a job to its end, whatever happens to the connection; tells each state of it.
export async function follow(id, tell, signal) {
  let after = "0";
  let misses = 0;
  while (!signal.aborted) {
    let job;
    try {
      job = await json(`/jobs/${id}`, { signal, cache: "no-store" });
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof Problem) || (error.code !== "unreachable" && error.status < 500 && error.status !== 429)) throw error;
      tell(null);
      await back(signal);
      continue;
    }
    tell(job);
    if (hasEnded(job)) return job;
    if (misses < 2) {
      try {
        const came = await listen(`/jobs/${id}/events`, after, (event) => tell(Object.assign(job, event)), signal);
        misses = came === after ? misses + 0.5 : 0;
        after = came;
      } catch {
        misses += 1;
      }
    }
    if (!signal.aborted) await pause(misses ? PAUSE : 50, signal);
  }
  return null;
}

async function back(signal) {
  const waiting = new AbortController();
  const there = new Promise((resolve) => {
    connection.addEventListener("back", resolve, { once: true, signal: waiting.signal });
  });
  await Promise.race([there, pause(5 * PAUSE, signal)]);
  waiting.abort();
}

// Read a stream of events; returns the number of the last one when the stream ends. (An EventSource cannot send a key.)
async function listen(path, after, tell, signal) {
  const quiet = new AbortController();
  const stop = () => quiet.abort();
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, FIRST);
  let last = after;
  try {
    const answer = await call(path, {
      headers: { Accept: "text/event-stream", "Last-Event-ID": after, ...keyed() }, signal: quiet.signal, cache: "no-store",
    });
    if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) throw new Error("no events");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return last;
      clearTimeout(timer);
      timer = setTimeout(stop, LATER);
      text += value.replaceAll("\r", "");
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = {};
        for (const line of block.split("\n")) {
          const [, name, content] = /^([a-z]*): ?(.*)$/.exec(line) ?? [];
          if (name) fields[name] = name === "data" && fields.data !== undefined ? `${fields.data}\n${content}` : content;
        }
        if (fields.id) last = fields.id;
        if (fields.data) tell(JSON.parse(fields.data));
      }
    }
  } catch (error) {
    if (error instanceof TypeError && !signal.aborted) heard(false); // it broke off in the middle
    if (last !== after) return last;
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

// Show a job until it has ended; resolves with it as it ended.
export async function showJob(place, id, signal) {
  const title = el("h1", { tabindex: "-1" }, "Job");
  const state = el("p", { class: "lead" }, "Looking for it…");
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  const stages = STAGES.map(([, says]) => el("li", {}, el("span", { class: "says" }, says), " ", el("span", { class: "faint" })));
  const cancel = el("button", { type: "button", disabled: true, click: () => stop() }, "Cancel");
  const trouble = el("div", {});
  fill(place, title, state, bar, el("ol", { class: "stages" }, stages), el("p", { class: "buttons" }, cancel), trouble);
  let current = null;
  let told = "";
  let connected = true;

  async function stop() {
    const sure = await ask({
      title: "Cancel this job?", text: "What was computed so far is thrown away. The file can be sent again.",
      yes: "Cancel the job", dangerous: true,
    });
    if (!sure || signal.aborted) return;
    cancel.disabled = true;
    try {
      // One that has ended in the meantime would be forgotten by the same request.
      if (current && !hasEnded(current)) await call(`/jobs/${id}`, { method: "DELETE" });
      announce("The job is being cancelled.");
    } catch (error) {
      cancel.disabled = false;
      fill(trouble, shownProblem(said(error)));
    }
  }

  function shown() {
    if (!current) return;
    const step = current.step ?? (current.state === "queued" ? "wait" : "");
    const base = step.split(":")[0];
    let at = STAGES.findIndex(([name, , steps]) => name === base || steps.includes(base));
    if (current.state === "queued") at = 0;
    else if (at < 0) at = 1;
    stages.forEach((item, index) => {
      const now = index === at && !hasEnded(current);
      const name = hasEnded(current) && current.state === "succeeded" ? "done" : now ? "now" : index < at ? "done" : "";
      if (item.className !== name) item.className = name;
      if (now) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
      const detail = now && step !== STAGES[at][0] && step !== base ? step.split(":").slice(1).join(":").trim() : now && base !== STAGES[at][0] ? base : "";
      fill(item.lastChild, detail);
    });
    if (typeof current.done === "number" && current.state === "running") bar.value = current.done;
    else bar.removeAttribute("value");
    tick();
    const says = current.state === "queued" ? "The job waits." : `${STAGES[at][1]}.`;
    if (says !== told) announce(says);
    told = says;
  }

  function tick() {
    if (!connected) fill(state, `The connection is lost.${current ? " The job goes on; this" : " This"} page looks again…`);
    if (!connected || !current || hasEnded(current)) return;
    const since = (Date.now() - new Date(current.started ?? current.created).getTime()) / 1000;
    const parts = [current.state === "queued" ? "Waiting" : "At work", `for ${duration(since)}`];
    if (current.attempt > 1) parts.push(`· begun for the ${ordinal(current.attempt)} time, because whoever worked on it died`);
    if (current.cancelling) parts.unshift("Being cancelled ·");
    fill(state, parts.join(" "));
  }

  const clock = setInterval(tick, 1000);
  try {
    const ended = await follow(id, (job) => {
      connected = job !== null;
      if (job) {
        if (!current) {
          fill(title, job.upload);
          cancel.disabled = false;
          document.title = `${job.upload} · bnfold`;
        }
        current = { ...job };
        shown();
      } else tick();
    }, signal);
    return ended;
  } finally {
    clearInterval(clock);
  }
}

const ordinal = (number) => `${number}${["th", "st", "nd", "rd"][number] ?? "th"}`;
