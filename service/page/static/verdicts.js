// Verdicts as the command line says them: kind, word, and what they mean.

import { figure, plural } from "./dom.js";

export const WORDS = {
  "pass": ["good", "PASS"],
  "pass-more-accurate": ["good", "PASS (more accurate)"],
  "rolled-back": ["good", "ROLLED BACK"],
  "inconclusive": ["doubtful", "INCONCLUSIVE"],
  "fail": ["bad", "FAIL"],
  "not-verified": ["doubtful", "NOT VERIFIED"],
};

// How onnxruntime runs it here, and what the proof says of its default level.
export const LEVELS = {
  "pass": "at onnxruntime's default level, which was proved to compute the same",
  "fail": "as it stands: at its default level onnxruntime changes what it computes",
};
export const AS_IT_STANDS = "as it stands, without onnxruntime's own graph optimization";

export function conclusion(model, report) {
  const [kind, word] = WORDS[model.verdict] ?? ["doubtful", model.verdict.toUpperCase()];
  const folded = told(model.batch_norms);
  if (model.verdict === "not-verified") {
    return { kind, word, says: `${folded} Nobody has checked what the result computes.`, next: "Send it again with verify=full before you rely on it." };
  }
  if (kind !== "good") {
    return { kind, word, says: report?.reason || folded, next: "Read the report before you rely on it." };
  }
  const back = (report?.rolled_back ?? []).reduce((sum, piece) => sum + piece.sources.length, 0);
  const taken = back ? `${plural(back, "fold")} failed the check and ${back === 1 ? "was" : "were"} taken back. ` : "";
  return {
    kind, word,
    says: `${taken}${folded} The result computes what the original computes${errors(report)}.`,
    next: model.default_level === "fail"
      ? "It can take the place of the original where onnxruntime's graph optimization is off, as it is here (ORT_DISABLE_ALL): at its default level onnxruntime changes what the model computes."
      : "It can take the place of the original.",
  };
}

function told({ total, folded }) {
  if (!total) return "There is no batch norm in it.";
  if (folded === total) return total === 1 ? "Its one batch norm is folded." : `All ${total} batch norms are folded.`;
  return `${folded} of ${plural(total, "batch norm")} ${folded === 1 ? "is" : "are"} folded.`;
}

function errors(report) {
  const floats = (report?.parity?.folding ?? []).filter((item) => item.kind === "float");
  if (!floats.length) return "";
  const worst = floats.reduce((a, b) => (b.closest > a.closest ? b : a));
  return `: its error against float64 is ${figure(worst.candidate)}, that of the original ${figure(worst.unfolded)}`;
}
