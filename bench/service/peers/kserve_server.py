"""KServe's model server with models in onnxruntime: ``kserve_server.py HTTP_PORT GRPC_PORT NAME=FILE …``."""

import os
import sys

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class OnnxModel(Model):
    """A model in onnxruntime."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ANN001, ANN201, ARG002  (theirs)
        """Run the model on what a request holds."""
        feeds = {one.name: one.as_numpy() for one in payload.inputs}
        outputs = []
        for declared, array in zip(self.session.get_outputs(), self.session.run(None, feeds), strict=True):
            output = InferOutput(name=declared.name, shape=list(array.shape), datatype="FP32")
            binary = (payload.parameters or {}).get("binary_data_output", False) or payload.from_grpc
            output.set_data_from_numpy(array, binary_data=bool(binary))
            outputs.append(output)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=outputs)


http_port, grpc_port, *models = sys.argv[1:]
sys.argv[1:] = ["--http_port", http_port, "--grpc_port", grpc_port, "--workers", "1", "--enable_docs_url", "false"]
os.environ.setdefault("KSERVE_LOGLEVEL", "WARNING")
from kserve.model_server import parser  # noqa: E402

known, _ = parser.parse_known_args()
ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), access_log_format=None).start(
    [OnnxModel(*model.split("=", 1)) for model in models]
)
