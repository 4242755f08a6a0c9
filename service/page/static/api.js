// Talks to the service: problems as it tells them, the key where it asks for one, and what to do when it is away.

import { ask, fill, one, sentence } from "./dom.js";

const KEY = "bnfold-key";
const AGAIN = 2000; // ms between two looks whether a service that was away is back

export class Problem extends Error {
  constructor(body, status = 0) {
    super(body.detail);
    this.detail = body.detail;
    this.hint = body.hint ?? "";
    this.code = body.code ?? "";
    this.status = status;
    this.body = body;
  }
}

export const away = () => new Problem({
  detail: "the service does not answer",
  hint: "Check that it runs and that this device is connected; this page looks again by itself.",
  code: "unreachable",
});

// ---- the key ----

export const key = () => sessionStorage.getItem(KEY);
export const keyed = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

let asking = null;

// Ask for a key, once for all requests that want one; false where nobody gave one.
export function askForKey(refused) {
  asking ??= (async () => {
    const told = await ask({
      title: "This service asks for an API key",
      text: refused ? "The key was not accepted. It is kept in this tab only." : "It is kept in this tab only, until you close it.",
      yes: "Use this key",
      secret: true,
    });
    asking = null;
    if (!told) return false;
    sessionStorage.setItem(KEY, told);
    one("forget-key").hidden = false;
    return true;
  })();
  return asking;
}

export function startKey() {
  const button = one("forget-key");
  button.hidden = !key();
  button.addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    button.hidden = true;
    location.reload();
  });
}

// ---- whether the service is there ----

export const connection = new EventTarget();
let lost = false;
let looking = null;

export function banner(text) {
  const place = one("banner");
  if (place.hidden === !text && place.textContent === (text ?? "")) return;
  place.hidden = !text;
  fill(place, text ?? "");
}

// What became of a request says whether the service is there.
export function heard(there) {
  if (there === !lost) return;
  lost = !there;
  connection.dispatchEvent(new Event(there ? "back" : "lost"));
  look();
}

export function look() {
  clearTimeout(looking);
  looking = setTimeout(check, lost ? 0 : 50);
}

async function check() {
  let next = 0;
  try {
    const answer = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    heard(true);
    banner(answer.ok ? null : "The service takes no models at the moment: it is about to stop, or cannot write its store.");
    next = answer.ok ? 0 : AGAIN;
  } catch {
    heard(false);
    banner("The service does not answer. Looking again…");
    next = AGAIN;
  }
  clearTimeout(looking);
  looking = next ? setTimeout(check, next) : null;
}

window.addEventListener("online", look);
window.addEventListener("offline", look);

// ---- requests ----

export async function problemOf(answer) {
  let body = null;
  try { body = await answer.json(); } catch { /* no JSON: something in front of the service answered */ }
  if (!body || typeof body.detail !== "string") {
    body = { detail: `the service answered ${answer.status} ${answer.statusText}`.trim(), hint: "Try again in a moment." };
  }
  return new Problem(body, answer.status);
}

export async function call(path, options = {}) {
  for (let tried = 0; ; tried += 1) {
    const sent = key();
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: { Accept: "application/json", ...options.headers, ...keyed() } });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      heard(false);
      throw away();
    }
    heard(true);
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    if (problem.status === 503) look();
    if (problem.status === 429 && tried < 3 && (options.method ?? "GET") === "GET") {
      await new Promise((resolve) => { setTimeout(resolve, 1000 * Math.min(10, Number(answer.headers.get("retry-after")) || 1)); });
      continue;
    }
    if (problem.status !== 401 || tried > 4) throw problem;
    if (sent === key() && !(await askForKey(sent !== null))) throw problem;
  }
}

export const json = async (path, options) => (await call(path, options)).json();

// Send a form, telling how much of it has left.
export async function upload(path, form, headers, { progress, signal }) {
  for (let tried = 0; ; tried += 1) {
    const sent = key();
    const answer = await post(path, form, { ...headers, ...keyed() }, progress, signal);
    heard(true);
    if (answer.status < 400) return answer;
    const body = answer.body && typeof answer.body.detail === "string" ? answer.body
      : { detail: `the service answered ${answer.status}`, hint: "Try again in a moment." };
    const problem = new Problem(body, answer.status);
    if (problem.status === 503) look();
    if (problem.status !== 401 || tried > 4) throw problem;
    if (sent === key() && !(await askForKey(sent !== null))) throw problem;
  }
}

function post(path, form, headers, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.open("POST", path);
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
    request.addEventListener("load", () => resolve({ status: request.status, body: request.response }));
    request.addEventListener("error", () => {
      heard(false);
      reject(new Problem({
        detail: "the connection was lost while the file was sent",
        hint: "Send it again: the service does not take it twice.",
        code: "unreachable",
      }));
    });
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    request.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
    signal.addEventListener("abort", stop);
    request.send(form);
  });
}

// ---- files ----

// A link that saves a file. With a key, a plain link would not send it.
export async function save(path, name) {
  const content = await (await call(path, { headers: { Accept: "*/*" } })).blob();
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

export const said = (error) => (error instanceof Problem ? error : new Problem({
  detail: `this page met a defect: ${sentence(error?.message ?? error)}`, hint: "Load it again, and report this.", code: "page",
}));
