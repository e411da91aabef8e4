"""Requests and answers of the open inference protocol, version 2, with its extension for binary tensors.

https://github.com/kserve/open-inference-protocol and, for binary tensors, Triton's `protocol/extension_binary_data.md`:
a body of JSON, or of JSON and the bytes of the tensors, with the length of the JSON in the header
`Inference-Header-Content-Length`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
INPUT: Final = "images"
OUTPUTS: Final = ("logits", "probabilities")
_SHOWN: Final = 80  # characters of a wrong value


class BadRequestError(Exception):
    """A request that cannot be answered; one line that names what is wrong, and what is allowed."""


@dataclass(frozen=True)
class Request:
    """A request to classify images."""

    images: np.ndarray
    """uint8 (N, height, width, channels)."""
    outputs: tuple[str, ...]
    """Names of the outputs that are asked for."""
    binary: frozenset[str]
    """Those of them that are to be sent as bytes."""
    id: str | None


def parse(body: bytes, header_length: str | None, shape: Sequence[int], most: int) -> Request:
    """Parse the body of a request. `shape`: of an image; `most`: images allowed. Raises `BadRequestError`."""
    try:
        return _parse(body, header_length, shape, most)
    except RecursionError as error:
        raise BadRequestError("the body is nested too deeply") from error


def _parse(body: bytes, header_length: str | None, shape: Sequence[int], most: int) -> Request:
    document, rest = _split(body, header_length)
    given = _one_input(document)
    datatype = given.get("datatype")
    if datatype != "UINT8":
        raise BadRequestError(f"inputs[0].datatype = {_short(datatype)}: allowed: UINT8")
    sizes = given.get("shape")
    allowed = f"[1 to {most}, {', '.join(map(str, shape))}]"
    if not (isinstance(sizes, list) and all(type(size) is int for size in sizes)):
        raise BadRequestError(f"inputs[0].shape = {_short(sizes)}: allowed: {allowed}")
    if len(sizes) != 1 + len(shape) or sizes[1:] != list(shape) or not 1 <= sizes[0] <= most:
        raise BadRequestError(f"inputs[0].shape = {_short(sizes)}: allowed: {allowed}")
    values = _values(given, rest, sizes)
    if values.size != int(np.prod(sizes)):
        raise BadRequestError(f"inputs[0]: {values.size:,} values; its shape {sizes} has {int(np.prod(sizes)):,}")
    outputs, binary = _asked(document)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequestError(f"id = {_short(request_id)}: allowed: a text")
    return Request(values.reshape(sizes), outputs, binary, request_id)


def answer(
    request: Request, results: Mapping[str, np.ndarray], model: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the answer. `results`: by output, float32 (N, classes)."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name in request.outputs:
        values = np.ascontiguousarray(results[name], "<f4")
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if name in request.binary:
            tail.append(values.tobytes())
            entry["parameters"] = {"binary_data_size": values.nbytes}
        else:
            entry["data"] = values.ravel().tolist()
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document).encode()
    if not tail:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(head))}
    return b"".join([head, *tail]), headers


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not (digits and int(header_length) <= len(body)):
            raise BadRequestError(f"{LENGTH_HEADER} = {_short(header_length)}: allowed: 0 to {len(body)}")
        length = int(header_length)
    try:
        document = json.loads(body[:length])
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {_short(str(error), quoted=False)}") from error
    if not isinstance(document, dict):
        raise BadRequestError(f"the body is {_short(document)}: allowed: an object with the key inputs")
    return document, body[length:]


def _one_input(document: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = document.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise BadRequestError(f"inputs = {_short(inputs)}: allowed: a list of one tensor, {INPUT}")
    if inputs[0].get("name") != INPUT:
        raise BadRequestError(f"inputs[0].name = {_short(inputs[0].get('name'))}: allowed: {INPUT}")
    return inputs[0]


def _values(given: Mapping[str, Any], rest: bytes, sizes: Sequence[int]) -> np.ndarray:
    """Return the values of the tensor, uint8, flat."""
    size = _parameters(given, "inputs[0]").get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != len(rest):
            raise BadRequestError(f"inputs[0].parameters.binary_data_size = {_short(size)}: {len(rest):,} bytes follow")
        return np.frombuffer(rest, np.uint8)
    if rest:
        raise BadRequestError(f"{len(rest):,} bytes follow the JSON, and inputs[0] has no binary_data_size")
    data = given.get("data")
    if not isinstance(data, list):
        raise BadRequestError(f"inputs[0].data = {_short(data)}: allowed: a list of whole numbers from 0 to 255")
    try:
        values = np.array(data)
    except ValueError as error:
        raise BadRequestError("inputs[0].data: its lists are not all of one length") from error
    if values.dtype.kind not in "iu" or (values.size and not (values.min() >= 0 and values.max() <= 255)):
        raise BadRequestError("inputs[0].data: holds other values; allowed: whole numbers from 0 to 255")
    if values.ndim > 1 and list(values.shape) != list(sizes):
        raise BadRequestError(f"inputs[0].data: is of the shape {list(values.shape)}; allowed: flat, or {list(sizes)}")
    return values.astype(np.uint8).ravel()


def _asked(document: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the outputs that are asked for, and which of them as bytes."""
    every = _parameters(document, "the request").get("binary_data_output", False)
    asked = document.get("outputs", [])
    asked = [{"name": name} for name in OUTPUTS] if asked == [] else asked
    if not (isinstance(asked, list) and all(isinstance(each, dict) for each in asked)):
        raise BadRequestError(f"outputs = {_short(asked)}: allowed: a list of {{name: ...}}")
    names, binary = [], set()
    for position, each in enumerate(asked):
        name = each.get("name")
        if name not in OUTPUTS or name in names:
            raise BadRequestError(
                f"outputs[{position}].name = {_short(name)}: allowed: {', '.join(OUTPUTS)}, once each"
            )
        names.append(name)
        if _parameters(each, f"outputs[{position}]").get("binary_data", every) is True:
            binary.add(name)
    return tuple(names), frozenset(binary)


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = holder.get("parameters") or {}
    if not isinstance(found, dict):
        raise BadRequestError(f"parameters of {where} = {_short(found)}: allowed: an object")
    return found


def _short(value: Any, *, quoted: bool = True) -> str:
    text = json.dumps(value, default=str) if quoted else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
