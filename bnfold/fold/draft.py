"""A graph while it is planned for, or changed: its wires, the affine maps still in it, what its layers took in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from bnfold.affine import Field, Linear, PerChannelAffine, Unstorable, round_to
from bnfold.fold.branch_weights import joined
from bnfold.fold.changed_node import ChangedNode
from bnfold.fold.linear_nodes import read_linear, stored_dtype
from bnfold.fold.slabs import shift_behind
from bnfold.fold.step import Step
from bnfold.fold.storable import unsayable
from bnfold.fold.surely import surely_takes
from bnfold.fold.taken import Taken
from bnfold.fold.uniting import join_branch, link_chain
from bnfold.graph.view import NodeView
from bnfold.graph.wiring import Wiring
from bnfold.rules import Absorber, Affine, Direction, Form, Reason, Refusal, Rules, Side

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bnfold.affine.per_channel import Float64Array
    from bnfold.graph.view import GraphView
    from bnfold.rules.chains import Block

__all__ = ["Draft", "is_named"]


class Draft:
    """What a plan knows of one graph so far. Replaying a plan's folds on a new draft leads to the same state.

    Attributes:
        view: The graph as it is in the model.
        rules: The tables.
        fewest: Whether a batch norm may also become something that is slower.
        wiring: The graph's wires as they would be.
        affines: The affine maps that are still nodes, by index; Adds that folding inserted are among them.
        fixed: Nodes that must stay as they are.
        gone: Nodes whose map is folded.
        taken_in: For each linear node what it has taken in, in order.
        own: For each constant Add or Mul whose constant changed, or that was inserted, its map.
        constants: New constants of carriers, by index and input.
        becomes: What nodes turn into, by index.
        add_behind: For each layer without a bias the Add behind it that has its shift.
        blocks: How large layers are that took in another one.
        protos: Nodes that have fewer inputs than in the model.
        forms: Where the parts of layers are, as far as that was asked.
    """

    def __init__(self, view: GraphView, rules: Rules, taken: set[str], *, fewest: bool = False) -> None:
        self.view, self.rules, self.fewest = view, rules, fewest
        self.wiring = Wiring.of(view, taken)
        self.affines: dict[int, Affine] = {}
        self.fixed: set[int] = set()
        self.gone: set[int] = set()
        self.taken_in: dict[int, list[Taken]] = defaultdict(list)
        self.own: dict[int, Field] = {}
        self.constants: dict[int, dict[int, Float64Array]] = {}
        self.becomes: dict[int, str] = {}
        self.add_behind: dict[int, int] = {}
        self.blocks: dict[int, Block] = {}
        self.protos: dict[int, NodeProto] = {}
        self.forms: dict[tuple[int, Side], Form | Refusal] = {}
        self._times: dict[int, int] = defaultdict(int)
        self._latest: tuple[int, int, Linear] | None = None
        self._biases: dict[int, tuple[int, PerChannelAffine, Float64Array]] = {}
        self._tried: tuple[int, int, PerChannelAffine, Form, Linear] | None = None

    def read_sources(self, keep: Collection[str]) -> Iterator[tuple[int, Affine | Refusal]]:
        """Read every node that may be an affine map, remember those that are, and yield them and the refused ones.

        Args:
            keep: Names of nodes or values, or glob patterns of them, to leave as they are.
        """
        self.view.read_ahead()
        sources = self.rules.sources
        places = [index for index, op_type in enumerate(self.view.op_types) if op_type in sources]
        known = self._read_at_once(places)
        for index in places:
            node = self.view.node(index)
            reading = known.pop(index) if index in known else sources[self.view.op_types[index]].read(node)
            if reading is None:
                continue
            if is_named(node, keep):
                self.fixed.add(index)
                reading = Refusal(Reason.KEPT_ON_REQUEST, f"{node.name} was named")
            if isinstance(reading, Affine):
                self.affines[index] = reading
            yield index, reading

    def _read_at_once(self, places: Sequence[int]) -> dict[int, Affine | Refusal | None]:
        """Read those nodes whose rule reads many of them at once."""
        by_type: dict[str, list[int]] = defaultdict(list)
        for index in places:
            by_type[self.view.op_types[index]].append(index)
        found: dict[int, Affine | Refusal | None] = {}
        for op_type, indices in by_type.items():
            read = self.rules.sources[op_type].read_many
            if read is not None:
                readings = read([self.view.node(index) for index in indices])
                found.update(zip(indices, readings, strict=True))
        return found

    def op_type(self, index: int) -> str:
        """Return the operation of a node as it would be; a node that folding inserted is an Add."""
        became = self.becomes.get(index)
        if became is not None:
            return became
        op_types = self.view.op_types
        return op_types[index] if index < len(op_types) else "Add"

    def node(self, index: int, constants: Mapping[int, Float64Array] | None = None, becomes: str = "") -> NodeView:
        """Return the view of a node of the graph as it would be, with further changes of its constants."""
        node = self.view.node(index)
        if index in self.protos:
            proto = self.protos[index]
            node = replace(node, proto=proto, reads=list(proto.input))
        earlier = {} if becomes else self.constants.get(index, {})  # what turns into another loses what it had
        changed = {**earlier, **(constants or {})}
        now = becomes or self.op_type(index)
        if not changed and now == node.op_type:
            return node
        proto = node.proto
        if now != node.op_type:  # what it has turned into reads the value and its new constants alone
            proto = NodeProto()
            proto.CopyFrom(node.proto)
            del proto.input[1:]
        return ChangedNode(node.view, index, proto, list(proto.input), changed, now)

    def order(self, index: int) -> float:
        """Return a number that grows from producers to consumers, for inserted nodes too."""
        return self.wiring.places.get(index, float(index))

    def name(self, index: int) -> str:
        """Return the name of a node."""
        return self.view.node(index).name if index < len(self.view) else self.wiring.outputs[index][0]

    # What a layer can take in.

    def form(self, index: int, absorber: Absorber) -> Form | Refusal:
        """Say where the parts of a layer are."""
        place = (index, absorber.side)
        form = self.forms.get(place)
        if form is None:
            form = self.forms[place] = absorber.form(self.view.node(index))
        return form

    def reach(self, index: int, absorber: Absorber, field: Field, at: int | None) -> PerChannelAffine | Refusal:
        """Tell what a layer would have to take in, without a look at its weights; ``at`` is the input it comes by."""
        if index in self.fixed:
            return Refusal(Reason.KEPT_ON_REQUEST, f"{self.name(index)} is to stay as it is")
        if index in self.becomes:
            return Refusal(Reason.NO_RULE, f"{self.name(index)} has become {self.becomes[index]}")
        node = self.view.node(index)
        form = self.form(index, absorber)
        if isinstance(form, Refusal):
            return form
        if at is not None and at != form.data:
            return Refusal(Reason.DYNAMIC_WEIGHT, f"{node.name} has the value as its weight or bias")
        try:
            return form.affine(field, node.name)
        except ValueError:  # a map that a layer can take in is finite
            return Refusal(Reason.NON_FINITE, f"the map overflows on its way to {node.name}")

    def absorb(self, index: int, absorber: Absorber, field: Field, at: int | None = None) -> Step | Refusal:
        """Try whether a layer can take in a field, on real weights, and say how; ``at`` is the input it comes by."""
        affine = self.reach(index, absorber, field, at)
        if isinstance(affine, Refusal):
            return affine
        node = self.view.node(index)
        form = self.form(index, absorber)
        assert isinstance(form, Form)
        if surely_takes(node, form, Taken(absorber, affine), self.taken_in.get(index, ())):
            return Step(node.name, node.op_type, absorber.id, absorber.side, index, affine=affine)
        linear = self.linear(index, form, quantised=True)
        if isinstance(linear, Refusal):
            return linear
        changed = absorber.absorb(linear, affine)
        if isinstance(changed, Refusal):
            return Refusal(changed.reason, f"{node.name}: {changed.detail}")
        if form.bias is None and (refusal := unsayable(self, index, changed.bias)) is not None:
            return refusal
        for array, axis in ((changed.weight, form.output_axis), (changed.bias, -1)):
            stored = round_to(array, stored_dtype(node, form), axis)
            if isinstance(stored, Unstorable):
                return Refusal(Reason.OUT_OF_RANGE, f"{node.name}: {stored.detail}")
        self._tried = (index, self._times[index], affine, form, changed)
        self._biases[index] = (self._times[index], affine, changed.bias)
        return Step(node.name, node.op_type, absorber.id, absorber.side, index, affine=affine)

    def needs_new_add(self, step: Step, subject: int) -> bool:
        """Tell whether a step, in place of the node ``subject``, puts a new Add behind a layer that has no bias."""
        if step.affine is None or self._form(step).bias is not None:
            return False
        # A route may have many steps, and all of them have just been tried.
        times, affine, bias = self._biases.get(step.index, (-1, None, None))
        if bias is None or times != self._times[step.index] or affine is not step.affine:
            bias = self._after(step)[1].bias
        return bool(np.any(bias)) and self._add_behind(step.index, bias) in (None, subject)

    def has_room(self, index: int, absorber: Absorber) -> bool:
        """Tell whether a layer can take in a shift without a new Add behind it."""
        form = self.form(index, absorber)
        if not isinstance(form, Form):
            return False
        return form.bias is not None or form.shifts or self._add_behind(index, np.ones(1)) is not None

    def linear(self, index: int, form: Form, *, quantised: bool = False) -> Linear | Refusal:
        """Return a layer's weights with all that it has taken in so far.

        Args:
            index: The layer.
            form: Where its parts are.
            quantised: Whether weights that the model dequantises will do, which can be scaled and nothing else.
        """
        node = self.view.node(index)
        if not quantised and self.view.dequantising(node.reads[form.weight]):
            return Refusal(Reason.WEIGHT_TYPE, f"the weight of {node.name} is quantised")
        taken = self.taken_in.get(index, [])
        if self._latest is not None and self._latest[:2] == (index, self._times[index]):
            return self._latest[2]
        linear = read_linear(self.view.node(index), form)
        for part in taken:
            if isinstance(linear, Refusal):
                break
            linear = _without_loose_bias(linear, form)
            if part.affine is not None:
                linear = part.absorber.absorb(linear, part.affine)
            else:
                linear = joined(self, index, linear, part)
        if not isinstance(linear, Refusal):
            linear = _without_loose_bias(linear, form)
            self._latest = (index, self._times[index], linear)
        return linear

    def _after(self, step: Step) -> tuple[Form, Linear]:
        """Return what a step makes of a layer; where the step was just tried, that is known."""
        assert step.affine is not None
        tried = self._just_tried(step)
        if tried is not None:
            return tried
        form = self._form(step)
        linear = self.linear(step.index, form, quantised=True)
        assert isinstance(linear, Linear)
        changed = self.rules.absorbers[step.op_type, step.side].absorb(linear, step.affine)
        assert isinstance(changed, Linear)
        return form, changed

    def _just_tried(self, step: Step) -> tuple[Form, Linear] | None:
        place, tried = (step.index, self._times[step.index]), self._tried
        return tried[3:] if tried is not None and tried[:2] == place and tried[2] is step.affine else None

    def _form(self, step: Step) -> Form:
        form = self.form(step.index, self.rules.absorbers[step.op_type, step.side])
        assert isinstance(form, Form)
        return form

    # Taking in.

    def take(self, index: int, direction: Direction, steps: Sequence[Step], rest: Field | None = None) -> None:
        """Fold an affine map: let the layers take it in, and remove its node, or leave an Add with ``rest`` of it."""
        if steps and steps[0].branch is not None:
            join_branch(self, steps[0].index, steps[0].branch)
            return
        if steps and steps[0].chain is not None:
            link_chain(self, steps[0].index, steps[0].chain)
            return
        for step in steps:
            self._change(step)
        data_input = self.affines[index].data_input
        self.taken_in.pop(index, None)
        self.constants.pop(index, None)  # they are in its map
        if rest is None:
            del self.affines[index]
            self.own.pop(index, None)
            self.gone.add(index)
            if direction is Direction.BACKWARD:
                self.wiring.drop_behind(index, data_input)
            else:
                self.wiring.drop_before(index, data_input)
        else:
            self.becomes[index] = "Add"
            self.wiring.keep_inputs(index, 1)
            self._set_own(index, rest)
        for step in steps:
            if step.affine is not None:
                self._take_in(step)

    def _change(self, step: Step) -> None:
        """Give a constant affine or a carrier its new constants."""
        if step.own is not None:
            self._set_own(step.index, step.own)
        if step.becomes:
            self.becomes[step.index] = step.becomes
            self.wiring.keep_inputs(step.index, 1)
            self.constants.pop(step.index, None)  # what it has turned into has none that it had before
        if step.constants:
            self.constants.setdefault(step.index, {}).update(step.constants)
            if step.index in self.affines:
                self.read_again(step.index)

    def note(self, index: int, taken: Taken) -> None:
        """Note what a layer takes in; what it took in by the same rule right before becomes one map with it."""
        self._times[index] += 1
        earlier = self.taken_in[index]
        if earlier and (whole := taken.joined_to(earlier[-1])) is not None:
            earlier[-1] = whole
        else:
            earlier.append(taken)

    def _take_in(self, step: Step) -> None:
        assert step.affine is not None
        absorber = self.rules.absorbers[step.op_type, step.side]
        known = self._just_tried(step)
        form = self._form(step) if known is None else known[0]
        # The weights are needed here only where a shift is left over.
        taken, shift = Taken(absorber, step.affine), None
        if known is None and form.bias is None:
            shift = shift_behind(self, step.index, form, (*self.taken_in[step.index], taken))
            known = None if shift is not None else self._after(step)
        self.note(step.index, taken)
        if (own := self.affines.get(step.index)) is not None:  # a batch norm that stays, and took in what is beside it
            near = Field.along_axis(step.affine, form.axis, own.field.rank)
            both = near.after(own.field) if step.side is Side.OUTPUT else own.field.after(near)
            self.affines[step.index] = replace(own, field=both)
        if known is not None:
            self._latest = (step.index, self._times[step.index], _without_loose_bias(known[1], form))
            shift = known[1].bias
        if form.bias is None and shift is not None and np.any(shift):
            self._shift_behind(step.index, shift, form.rank)

    def _shift_behind(self, index: int, shift: npt.NDArray[np.float64], rank: int | None) -> None:
        """Add a shift to the output of a layer that has no bias: to the Add behind it, or in a new one."""
        behind = self._add_behind(index, shift)
        if behind is None:
            number = self.add_behind[index] = self.wiring.insert_after(index, "")
            assert rank is not None, "the form of a layer without a bias says how many axes its output has"
            field = Field.of(np.ones((1,) * rank), shift.reshape((1,) * (rank - shift.ndim) + shift.shape))
            self.affines[number] = Affine(0, field)
            self.own[number] = field
            return
        self.add_behind[index] = behind
        field = self.affines[behind].field
        wide = shift.reshape((1,) * (field.rank - shift.ndim) + shift.shape)
        self._set_own(behind, Field.of(np.ones_like(field.scale), np.asarray(field.shift + wide)))

    def _add_behind(self, index: int, shift: npt.NDArray[np.float64]) -> int | None:
        value = self.wiring.outputs[index][0]
        if self.wiring.is_fixed(value):
            return None
        uses = self.wiring.uses_of(value)
        if len(uses) != 1 or not self.is_shift(uses[0][0]):
            return None
        behind = self.affines[uses[0][0]]
        fits = behind.data_input == uses[0][1] and behind.field.rank >= shift.ndim
        return uses[0][0] if fits else None

    def is_shift(self, index: int) -> bool:
        """Tell whether a node adds a constant and does nothing else, and the constant may become another."""
        affine = self.affines.get(index)
        if affine is None or affine.assumed or (self.view.opset < 7 and index < len(self.view)):
            return False  # before opset 7 an Add aligns by attributes; those that folding inserts are written anew
        return self.op_type(index) == "Add" or (self.op_type(index) == "Sub" and affine.data_input == 0)

    def read_again(self, index: int) -> None:
        """Read a node whose constant has changed, or that has one now."""
        source = self.rules.sources.get(self.op_type(index))
        if source is not None and isinstance(reading := source.read(self.node(index)), Affine):
            self.affines[index] = reading
        else:
            self.affines.pop(index, None)

    def is_factor(self, index: int) -> bool:
        """Tell whether a node multiplies by a constant and does nothing else, and the constant may become another."""
        affine = self.affines.get(index)
        return affine is not None and not affine.assumed and self.view.opset >= 7 and self.op_type(index) == "Mul"

    def _set_own(self, index: int, field: Field) -> None:
        self.affines[index] = replace(self.affines[index], field=field)
        self.own[index] = field


def is_named(node: NodeView, patterns: Collection[str]) -> bool:
    """Tell whether a node or a value that it computes has a name, or fits a pattern."""
    names = (node.name, *node.proto.output) if patterns else ()
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names if name)


def _without_loose_bias(linear: Linear, form: Form) -> Linear:
    """Forget the shift of a layer that has no bias: it stands in an Add behind the layer already."""
    return replace(linear, bias=np.zeros(1)) if form.bias is None else linear
