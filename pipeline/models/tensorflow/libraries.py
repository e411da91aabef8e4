"""The libraries of CUDA that TensorFlow opens by name when it looks for a GPU; if one is missing, it uses the CPU."""

import ctypes
import importlib.util
from pathlib import Path
from typing import Final

LIBRARIES: Final = {
    "libcudart.so.12": "cuda_runtime",
    "libcublas.so.12": "cublas",
    "libcublasLt.so.12": "cublas",
    "libcufft.so.11": "cufft",
    "libcurand.so.10": "curand",
    "libcusolver.so.11": "cusolver",
    "libcusparse.so.12": "cusparse",
    "libcudnn.so.9": "cudnn",
    "libcupti.so.12": "cuda_cupti",
    "libnccl.so.2": "nccl",
    "libnvJitLink.so.12": "nvjitlink",
}
"""Names that TensorFlow 2.21 opens, with their folders below `nvidia/`, where NVIDIA's packages put them and its
search path looks (readelf -d libtensorflow_framework.so.2). Source: tsl/platform/default/dso_loader.cc, and the CUDA
versions in `tf.sysconfig.get_build_info()`."""


def missing_libraries() -> list[str]:
    """Return the names of those that cannot be loaded, neither from the packages of NVIDIA nor from the system."""
    return [name for name, folder in LIBRARIES.items() if not _loads(name, folder)]


def _loads(name: str, folder: str) -> bool:
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) / folder / "lib" / name for place in (spec.submodule_search_locations or ())] if spec else []
    for path in (*(str(place) for place in places if place.exists()), name):
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
        return True
    return False
