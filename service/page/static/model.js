// A kept model: verdict first, then what changed, what stayed and why, the errors, the files, and a try.

import { call, json, key, said, save } from "./api.js";
import { count, el, fill, moment, plural, shownProblem, size } from "./dom.js";
import { deleteModel } from "./lists.js";
import { plotted } from "./plot.js";
import { tryIt } from "./tryit.js";
import { AS_IT_STANDS, LEVELS, conclusion } from "./verdicts.js";

const LARGEST_REPORT = 8e6; // bytes that are read for their figures
const PATIENCE = 4000; // ms that the figures may take
const NAMES = 12; // of batch norms that stay for one reason

export async function showModel(place, name, version, { signal, cached, gone }) {
  const path = `/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}`;
  const model = await json(path, { signal, cache: "no-store" });
  const [report, kept] = await Promise.all([figures(model, signal), versions(name, signal)]);
  if (signal.aborted) return;
  document.title = `${model.upload} · bnfold`;
  const verdict = conclusion(model, report);
  const plot = report?.layers ? plotted(report.layers) : null;
  fill(place,
    el("h1", { tabindex: "-1" }, model.upload),
    el("p", { class: "lead" }, facts(model)),
    cached ? el("p", { class: "note" }, "This file was folded before with these options; this is what was kept.") : null,
    el("div", { class: `verdict ${verdict.kind}` },
      el("p", { class: "word" }, verdict.word), el("p", {}, verdict.says), el("p", { class: "next" }, verdict.next)),
    files(model),
    section("Before and after", changes(model)),
    model.batch_norms.kept.length ? section("What stays, and why", stays(model.batch_norms.kept)) : null,
    plot ? section("Error of every layer", el("p", { class: "faint" }, "Against float64, in the order of the model. Smaller is better."), plot) : null,
    section("Try it", model.unrunnable
      ? shownProblem({ detail: model.unrunnable, hint: "The file can be downloaded; this service cannot serve it.", code: "not-runnable" })
      : tryIt(model, signal)),
    section("The full report", fullReport(model)),
    section("Where it comes from", origin(model, kept),
      el("p", { class: "buttons" }, el("button", {
        type: "button", class: "danger", click: async () => { if (await deleteModel(model)) gone(); },
      }, "Delete this version"))));
}

const section = (title, ...content) => el("section", {}, el("h2", {}, title), content);

function facts(model) {
  const { description, framework, bytes } = model.source;
  return [[description, framework, size(bytes)].filter(Boolean).join(" · "), " · folded ", moment(model.created)];
}

async function figures(model, signal) {
  try {
    const answer = await call(model.links.self + "/report.json", { signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]) });
    if (Number(answer.headers.get("content-length")) > LARGEST_REPORT) {
      await answer.body.cancel();
      return null;
    }
    return await answer.json();
  } catch {
    return null; // the verdict stands without them
  }
}

async function versions(name, signal) {
  try {
    return (await json(`/models/${encodeURIComponent(name)}`, { signal, cache: "no-store" })).versions;
  } catch {
    return [];
  }
}

function files(model) {
  const stem = model.upload.replace(/\.[^.]*$/, "") || model.upload;
  const link = (path, name, says, kind) => el("a", {
    href: path, download: name, class: kind,
    click: (event) => {
      if (!key()) return; // the browser saves it by itself, however large it is
      event.preventDefault();
      save(path, name).catch((error) => fill(trouble, shownProblem(said(error))));
    },
  }, says);
  const trouble = el("div", {});
  return [el("p", { class: "buttons files" },
    link(model.links.model, `${stem}.onnx`, ["Download the folded model ", el("span", {}, size(model.bytes))], "button primary"),
    link(model.links.page, `${stem}-report.html`, "Report", "button"),
    link(model.links.self + "/report.json", `${stem}-report.json`, "Report as JSON", "button"),
    link(model.links.triton, `${model.name}-${model.version}-triton.zip`, "Triton repository", "button")), trouble];
}

function changes({ before, after, batch_norms: norms }) {
  const rows = [["batch norms", norms.total, after ? norms.total - norms.folded : null, count]];
  const later = after?.ops ?? {};
  const ops = [...new Set([...Object.keys(before.ops), ...Object.keys(later)])].sort();
  rows.push(["nodes", before.nodes, after?.nodes, count], ["parameters", before.parameters, after?.parameters, (n) => size(n, "")], ["size", before.bytes, after?.bytes, size]);
  if (before.inputs !== after?.inputs) rows.push(["inputs", before.inputs, after?.inputs, count]);
  if (after) {
    for (const op of ops) {
      if (op !== "BatchNormalization" && (before.ops[op] ?? 0) !== (later[op] ?? 0)) rows.push([op, before.ops[op] ?? 0, later[op] ?? 0, count]);
    }
  }
  const change = (was, is) => {
    if (typeof is !== "number" || !was || was === is) return was === is ? "as before" : "";
    const percent = (100 * (is - was)) / was;
    const digits = Math.abs(percent) < 10 ? 1 : 0;
    return `${percent < 0 ? "\u2212" : "+"}${Math.abs(percent).toFixed(digits)} %`;
  };
  return el("table", { class: "changes" },
    el("thead", {}, el("tr", {}, el("td", {}), el("th", { scope: "col", class: "number" }, "before"), el("th", { scope: "col", class: "number" }, "after"), el("th", { scope: "col", class: "number" }, "change"))),
    el("tbody", {}, rows.map(([says, was, is, write]) => el("tr", {},
      el("th", { scope: "row" }, says), el("td", { class: "number" }, write(was)), el("td", { class: "number" }, typeof is === "number" ? write(is) : ""),
      el("td", { class: "number faint" }, change(was, is))))));
}

function stays(kept) {
  const groups = new Map();
  for (const item of kept) {
    const name = item.reason ?? item.outcome;
    groups.set(name, [...(groups.get(name) ?? []), item]);
  }
  return [...groups].map(([name, items]) => {
    const [first] = items;
    const remedies = [...new Set(items.map((item) => item.remedy).filter(Boolean))];
    const row = (item) => el("li", {}, el("code", {}, item.name), item.detail ? el("span", { class: "faint" }, ` ${item.detail}`) : null);
    return el("article", { class: "stays" },
      el("h3", {}, plural(items.length, "batch norm"), " ", el("code", { class: "faint" }, name)),
      el("p", {}, first.says ?? "Its folding failed the check and was taken back."),
      el("ul", {}, items.slice(0, NAMES).map(row)),
      items.length > NAMES ? el("details", {}, el("summary", {}, `${count(items.length - NAMES)} more`), el("ul", {}, items.slice(NAMES).map(row))) : null,
      remedies.map((remedy) => el("p", { class: "hint" }, remedy)));
  });
}

function fullReport(model) {
  if (key()) {
    return el("p", { class: "faint" }, "Every fold, every check and every figure stands in the report, which can be saved above.");
  }
  const frame = () => el("iframe", { src: model.links.page, title: "The full report", sandbox: "", class: "report" });
  return [
    el("p", { class: "faint" }, "Every fold, every check and every figure. ", el("a", { href: model.links.page, target: "_blank", rel: "noopener noreferrer" }, "Open it by itself")),
    el("details", {
      toggle: (event) => { if (event.target.open && !event.target.querySelector("iframe")) event.target.append(frame()); },
    }, el("summary", {}, "Show it here")),
  ];
}

function origin(model, kept) {
  const others = kept.filter((number) => number !== model.version);
  const rows = [
    ["name", el("code", {}, model.name)],
    ["version", [String(model.version), others.length ? [" · also ", others.slice(-20).map((number, index) => [index ? ", " : "", el("a", { href: `#/models/${encodeURIComponent(model.name)}/${number}` }, String(number))])] : null]],
    ["sha256 of the file", el("code", {}, model.source.sha256)],
    ["sha256 of the result", el("code", {}, model.sha256)],
    ["folded with", Object.entries(model.versions).map(([name, version]) => `${name} ${version}`).join(" · ")],
    ["sandbox", model.sandbox],
    ["served at", el("code", {}, model.links.infer)],
    ["run", LEVELS[model.default_level] ?? AS_IT_STANDS],
  ];
  return el("dl", {}, rows.map(([name, content]) => [el("dt", {}, name), el("dd", {}, content)]));
}
