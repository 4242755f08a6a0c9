// The error of every value in the model, as one drawing: before, after, and what rounding allows.

import { el, figure, fill, plural, printable, svg } from "./dom.js";

const HEIGHT = 260;
const LEFT = 46;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 30;

export function plotted(layers) {
  const values = layers.values.filter((item) => Number.isFinite(item.folded) || Number.isFinite(item.unfolded));
  if (!values.length) return null;
  const place = el("div", { class: "plot" });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.round(place.clientWidth);
    if (width > 0 && width !== drawn) {
      drawn = width;
      fill(place, drawing(values, width));
    }
  }).observe(place);
  const closest = values.filter((item) => item.limit > 0).reduce((a, b) => (a && a.folded / a.limit >= b.folded / b.limit ? a : b), null);
  const beyond = values.filter((item) => item.folded > item.limit).length;
  const says = !closest ? null : beyond
    ? `${plural(beyond, "value")} of ${values.length} beyond what rounding alone explains; the report says which and why that may be.`
    : `Every value stays within what rounding explains. The closest to its limit is ${closest.value}: ${figure(closest.folded)} of ${figure(closest.limit)}.`;
  return el("figure", {},
    el("ul", { class: "legend", "aria-hidden": "true" },
      el("li", {}, key("one"), "original"), el("li", {}, key("other"), "folded"), el("li", {}, key("limit"), "what rounding allows")),
    place, says ? el("figcaption", {}, says) : null);
}

const key = (kind) => svg("svg", { width: 18, height: 12, viewBox: "0 0 18 12" },
  kind === "limit" ? svg("path", { class: "limit", d: "M0 6H18" }) : svg("circle", { class: kind, cx: 9, cy: 6, r: 3.5 }));

function drawing(values, width) {
  const numbers = values.flatMap((item) => [item.folded, item.unfolded, item.limit]).filter((number) => number > 0 && Number.isFinite(number));
  const low = Math.floor(Math.log10(numbers.length ? Math.min(...numbers) : 1e-8));
  const high = Math.max(low + 1, Math.ceil(Math.log10(numbers.length ? Math.max(...numbers) : 1e-6)));
  const x = (index) => LEFT + ((index + 0.5) / values.length) * (width - LEFT - RIGHT);
  const y = (number) => {
    const at = number > 0 ? Math.log10(number) : low;
    return TOP + (1 - (Math.min(high, Math.max(low, at)) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  };
  const step = Math.max(1, Math.ceil((high - low) / 6));
  const scale = [];
  for (let power = low; power <= high; power += step) {
    const at = y(10 ** power);
    scale.push(svg("path", { class: "scale", d: `M${LEFT} ${at}H${width - RIGHT}` }),
      svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, "10", svg("tspan", { dy: -4, "font-size": 8 }, String(power).replace("-", "\u2212"))));
  }
  const radius = Math.max(1.5, Math.min(4, (width / values.length) * 0.35));
  const half = (width - LEFT - RIGHT) / values.length / 2;
  const limit = values.map((item, index) => (item.limit > 0 ? `M${x(index) - half} ${y(item.limit)}h${2 * half}` : "")).join("");
  const marks = values.map((item, index) => svg("g", {},
    svg("title", {}, `${item.value} (${item.op_type}): original ${figure(item.unfolded)}, folded ${figure(item.folded)}, allowed ${figure(item.limit)}`),
    svg("rect", { x: x(index) - half, y: TOP, width: 2 * half, height: HEIGHT - TOP - BOTTOM, class: "touch" }),
    Number.isFinite(item.unfolded) ? svg("circle", { class: "one", cx: x(index), cy: y(item.unfolded), r: radius }) : null,
    Number.isFinite(item.folded) ? svg("circle", { class: item.folded > item.limit ? "other beyond" : "other", cx: x(index), cy: y(item.folded), r: radius }) : null));
  const label = `Error of ${plural(values.length, "value")} against float64, from ${printable(values[0].value)} to ${printable(values.at(-1).value)}`;
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": label },
    scale, svg("path", { class: "limit", d: limit }), marks,
    svg("text", { x: LEFT, y: HEIGHT - 8 }, "input"), svg("text", { x: width - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, "output"));
}
