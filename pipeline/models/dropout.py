"""The mask of dropout: a hash of key and position, computed alike in NumPy, TensorFlow and PyTorch.

Frameworks do not share the state of their random generators. A counter-based generator (Salmon et al. 2011) has no
state: it hashes the position of a value in the batch, in canonical layout, under the key of the step.
"""

from collections.abc import Callable
from typing import Any, Final

_LOW_32: Final = 0xFFFFFFFF


def keep(positions: Any, key: Any, number: int, rate: float, right_shift: Callable[[Any, int], Any]) -> Any:
    """Return a boolean mask in the shape of `positions`, each true with probability 1 - `rate`.

    `positions`: int64 in [0, 2^32). `key`: int64 scalar in [0, 2^32), drawn for the step. `number`: index of the
    dropout layer in the network. `right_shift`: the framework's own; `^`, `*` and `&` are the same in all.
    """
    layer_key = _mix(key ^ ((number + 1) * 0x9E3779B1 & _LOW_32), right_shift)
    return _mix(_mix(positions, right_shift) ^ layer_key, right_shift) >= round(rate * 2**32)


def _mix(x: Any, right_shift: Callable[[Any, int], Any]) -> Any:
    """Apply lowbias32 of github.com/skeeto/hash-prospector; int64 products wrap around and keep the low 32 bits."""
    x = (x ^ right_shift(x, 16)) * 0x7FEB352D & _LOW_32
    x = (x ^ right_shift(x, 15)) * 0x846CA68B & _LOW_32
    return x ^ right_shift(x, 16)
