"""What the Open Inference Protocol says of the service and of its models, the same over HTTP and gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bnfold
from service.problems import MalformedError, NotFoundError, NotReadyError, NotRunnableError, ServiceError
from service.registry.cards import Card, TensorCard
from service.serving.runners import Runners
from service.serving.source import ModelSource

__all__ = ["EXTENSIONS", "PLATFORM", "Protocol"]

PLATFORM = "onnx_onnxv1"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
_UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class Protocol:
    """The protocol without a transport. Everything may raise ``ServiceError``.

    Attributes:
        source: Has the models.
        runners: Run them.
    """

    source: ModelSource
    runners: Runners

    def server(self) -> dict[str, Any]:
        """Say what serves, and which extensions of the protocol it speaks."""
        return {"name": "bnfold", "version": bnfold.__version__, "extensions": list(EXTENSIONS)}

    async def metadata(self, tenant: str, name: str, version: str) -> dict[str, Any]:
        """Say what a model takes and answers."""
        card = await self.source.card(tenant, name, version)
        versions = [card.version] if version else await self.source.versions(tenant, name)
        return {
            "name": card.name,
            "versions": [str(number) for number in versions],
            "platform": PLATFORM,
            "inputs": [_told(spec) for spec in card.inputs],
            "outputs": [_told(spec) for spec in card.outputs],
        }

    async def config(self, tenant: str, name: str, version: str) -> dict[str, Any]:
        """Say how a model is run, as the extension for configurations has it."""
        card = await self.source.card(tenant, name, version)
        return {
            "name": card.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"all": {}},
            "max_batch_size": 0,  # shapes have all of their axes
            "input": [_configured(spec) for spec in card.inputs],
            "output": [_configured(spec) for spec in card.outputs],
        }

    async def ready(self, tenant: str, name: str, version: str) -> Card:
        """Return the card of a model when it is loaded and was run once; it is loaded for that."""
        card = await self.source.card(tenant, name, version)
        await self.runners.ready(tenant, card)
        return card

    async def statistics(self, tenant: str, name: str, version: str) -> dict[str, Any]:
        """Say what was asked of one version of a model, of all of them, or of all models that were asked."""
        if not name:
            asked = [key for key in self.runners.statistics if key[0] == tenant]
            return {"model_stats": [self.runners.statistics[key].told(*key[1:]) for key in sorted(asked)]}
        card = await self.source.card(tenant, name, version)
        numbers = [str(card.version)] if version else map(str, await self.source.versions(tenant, name))
        told = []
        for number in numbers:
            one = await self.source.card(tenant, name, number)
            told.append(self.runners.statistics_of(tenant, one).told(name, number))
        return {"model_stats": told}

    async def index(self, tenant: str, *, ready: bool) -> list[dict[str, str]]:
        """List the models that are kept, with the latest version of each.

        Args:
            tenant: Whose.
            ready: Whether to leave out those that are not loaded.
        """
        listed = []
        for card in await self.source.cards(tenant):
            state, reason = "READY", ""
            if card.unrunnable:
                state, reason = "UNAVAILABLE", card.unrunnable
            elif not self.runners.is_loaded(card):
                unloaded = self.runners.is_unloaded(tenant, card)
                state, reason = "UNAVAILABLE", _UNLOADED if unloaded else "loaded when it is asked"
            if state == "READY" or not ready:
                listed.append({"name": card.name, "version": str(card.version), "state": state, "reason": reason})
        return listed

    async def load(self, tenant: str, name: str, parameters: dict[str, Any]) -> None:
        """Load the latest version of a model, and run it once."""
        for parameter in parameters:
            if parameter == "config" or parameter.startswith("file:"):
                raise MalformedError(
                    f"a model is loaded as it was folded, without {parameter[:60]!r}",
                    hint="POST /fold takes models.",
                )
        await self.runners.load(tenant, await self.source.card(tenant, name, ""))

    async def unload(self, tenant: str, name: str) -> None:
        """Unload all versions of a model, when those who wait for them have their answers."""
        card = await self.source.card(tenant, name, "")
        await self.runners.unload(tenant, card)
        for number in await self.source.versions(tenant, name):
            await self.runners.stop(await self.source.card(tenant, name, str(number)))

    async def is_ready(self, tenant: str, name: str, version: str) -> bool:
        """Say whether a model can be asked, instead of why it cannot."""
        try:
            await self.ready(tenant, name, version)
        except (NotFoundError, NotReadyError, NotRunnableError):
            return False
        except ServiceError as error:
            if error.status < 500:
                raise
            return False
        return True


def _told(spec: TensorCard) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorCard) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}
