// The form: a file, its options, and its upload.

import { Problem, said, upload } from "./api.js";
import { announce, count, el, fill, one, shownProblem, size } from "./dom.js";

const LIMIT = Number(document.documentElement.dataset.uploadSize);
const AROUND = 4096; // bytes that a form adds to its file
const LISTS = new Set(["set", "keep"]); // one a line

let file = null;
let sending = null;
let attempt = ""; // names what is sent: the same again is the same job

const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

// `went` is told where to go when the service has taken a file.
export function startForm(went) {
  const form = one("form");
  const input = one("file");
  const drop = one("drop");
  fill(one("limit"), ` · up to ${size(LIMIT)}`);

  input.addEventListener("change", () => { if (input.files.length) take(input.files[0]); });
  input.addEventListener("click", () => { input.value = ""; }); // the same file may be chosen anew: it may have changed
  form.addEventListener("input", () => { attempt = random(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); send(went); });
  one("upload-stop").addEventListener("click", () => sending?.abort());

  // Files may be dropped anywhere: whoever misses the frame must not lose the page to the file.
  let inside = 0;
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (now) => { drop.classList.toggle("over", now); };
  addEventListener("dragenter", (event) => { if (carries(event)) { event.preventDefault(); inside += 1; over(true); } });
  addEventListener("dragleave", (event) => { if (carries(event)) { inside = Math.max(0, inside - 1); over(inside > 0); } });
  // A field that takes a file of its own takes it by itself.
  const isTaken = (event) => event.target instanceof Element && event.target.closest("input[type=file]:not(#file)") !== null;
  addEventListener("dragover", (event) => {
    if (!carries(event) || isTaken(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = sending ? "none" : "copy";
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    inside = 0;
    over(false);
    if (isTaken(event)) return;
    event.preventDefault();
    if (sending) return;
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const folder = items.some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    const files = [...event.dataTransfer.files];
    if (location.hash.length > 2) location.hash = "#/";
    if (folder || files.length > 1) {
      refuse(folder
        ? { detail: "this is a folder", hint: "Drop one file: a .zip of this folder, if the model is several files." }
        : { detail: `these are ${count(files.length)} files`, hint: "Drop one model at a time; the architecture of a weights-only file goes under Options." });
    } else if (files.length) {
      take(files[0]);
      one("send").focus();
    }
  });
  addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
}

// Go back to the options of a file that was refused.
export function again(problem) {
  location.hash = "#/";
  one("options").open = true;
  setTimeout(() => {
    fill(one("form-problem"), problem ? shownProblem(problem) : null);
    one(/--(set|signature|keep|fold|inputs|architecture|ema|opset)\b/.exec(problem?.hint ?? "")?.[1] ?? "outputs").focus();
  }, 0);
}

export const holdsFile = (name) => file !== null && (!name || file.name === name || safe(file.name) === name);
const safe = (name) => name.replace(/[^A-Za-z0-9._-]/g, "_");

function refuse(problem) {
  fill(one("form-problem"), shownProblem(problem));
  one("form-problem").scrollIntoView({ block: "nearest" });
}

function take(chosen) {
  file = chosen;
  attempt = random();
  fill(one("form-problem"));
  fill(one("file-label"), el("strong", { class: "what" }, chosen.name), " ", el("span", { class: "faint" }, size(chosen.size)), " ", el("u", {}, "choose another"));
  one("drop").classList.add("chosen");
  const tooLarge = chosen.size + AROUND > LIMIT;
  if (tooLarge) {
    refuse({
      detail: `${chosen.name} has ${count(chosen.size)} bytes, and this service takes ${count(LIMIT)} at most`,
      hint: "Set BNFOLD_UPLOAD_SIZE higher, or convert the model with the command line.", code: "too-large",
    });
  } else if (!chosen.size) {
    refuse({ detail: `${chosen.name} is empty`, hint: "Copy or download the file again." });
  }
  one("send").disabled = tooLarge || !chosen.size;
}

function asked() {
  const form = new FormData();
  for (const field of one("options").querySelectorAll("[name]")) {
    if (field.type === "checkbox") {
      if (field.checked) form.append(field.name, "yes");
    } else if (LISTS.has(field.name)) {
      for (const line of field.value.split("\n")) if (line.trim()) form.append(field.name, line.trim());
    } else if (field.value.trim()) {
      form.append(field.name, field.value.trim());
    }
  }
  const architecture = one("architecture").files[0];
  if (architecture) form.append("architecture", architecture, architecture.name);
  form.append("model", file, file.name);
  return form;
}

async function send(went) {
  if (!file || sending) return;
  fill(one("form-problem"));
  sending = new AbortController();
  const button = one("send");
  const bar = one("upload-bar");
  const text = one("upload-text");
  const place = one("upload");
  const fields = [...document.querySelectorAll("#form fieldset, #file")];
  const set = (on) => {
    place.hidden = !on;
    button.hidden = on;
    for (const field of fields) field.disabled = on;
  };
  let quarter = 0;
  const progress = (sent, all) => {
    bar.value = all ? sent / all : 0;
    fill(text, sent < all ? `${size(sent)} of ${size(all)} sent` : "Sent. The service takes it in…");
    const now = all ? Math.floor((4 * sent) / all) : 0;
    if (now > quarter && sent < all) announce(`${25 * now} % sent`);
    quarter = now;
  };
  set(true);
  progress(0, file.size);
  one("upload-stop").focus();
  try {
    if (!attempt) attempt = random();
    try {
      await file.slice(0, 1).arrayBuffer(); // it may have been moved or changed since it was chosen
    } catch {
      throw new Problem({ detail: `${file.name} cannot be read any more`, hint: "Choose the file again.", code: "file" });
    }
    const headers = { Accept: "application/json", Prefer: "respond-async", "Idempotency-Key": attempt };
    const { status, body } = await upload("/fold", asked(), headers, { progress, signal: sending.signal });
    announce(status === 202 ? "The file is sent." : "This was folded before.");
    attempt = "";
    went(status === 202 ? `#/jobs/${body.id}` : `#/models/${body.name}/${body.version}`, body.cached === true);
  } catch (error) {
    if (error.name === "AbortError") announce("The upload was cancelled.");
    else refuse(said(error));
    // A refusal is remembered under the name it was sent with; what is sent next is another request.
    if (error instanceof Problem && error.status) attempt = random();
  } finally {
    sending = null;
    set(false);
    if (!one("home").hidden && document.activeElement === document.body) button.focus();
  }
}
