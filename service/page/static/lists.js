// Recent jobs and kept models.

import { Problem, call, connection, json, said } from "./api.js";
import { announce, ask, el, fill, moment, one, shownProblem, size } from "./dom.js";
import { WORDS } from "./verdicts.js";

const OFTEN = 1500; // ms between two looks while a job runs

const STATES = {
  queued: ["waits", "plain"], running: ["runs", "plain"], succeeded: ["done", "good"], failed: ["failed", "bad"], cancelled: ["cancelled", "plain"],
};
const shown = { jobs: 6, models: 6 };
let timer = null;

export const chip = (kind, word) => el("span", { class: `chip ${kind}` }, word);

export function startLists() {
  document.addEventListener("visibilitychange", refresh);
  connection.addEventListener("back", refresh);
}

export function stopLists() {
  clearTimeout(timer);
}

export async function refresh() {
  clearTimeout(timer);
  if (document.hidden || one("home").hidden) return;
  const jobs = await listed("jobs", `/jobs?limit=${shown.jobs}`, jobRow, "No job yet. The first one begins with a file above.");
  await listed("models", `/models?limit=${shown.models}`, modelRow, "No model yet. What is folded is kept here, and served.");
  clearTimeout(timer);
  if (jobs?.some((job) => job.state === "queued" || job.state === "running")) timer = setTimeout(refresh, OFTEN);
}

async function listed(name, path, row, none) {
  const place = one(name);
  try {
    const body = await json(path, { cache: "no-store" });
    const items = body[name];
    const more = body.next === null ? null : el("p", {}, el("button", {
      type: "button", class: "quiet",
      click: async () => {
        const before = shown[name];
        shown[name] = Math.min(1000, shown[name] * 4);
        await refresh();
        place.querySelectorAll("li a")[before]?.focus();
      },
    }, "Show more"));
    // What has not changed stays as it is: whoever stands on it with the keyboard must not be thrown off.
    const said = JSON.stringify([items, body.next !== null, items.map((item) => moment(item.created).textContent)]);
    if (place.dataset.shown !== said) {
      const at = [...place.querySelectorAll("a, button")].indexOf(document.activeElement);
      fill(place, items.length ? el("ul", {}, items.map(row)) : el("p", { class: "faint" }, none), more);
      place.dataset.shown = said;
      if (at >= 0) (place.querySelectorAll("a, button")[at] ?? place.querySelector("a, button"))?.focus();
    }
    return items;
  } catch (error) {
    if (error instanceof Problem && error.code === "unreachable") return null; // the banner says so
    fill(place, shownProblem(said(error)));
    place.dataset.shown = "";
    return null;
  }
}

function jobRow(job) {
  const [word, kind] = STATES[job.state] ?? [job.state, "plain"];
  const at = job.state === "running" && job.step ? [" · ", job.step] : [];
  const why = job.state === "failed" && job.error ? el("span", { class: "why" }, job.error.detail) : null;
  const over = job.finished !== null;
  return el("li", {},
    el("div", { class: "what" }, el("a", { href: `#/jobs/${encodeURIComponent(job.id)}` }, job.upload), why,
      el("span", { class: "faint" }, moment(job.created), ` · ${size(job.bytes)}`, at)),
    chip(kind, job.cancelling ? "is cancelled" : word),
    over ? el("button", { type: "button", class: "quiet", "aria-label": `Forget the job of ${job.upload}`, click: () => forget(job) }, "Forget")
      : el("span", { class: "room" }));
}

function modelRow(model) {
  const [kind, word] = WORDS[model.verdict] ?? ["plain", model.verdict];
  const short = word.replace(/ \(.*/, "");
  return el("li", {},
    el("div", { class: "what" },
      el("a", { href: `#/models/${encodeURIComponent(model.name)}/${model.version}` }, model.name),
      el("span", { class: "faint" }, `version ${model.version} · ${size(model.bytes)} · `, moment(model.created))),
    chip(kind, short),
    el("button", {
      type: "button", class: "quiet", "aria-label": `Delete version ${model.version} of ${model.name}`,
      click: async () => { if (await deleteModel(model)) refresh(); },
    }, "Delete"));
}

async function forget(job) {
  const sure = await ask({
    title: "Forget this job?", text: `${job.upload}: its upload and its record go. A model that came of it stays.`, yes: "Forget it",
  });
  if (!sure) return;
  try {
    await call(`/jobs/${job.id}`, { method: "DELETE" });
    announce("The job is forgotten.");
  } catch (error) {
    if (error.status !== 404) fill(one("jobs"), shownProblem(said(error)));
    if (error.status !== 404) return;
  }
  refresh();
}

// True when it is deleted; asks once more where the model is loaded.
export async function deleteModel(model) {
  const path = `/models/${encodeURIComponent(model.name)}/versions/${model.version}`;
  const sure = await ask({
    title: "Delete this model?", text: `Version ${model.version} of ${model.name} goes with its report, for good.`,
    yes: "Delete it", dangerous: true,
  });
  if (!sure) return false;
  try {
    await call(path, { method: "DELETE" });
  } catch (error) {
    if (error.code === "loaded") {
      const forced = await ask({
        title: "It is loaded", text: "Somebody may be asking it at this moment; whoever does gets an error.",
        yes: "Delete it all the same", dangerous: true,
      });
      if (!forced) return false;
      return deleted(path + "?force=true");
    }
    if (error.status !== 404) return failed(error);
  }
  announce("The model is deleted.");
  return true;
}

async function deleted(path) {
  try {
    await call(path, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) return failed(error);
  }
  announce("The model is deleted.");
  return true;
}

async function failed(error) {
  const problem = said(error);
  await ask({ title: "It was not deleted", text: `${problem.detail}. ${problem.hint}`, yes: "Close" });
  return false;
}
