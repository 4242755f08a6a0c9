// Elements, and how things are written in them. Whatever comes from a file or from the service is text, never markup.

const INVISIBLE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const SVG = "http://www.w3.org/2000/svg";

// Names come from files that anybody may have written: characters that hide or turn text around are shown as escapes.
export function printable(text) {
  return String(text).replace(INVISIBLE, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

export function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  fill(element, ...children);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (child instanceof Node ? child : document.createTextNode(printable(child)))),
  );
}

export const one = (id) => document.getElementById(id);

// Tells those who listen to the page instead of looking at it.
export function announce(text) {
  const live = one("live");
  live.textContent = "";
  setTimeout(() => { live.textContent = printable(text); }, 50);
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number);
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export function size(number, unit = "B") {
  const prefixes = ["", "k", "M", "G"];
  let step = 0;
  while (number >= 999.5 && step < 3) { number /= 1000; step += 1; }
  const digits = step === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.max(number, 1))));
  return `${number.toFixed(digits)}\u00a0${prefixes[step]}${unit}`.trimEnd();
}

export function figure(number) {
  if (typeof number !== "number" || Number.isNaN(number)) return "unknown";
  if (!Number.isFinite(number)) return "not finite";
  if (number === 0) return "0";
  const small = Math.abs(number) < 1e-3 || Math.abs(number) >= 1e5;
  return small ? number.toExponential(1).replace("-", "\u2212") : String(Number(number.toPrecision(2)));
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function moment(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "";
  const seconds = (Date.now() - at.getTime()) / 1000;
  const steps = [[60, 1, ""], [3600, 60, "minute"], [86400, 3600, "hour"], [7 * 86400, 86400, "day"]];
  const step = steps.find(([end]) => seconds < end);
  let says = at.toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
  if (step && !step[2]) says = "just now";
  else if (step) says = `${plural(Math.floor(seconds / step[1]), step[2])} ago`;
  return el("time", { datetime: text, title: at.toLocaleString("en") }, says);
}

// A problem as the service tells it: what is wrong, what to do, and the code that stays.
export function shownProblem(problem, ...more) {
  return el("div", { class: "problem", role: "alert" },
    el("p", { class: "says" }, sentence(problem.detail)),
    problem.hint ? el("p", { class: "hint" }, problem.hint) : null,
    problem.code ? el("p", { class: "faint" }, el("code", {}, problem.code)) : null,
    problem.code === "unauthorized" ? el("p", {}, el("button", { type: "button", click: () => location.reload() }, "Give a key")) : null,
    ...more);
}

export function sentence(text) {
  const told = String(text ?? "");
  const begin = /^[a-z]+ /.test(told) ? told.slice(0, 1).toUpperCase() : told.slice(0, 1); // the name of a file stays
  return begin + told.slice(1) + (/[.!?:…]$/.test(told) || !told ? "" : ".");
}

let answer = null; // takes the answer to the question that is asked

// Browsers tell that a dialog was closed later than they close it, and then another question may be asked already: so
// an answer goes to its question at the moment that it is given, and who closes the dialog otherwise says no.
function answered(told) {
  const take = answer;
  answer = null;
  take?.(told);
}

export function startAsking() {
  const dialog = one("ask");
  const input = one("ask-input");
  const close = (told) => {
    dialog.close();
    input.value = "";
    answered(told);
  };
  dialog.addEventListener("submit", (event) => {
    event.preventDefault();
    close(one("ask-field").hidden || input.value.trim() || null);
  });
  one("ask-no").addEventListener("click", () => close(null));
  dialog.addEventListener("close", () => { if (!dialog.open) close(null); });
}

// Ask in a dialog; true (or what was typed) where the answer is yes, else null.
export function ask({ title, text, yes, secret = false, dangerous = false }) {
  answered(null); // what was asked before is not asked any more
  const dialog = one("ask");
  fill(one("ask-title"), title);
  fill(one("ask-text"), text);
  fill(one("ask-yes"), yes);
  one("ask-yes").className = dangerous ? "danger" : "primary";
  one("ask-field").hidden = !secret;
  one("ask-input").value = "";
  if (!dialog.open) dialog.showModal();
  if (secret) one("ask-input").focus();
  return new Promise((resolve) => { answer = resolve; });
}
