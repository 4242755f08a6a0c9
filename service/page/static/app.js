// The page: what stands behind the # says which part of it is shown.

import { Problem, connection, look, said, startKey } from "./api.js";
import { announce, el, fill, one, shownProblem, startAsking } from "./dom.js";
import { again, holdsFile, startForm } from "./form.js";
import { showJob } from "./jobs.js";
import { refresh, startLists, stopLists } from "./lists.js";
import { showModel } from "./model.js";

let shown = new AbortController();
let first = true;
let cached = "";

const home = () => { location.hash = "#/"; };

function show(element) {
  for (const part of [one("home"), one("place")]) part.hidden = part !== element;
  // Whoever listens begins at the title; at the start the browser says the page by itself.
  if (!first) {
    (element.querySelector("h1") ?? one("main")).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  first = false;
}

async function route() {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  stopLists();
  const [, kind, ...rest] = location.hash.split("/");
  let names;
  try {
    names = rest.map(decodeURIComponent);
  } catch {
    names = [];
  }
  const place = one("place");
  if (kind === "jobs" && names.length === 1) {
    fill(place, el("h1", { tabindex: "-1" }, "Job"));
    show(place);
    await guarded(place, signal, () => jobPage(place, names[0], signal));
  } else if (kind === "models" && names.length === 2) {
    fill(place, el("h1", { tabindex: "-1" }, "Model"), el("p", { class: "lead" }, "Looking for it…"));
    show(place);
    await guarded(place, signal, () => modelPage(place, names, signal));
  } else {
    document.title = "bnfold";
    fill(place);
    show(one("home"));
    await refresh();
  }
}

// Whatever goes wrong is shown, and tried again where the service was only away.
async function guarded(place, signal, doing) {
  try {
    await doing();
  } catch (error) {
    if (signal.aborted) return;
    const problem = said(error);
    fill(place, el("h1", { tabindex: "-1" }, problem.status === 404 ? "It is not there" : "That did not work"), shownProblem(problem), back());
    if (problem.code === "unreachable") {
      connection.addEventListener("back", () => { if (!signal.aborted) route(); }, { once: true, signal });
    }
  }
}

const back = (...more) => el("p", { class: "buttons" }, more, el("a", { class: "button", href: "#/" }, "Fold another model"));

async function modelPage(place, [name, version], signal) {
  await showModel(place, name, version, { signal, cached: cached === location.hash, gone: home });
  cached = "";
  place.append(back(holdsFile(place.querySelector("h1").textContent) ? el("button", { type: "button", click: () => again() }, "Fold it with other options") : null));
  announce(place.querySelector(".verdict .word")?.textContent ?? "");
  if (document.activeElement === document.body) place.querySelector("h1")?.focus({ preventScroll: true });
}

async function jobPage(place, id, signal) {
  const job = await showJob(place, encodeURIComponent(id), signal);
  if (!job || signal.aborted) return;
  if (job.state === "succeeded" && job.model) {
    if (job.model.links) {
      location.replace(`#/models/${encodeURIComponent(job.model.name)}/${job.model.version}`);
      return;
    }
    fill(place, el("h1", { tabindex: "-1" }, job.upload), el("p", { class: "lead" }, "The job is done, and the model that came of it was deleted since."), back());
  } else if (job.state === "cancelled") {
    fill(place, el("h1", { tabindex: "-1" }, job.upload), el("p", { class: "lead" }, "The job was cancelled."), back());
    announce("The job was cancelled.");
  } else {
    const problem = new Problem(job.error ?? { detail: "the job ended without a model", hint: "Send the file again." });
    const options = Object.entries(job.options ?? {});
    const retry = holdsFile(job.upload)
      ? el("button", { type: "button", class: "primary", click: () => again(problem) }, "Change the options and send it again") : null;
    fill(place, el("h1", { tabindex: "-1" }, job.upload), el("p", { class: "lead" }, "There is no folded model."), shownProblem(problem),
      options.length ? el("p", { class: "faint" }, "It was sent with ", options.map(([name, value], index) => [index ? ", " : "", el("code", {}, `${name}=${written(value)}`)])) : null,
      back(retry));
  }
  (place.querySelector("h1") ?? place).focus({ preventScroll: true });
}

const written = (value) => (Array.isArray(value) ? value.join(", ")
  : typeof value === "object" ? Object.entries(value).map((pair) => pair.join("=")).join(", ") : String(value));

one("skip").addEventListener("click", (event) => { event.preventDefault(); one("main").focus(); });
startAsking();
startKey();
startForm((where, isCached) => {
  cached = isCached ? where : "";
  if (one("home").hidden) return; // somebody looks at something else meanwhile; the list shows it
  if (location.hash === where) route();
  else location.hash = where;
});
startLists();
addEventListener("hashchange", route);
look();
route();
