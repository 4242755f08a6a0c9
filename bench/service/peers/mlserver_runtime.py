"""A runtime for MLServer: models in onnxruntime."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """A model in onnxruntime."""

    async def load(self) -> bool:
        """Load it."""
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it on what a request holds."""
        feeds = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        arrays = self.session.run(None, feeds)
        outputs = [
            NumpyCodec.encode_output(declared.name, array)
            for declared, array in zip(self.session.get_outputs(), arrays, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
