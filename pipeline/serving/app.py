"""The HTTP application that serves one ONNX file."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..core.errors import UserError
from . import protocol
from .protocol import BadRequestError

_JSON_BYTES: Final = 6  # of a value in JSON: `255, ` and a bracket
_HEAD_BYTES: Final = 1 << 16  # of the rest of a request
_OVER_BYTES: Final = 1 << 28  # read and dropped: most clients send all of a request before they read the answer
_AT_ONCE: Final = 4  # images that are computed in the event loop; more would keep others waiting


@dataclass(frozen=True)
class Served:
    """A model that is served."""

    name: str
    version: str
    session: Any
    shape: tuple[int, ...]
    """(height, width, channels)."""
    most: int
    """Images in one request."""
    facts: Mapping[str, str]
    """Of the file: framework, data, classes."""

    @classmethod
    def of(cls, path: Path, name: str, version: str, *, threads: int, most: int) -> "Served":
        """Open an ONNX file that `pipeline.export` or `pipeline.promote` wrote. Raises `UserError`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of onnxruntime's own, which has no common base
            raise UserError(f"{path}: is not an ONNX file that can be served: {str(error).splitlines()[0]}") from error
        inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
        fits = len(inputs) == 1 and inputs[0].name == protocol.INPUT and inputs[0].type == "tensor(uint8)"
        if not (fits and len(inputs[0].shape) == 4 and outputs == list(protocol.OUTPUTS)):
            raise UserError(f"{path}: takes no uint8 images; allowed: a file of pipeline.export or pipeline.promote")
        shape = tuple(inputs[0].shape[1:])
        session.run(None, {protocol.INPUT: np.zeros((1, *shape), np.uint8)})
        return cls(name, version, session, shape, most, dict(session.get_modelmeta().custom_metadata_map))

    @property
    def most_bytes(self) -> int:
        """Largest body of a request."""
        return _HEAD_BYTES + _JSON_BYTES * self.most * math.prod(self.shape)

    def run(self, request: protocol.Request) -> dict[str, np.ndarray]:
        """Return the outputs that are asked for, by name."""
        found = self.session.run(list(request.outputs), {protocol.INPUT: request.images})
        return dict(zip(request.outputs, found, strict=True))


def application(served: Served) -> FastAPI:
    """Return the application: health, metadata and inference of the open inference protocol."""
    app = FastAPI(title=served.name, docs_url=None, redoc_url=None, openapi_url=None)
    model = "/v2/models/{name}"

    @app.exception_handler(HTTPException)
    async def no_such_page(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": f"{request.method} {request.url.path[:80]}: {error.detail}"}, error.status_code)

    def known(name: str, version: str = served.version) -> bool:
        return name == served.name and version == served.version

    def unknown(name: str) -> Response:
        return JSONResponse({"error": f"no model {name[:80]}; there is {served.name}/{served.version}"}, 404)

    @app.get("/v2/health/live")
    async def live() -> Response:
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return JSONResponse({"ready": True})

    @app.get("/v2")
    async def server() -> Response:
        return JSONResponse({"name": "pipeline", "version": "0.1.0", "extensions": ["binary_tensor_data"]})

    @app.get(model + "/ready")
    @app.get(model + "/versions/{version}/ready")
    async def model_ready(name: str, version: str = served.version) -> Response:
        return JSONResponse({"name": name, "ready": True}) if known(name, version) else unknown(name)

    @app.get(model)
    @app.get(model + "/versions/{version}")
    async def metadata(name: str, version: str = served.version) -> Response:
        return JSONResponse(_metadata(served)) if known(name, version) else unknown(name)

    @app.post(model + "/infer")
    @app.post(model + "/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str = served.version) -> Response:
        if not known(name, version):
            return unknown(name)
        try:
            body = await _body(request, served.most_bytes)
            parsed = protocol.parse(body, request.headers.get(protocol.LENGTH_HEADER), served.shape, served.most)
        except BadRequestError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (ClientDisconnect, asyncio.CancelledError):  # hung up, or still sending when the server ends
            return Response(status_code=400)  # nobody reads it
        if len(parsed.images) <= _AT_ONCE:
            results = served.run(parsed)
        else:
            results = await asyncio.to_thread(served.run, parsed)
        content, headers = protocol.answer(parsed, results, served.name, served.version)
        return Response(content, headers=headers)

    return app


def _metadata(served: Served) -> dict[str, Any]:
    classes = served.session.get_outputs()[0].shape[1]
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, classes]} for name in protocol.OUTPUTS]
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": protocol.INPUT, "datatype": "UINT8", "shape": [-1, *served.shape]}],
        "outputs": outputs,
        "parameters": dict(served.facts),
    }


async def _body(request: Request, most: int) -> bytes:
    """Read the body, and keep no more of it than is allowed. Raises `BadRequestError`."""
    content, read = bytearray(), 0
    async for part in request.stream():
        read += len(part)
        if read <= most:
            content += part
        elif read > most + _OVER_BYTES:
            break
    if read > most:
        raise BadRequestError(f"the body has more than {most:,} bytes, the most that is allowed")
    return bytes(content)
