"""A model in inference mode: the same network with everything that belongs to training switched off."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from bnfold.graph.functions import inline_functions
from bnfold.inference.batch_norm import use_running_statistics
from bnfold.inference.branches import inline_known, known, prune
from bnfold.inference.change import Change
from bnfold.inference.moments import refuse_batch_statistics
from bnfold.inference.program import Program
from bnfold.inference.random import refuse_random, stop_dropping
from bnfold.inference.switches import drop_idle_inputs, pin, prove, read_names
from bnfold.inference.training import training_nodes

__all__ = ["Change", "to_inference_mode"]


def to_inference_mode(model: ModelProto) -> tuple[ModelProto, tuple[Change, ...]]:
    """Return a model in inference mode, and what was done to get there.

    Inputs that provably switch training on are pinned, and the branches behind them pruned; conditionals with a
    constant condition are replaced by the branch that they take; Dropout drops nothing; batch norms use their running
    statistics. A model that is in inference mode already comes back itself, the same object. One that is not loses its
    functions: their nodes stand in the graph afterwards.

    Args:
        model: Any valid model; it is not changed.

    Raises:
        SourceError: If the model's functions call themselves, or stand for too many nodes.
        InferenceModeError: If something of training is left that influences an output: a batch norm without running
            statistics, statistics of the batch that are spelled out, a random operator, or a mode that is not proved.
    """
    whole = inline_functions(model)
    # Weights may hold anything, signalling NaNs included: judging them is not the matter here.
    with np.errstate(all="ignore"):
        return _switched(model, whole)


def _switched(model: ModelProto, whole: ModelProto) -> tuple[ModelProto, tuple[Change, ...]]:
    program = Program(whole)
    everything = {(path, index) for path, view in program.views.items() for index in range(len(view))}
    training = training_nodes(program, everything, {})
    conditionals = known(program)
    if not training and not conditionals:
        return model, ()
    before = read_names(program)
    pins, changes = prove(program) if training else ({}, [])
    changes += [
        Change("switch", name, "conditional with a constant condition", chosen) for name, chosen in conditionals
    ]
    result = ModelProto()
    result.CopyFrom(whole)
    pin(result, pins)
    if pins or conditionals:
        inline_known(result)
    left = prune(result)
    changes += use_running_statistics(left)
    changes += stop_dropping(left)
    left = prune(result)
    refuse_random(left)
    refuse_batch_statistics(left, left.live({}))
    changes += drop_idle_inputs(left, before)
    return result, tuple(changes)
