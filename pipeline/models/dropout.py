"""Which values dropout keeps: a hash of key and position, computed alike in NumPy, TensorFlow and PyTorch.

A generator of random numbers has a state that no two frameworks share; a counter-based one (Salmon et al. 2011) has
none: the position of a value in the batch, in canonical layout, goes through a hash that the key of the step selects.
"""

from collections.abc import Callable
from typing import Any, Final

_LOW_32: Final = 0xFFFFFFFF


def keep(positions: Any, key: Any, number: int, rate: float, right_shift: Callable[[Any, int], Any]) -> Any:
    """Whether each position's value is kept, with probability 1 - `rate`: booleans in the shape of `positions`.

    `positions`: int64 in [0, 2^32). `key`: int64 scalar in [0, 2^32), of the step. `number`: of the dropout layer in
    the network. All three kinds of array have `^`, `*`, `&` in common, and `right_shift` under a name of their own.
    """
    layer_key = _mix(key ^ ((number + 1) * 0x9E3779B1 & _LOW_32), right_shift)
    return _mix(_mix(positions, right_shift) ^ layer_key, right_shift) >= round(rate * 2**32)


def _mix(x: Any, right_shift: Callable[[Any, int], Any]) -> Any:
    """lowbias32 of github.com/skeeto/hash-prospector: products wrap around in int64, which keeps the low 32 bits."""
    x = (x ^ right_shift(x, 16)) * 0x7FEB352D & _LOW_32
    x = (x ^ right_shift(x, 15)) * 0x846CA68B & _LOW_32
    return x ^ right_shift(x, 16)
