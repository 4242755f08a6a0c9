// Try a kept model: its inputs filled in, asked over the Open Inference Protocol, its outputs shown.

import { Problem, call, said } from "./api.js";
import { announce, count, el, fill, plural, shownProblem, size } from "./dom.js";
import { KINDS, fitted, fromBytes, nested, product, randoms, readJson, readNumpy, toBytes, zeros } from "./tensors.js";

const LIMIT = Number(document.documentElement.dataset.inferSize);
const WRITTEN = 512; // values that are shown to be changed
const SHOWN = 12; // values of an output that are shown
const LENGTH = "Inference-Header-Content-Length";

const dims = (shape) => shape.map((axis) => (axis < 0 ? "any" : count(axis))).join(" × ") || "one value";

export function tryIt(model, signal) {
  const place = el("div", { class: "try" });
  const inputs = model.inputs.map((spec, index) => inputOf(spec, index));
  const answer = el("div", { class: "answer" });
  const button = el("button", { type: "submit", class: "primary" }, "Run it");
  const form = el("form", {
    novalidate: true,
    submit: (event) => { event.preventDefault(); run(); },
  }, inputs.map((input) => input.shown), el("p", { class: "buttons" }, button), answer, commandOf(model, inputs));
  fill(place, form);

  async function run() {
    let tensors;
    try {
      tensors = inputs.map((input) => input.tensor());
    } catch (error) {
      fill(answer, shownProblem({ detail: error.message, hint: "Change the input, or draw random numbers.", code: "tensor" }));
      error.field?.focus();
      return;
    }
    button.disabled = true;
    fill(answer, el("p", { class: "faint" }, "Running. The first call loads the model…"));
    const began = performance.now();
    try {
      const outputs = await infer(model.links.infer, tensors, signal);
      const took = performance.now() - began;
      fill(answer, el("p", { class: "faint" }, `Answered in ${took < 1000 ? `${Math.max(1, Math.round(took))} ms` : `${(took / 1000).toFixed(1)} s`}, with the way there and back.`), outputs.map(outputOf));
      announce(`${plural(outputs.length, "output")} answered.`);
    } catch (error) {
      if (!signal.aborted) fill(answer, shownProblem(said(error)));
    } finally {
      button.disabled = false;
    }
  }
  return place;
}

export async function infer(path, tensors, signal) {
  const header = new TextEncoder().encode(JSON.stringify({
    inputs: tensors.map(({ name, datatype, shape, bytes }) => ({ name, datatype, shape, parameters: { binary_data_size: bytes.length } })),
    parameters: { binary_data_output: true },
  }));
  const body = new Blob([header, ...tensors.map(({ bytes }) => bytes)]);
  if (body.size > LIMIT) {
    throw new Problem({
      detail: `the request has ${count(body.size)} bytes, and this service takes ${count(LIMIT)} at most`, hint: "Make the inputs smaller, or set BNFOLD_INFER_SIZE higher.", code: "too-large",
    });
  }
  const headers = { "Content-Type": "application/octet-stream", [LENGTH]: String(header.length), Accept: "*/*" };
  const answer = await call(path, { method: "POST", headers, body, signal });
  const content = new Uint8Array(await answer.arrayBuffer());
  const length = answer.headers.has(LENGTH) ? Number(answer.headers.get(LENGTH)) : content.length;
  const told = JSON.parse(new TextDecoder().decode(content.subarray(0, length)));
  let at = length;
  return told.outputs.map(({ name, datatype, shape, data, parameters }) => {
    const bytes = parameters?.binary_data_size;
    if (bytes === undefined) return { name, datatype, shape, values: nested(data).values };
    at += bytes;
    return { name, datatype, shape, values: fromBytes(datatype, content.subarray(at - bytes, at)) };
  });
}

// ---- inputs ----

function inputOf(spec, number) {
  const id = (what) => `input-${number}-${what}`;
  const kind = KINDS[spec.datatype];
  if (!kind) {
    return {
      shown: el("p", { class: "problem" }, `${spec.name} is ${spec.datatype}, which this page cannot write.`),
      tensor() { throw new Error(`${spec.name} is ${spec.datatype}, which this page cannot write`); },
    };
  }
  let shape = spec.shape.map((axis) => (axis < 0 ? 1 : axis));
  let values = [];
  let seed = 1;
  let wrong = "";
  const how = el("select", { id: id("how"), change: () => refill() },
    el("option", { value: "random" }, kind.text ? "numbered texts" : "random numbers"), el("option", { value: "zeros" }, kind.text ? "empty texts" : "zeros"),
    el("option", { value: "file" }, kind.text ? "a .json file" : "a .npy or .json file"), el("option", { value: "written" }, "what is written below"));
  const axes = spec.shape.map((axis, index) => (axis < 0 ? el("input", {
    id: id(`axis-${index}`), type: "number", min: "0", step: "1", value: "1", "aria-label": `${spec.name}: size of axis ${index}`, change: () => resize(),
  }) : null));
  const file = el("input", { type: "file", id: id("file"), accept: kind.text ? ".json" : ".npy,.json", "aria-label": `${spec.name}: file`, change: () => read() });
  const text = el("textarea", { id: id("values"), rows: 4, spellcheck: "false", "aria-label": `${spec.name}: values as JSON`, input: () => write() });
  const summary = el("p", { class: "faint" });
  const trouble = el("p", { class: "wrong", role: "alert" });
  const draw = el("button", { type: "button", click: () => { seed += 1; refill(); } }, "Draw again");

  function resize() {
    shape = spec.shape.map((axis, index) => (axis < 0 ? Math.max(0, Math.floor(Number(axes[index].value) || 0)) : axis));
    if (how.value === "file" || how.value === "written") how.value = "random";
    refill();
  }

  function refill() {
    wrong = "";
    file.hidden = how.value !== "file";
    draw.hidden = how.value !== "random";
    if (how.value === "file") {
      if (file.files.length) read();
      else file.focus();
    } else if (how.value === "written") {
      write();
      text.focus();
    } else {
      const total = product(shape);
      if (total * Math.max(kind.bytes, 1) > LIMIT) wrong = `${spec.name} would have ${count(total)} values: more than this service takes`;
      else values = how.value === "zeros" ? zeros(spec.datatype, total) : randoms(spec.datatype, total, 1000 * number + seed);
      if (!wrong) text.value = written();
    }
    shown();
  }

  function written() {
    if (values.length > WRITTEN) return "";
    const rows = (from, rest) => (rest.length < 2 ? values.slice(from, from + (rest[0] ?? 1)) : Array.from({ length: rest[0] }, (_, index) => rows(from + index * product(rest.slice(1)), rest.slice(1))));
    const told = JSON.stringify(shape.length ? rows(0, shape) : values[0], (_, value) => (typeof value === "bigint" ? `\u0000${value}` : typeof value === "number" && !Number.isFinite(value) ? `\u0000${value}` : value));
    return told.replace(/"\\u0000([^"]*)"/g, "$1");
  }

  function taken(told) {
    shape = fitted(told.shape, spec.shape);
    values = told.values;
    toBytes(spec.datatype, values); // says what cannot be sent
    axes.forEach((axis, index) => { if (axis) axis.value = String(shape[index]); });
  }

  function write() {
    how.value = "written";
    file.hidden = true;
    draw.hidden = true;
    wrong = "";
    try {
      if (!text.value.trim()) throw new Error("nothing is written");
      taken(readJson(text.value));
    } catch (error) {
      wrong = `${spec.name}: ${error instanceof SyntaxError ? "this is no JSON" : error.message}`;
    }
    shown();
  }

  async function read() {
    wrong = "";
    const [chosen] = file.files;
    try {
      if (!chosen) throw new Error("no file is chosen");
      if (chosen.size > 4 * LIMIT) throw new Error(`${chosen.name} has ${size(chosen.size)}: more than this service takes`);
      const content = await chosen.arrayBuffer();
      const isNumpy = new Uint8Array(content, 0, Math.min(1, content.byteLength))[0] === 0x93;
      try {
        taken(isNumpy ? readNumpy(content) : readJson(new TextDecoder().decode(content)));
      } catch (error) {
        throw new Error(`${chosen.name}: ${error instanceof SyntaxError ? "it is neither .npy nor JSON" : error.message}`, { cause: error });
      }
      text.value = written();
    } catch (error) {
      wrong = error.message;
    }
    shown();
  }

  function shown() {
    fill(trouble, wrong);
    text.hidden = how.value !== "written" && values.length > WRITTEN;
    text.setAttribute("aria-invalid", String(Boolean(wrong)));
    fill(summary, wrong ? "" : `${plural(values.length, "value")}, ${shape.join(" × ") || "a scalar"}`);
  }

  refill();
  return {
    shown: el("fieldset", { class: "input" },
      el("legend", {}, el("code", {}, spec.name), " ", el("span", { class: "faint" }, `${spec.datatype} · ${dims(spec.shape)}`)),
      el("div", { class: "row" }, el("label", { for: id("how") }, "Fill with"), how, draw, file,
        axes.some(Boolean) ? el("span", { class: "axes" }, el("span", {}, "Shape"), spec.shape.map((axis, index) => [index ? " × " : " ", axes[index] ?? count(axis)])) : null),
      text, summary, trouble),
    tensor() {
      if (wrong || (how.value === "file" && !file.files.length)) {
        const error = new Error(wrong || `${spec.name}: no file is chosen`);
        error.field = how.value === "file" ? file : text;
        throw error;
      }
      return { name: spec.name, datatype: spec.datatype, shape, bytes: toBytes(spec.datatype, values) };
    },
    written: () => ({ name: spec.name, datatype: spec.datatype, shape, data: values }),
  };
}

// ---- outputs ----

function outputOf({ name, datatype, shape, values }) {
  const kind = KINDS[datatype];
  const last = shape.at(-1) ?? 1;
  const isVector = kind && !kind.integer && !kind.text && shape.length > 0 && last > 1 && last <= 100000 && shape.length <= 2;
  const odd = kind?.text ? 0 : values.filter((value) => typeof value === "number" && !Number.isFinite(value)).length;
  return el("section", { class: "output" },
    el("h3", {}, el("code", {}, name), " ", el("span", { class: "faint" }, `${datatype} · ${dims(shape)}`)),
    odd ? el("p", { class: "wrong" }, `${count(odd)} of ${plural(values.length, "value")} ${odd === 1 ? "is" : "are"} not finite.`) : null,
    el("p", { class: "values" }, el("code", {}, values.slice(0, SHOWN).map(told).join(", "), values.length > SHOWN ? ", …" : "", values.length ? "" : "no value"),
      values.length > SHOWN ? el("span", { class: "faint" }, ` the first ${SHOWN} of ${count(values.length)}`) : null),
    isVector && values.length ? best(values.slice(0, last), values.length / last) : null);
}

const told = (value) => (typeof value === "string" ? JSON.stringify(value) : typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(7))) : String(value));

function best(row, rows) {
  const order = row.map((value, index) => [value, index]).filter(([value]) => !Number.isNaN(value)).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 5);
  if (!order.length) return null;
  const low = Math.min(0, ...row.filter((value) => Number.isFinite(value)));
  const high = order[0][0];
  return el("table", { class: "best" },
    el("caption", {}, rows > 1 ? `The five largest of the first row, of ${plural(rows, "row")}` : `The ${order.length === 5 ? "five" : count(order.length)} largest`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "at"), el("th", { scope: "col", class: "number" }, "value"), el("th", { "aria-hidden": "true" }))),
    el("tbody", {}, order.map(([value, index]) => {
      const bar = el("span", { class: "share" });
      bar.style.width = `${high > low && Number.isFinite(high) ? Math.max(0, (100 * (value - low)) / (high - low)) : 0}%`;
      return el("tr", {}, el("th", { scope: "row", class: "number" }, String(index)), el("td", { class: "number" }, told(value)), el("td", { class: "bar", "aria-hidden": "true" }, bar));
    })));
}

// ---- the same from a command line ----

function commandOf(model, inputs) {
  const place = el("pre", { tabindex: "0" });
  return el("details", {
    toggle: (event) => {
      if (!event.target.open) return;
      const told = inputs.map((input) => input.written?.()).filter(Boolean);
      const few = told.every(({ data }) => data.length <= WRITTEN);
      const tensors = told.map((tensor) => ({ ...tensor, data: few ? tensor.data : ["…"] }));
      const body = JSON.stringify({ inputs: tensors }, (_, value) => (typeof value === "bigint" ? Number(value) : value)).replaceAll("'", "\\u0027");
      fill(place, `curl ${location.origin}${model.links.infer} \\\n  -d '${body}'`);
    },
  }, el("summary", {}, "The same from a command line"), place);
}
