"""Serve a registered model, or an ONNX file, over HTTP: images in, logits and probabilities out.

  python -m pipeline.serve <name>@champion      the champion of MLflow's registry, see `pipeline.promote`
  python -m pipeline.serve <name>/3             a version
  python -m pipeline.serve FILE.onnx            a file of `pipeline.export`

The open inference protocol, version 2 (KServe, Triton, Seldon), with its binary tensors: POST
/v2/models/<name>/infer, GET /v2/models/<name>, GET /v2/health/ready. A wrong request gets 400 and one line. There are
no users and no passwords: it listens on 127.0.0.1 unless told otherwise. SIGTERM ends it within 5 seconds, and what it
has begun is answered.
"""

import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .config.call import parser_of
from .config.compose import compose
from .core.errors import UserError
from .core.exits import command
from .core.paths import main_root
from .core.signals import end_on_signals

_GRACE_SECONDS = 4


@command
def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `UserError` if there is no such model, or the port is not free."""
    end_on_signals()
    parser = parser_of("serve", __doc__)
    parser.add_argument("model", metavar="MODEL", help="<name>@<alias>, <name>/<version>, or an ONNX file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080")
    parser.add_argument("--threads", type=int, default=1, help="of the computation (default: 1)")
    parser.add_argument("--most-images", type=int, default=1024, metavar="N", help="in a request (default: 1024)")
    options = parser.parse_args(arguments)
    for name, low, high in (("port", 1, 65535), ("threads", 1, 1024), ("most_images", 1, 1_000_000)):
        value = getattr(options, name)
        if not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} = {value}: allowed: {low} to {high}")
    if (file := Path(options.model)).suffix == ".onnx" and not file.is_file():
        raise UserError(f"{file}: no such file; `python -m pipeline.export` writes results/<framework>/exports")
    from .serving.app import Served, application
    from .serving.server import require_free, serve

    require_free(options.host, options.port)
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        if file.suffix == ".onnx":
            path, name, version = file, file.stem, "1"
        else:
            path, name, version = _registered(options.model, Path(folder))
        served = Served.of(path, name, version, threads=options.threads, most=options.most_images)
        print(f"{name}/{version}: http://{options.host}:{options.port}/v2/models/{name}/infer", flush=True)
        if options.host not in ("127.0.0.1", "localhost", "::1"):
            print(f"--host {options.host}: everybody who reaches it can use it, without a password", file=sys.stderr)
        serve(application(served), options.host, options.port, _GRACE_SECONDS)


def _registered(model: str, folder: Path) -> tuple[Path, str, str]:
    """Return what `_find` does, found in another process: MLflow would take 200 MiB of this one for good."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_find, model, folder).result()


def _find(model: str, folder: Path) -> tuple[Path, str, str]:
    """Return file, name and version of a registered model."""
    from .tracking import registry  # MLflow is to be imported in the other process only
    from .tracking.tracker import Tracker

    client = Tracker(compose().tracking, main_root()).client
    version = registry.named(client, model)
    return registry.onnx_of(version, folder), version.name, version.number


if __name__ == "__main__":
    main(sys.argv[1:])
