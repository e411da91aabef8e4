"""The side of a comparison that may go to production, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core.errors import ResultError, UserError

_KINDS: Final = {"latency": "at one image", "inference": "at inference", "training": "at training"}


@dataclass(frozen=True)
class Candidate:
    """The better side of a comparison, or the faster of two equivalent ones."""

    title: str
    """`PyTorch`."""
    framework: str
    runs: Mapping[int, str]
    """Ids of its seeds' runs."""
    fingerprint: str
    """Of the data."""
    data: str
    network: str
    accuracy: float
    """Mean over the seeds on the test split."""
    reason: str

    @property
    def seed(self) -> int:
        """The seed whose network is promoted: the first, as the best would be chosen by the test split."""
        return min(self.runs)

    @classmethod
    def of(cls, document: Mapping[str, Any], named: str) -> "Candidate":
        """Choose from a `comparison.json`; `named`: what to call it in a message.

        Raises `ResultError` if the comparison decides nothing or parity failed, `UserError` if it is incomplete.
        """
        try:
            verdict, parity = document["verdict"], document.get("parity")
            if parity is not None and not parity["passed"]:
                raise ResultError(
                    f"{named}: parity failed: the two sides are not the same network; nothing is promoted"
                )
            if verdict == "inconclusive":
                raise ResultError(f"{named}: nothing is promoted. {document['sentence']}")
            key, reason = _choice(document, verdict)
            side = document[key]
            return cls(
                title=side["name"],
                framework=side["framework"]["name"],
                runs={int(seed): run for seed, run in side["runs"].items()},
                fingerprint=side["settings"]["data"]["fingerprint"],
                data=side["settings"]["data"]["name"],
                network=side["settings"]["model"]["name"],
                accuracy=document["metrics"]["accuracy"][key]["mean"],
                reason=reason,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{named}: is no comparison of this version ({error!r}); compare again") from error


def _choice(document: Mapping[str, Any], verdict: str) -> tuple[str, str]:
    """Return the side, `a` or `b`, and why it is chosen."""
    a, b = document["a"]["name"], document["b"]["name"]
    if verdict in ("a_better", "b_better"):
        key = verdict[0]
        return key, f"{document[key]['name']} is better than {b if key == 'a' else a}"
    ratios = (document.get("speed") or {}).get("ratios") or {}
    if not ratios:
        return "a", f"{a} and {b} are equivalent, and their speed was not measured; {a} comes first"
    for kind, where in _KINDS.items():
        ratio = ratios.get(kind)
        if ratio and not ratio["low"] <= 1 <= ratio["high"]:
            key = "a" if ratio["mean"] > 1 else "b"
            other = b if key == "a" else a
            times = max(ratio["mean"], 1 / ratio["mean"])
            return key, f"{document[key]['name']} is equivalent to {other} and {times:.2f} times as fast {where}"
    return "a", f"{a} and {b} are equivalent and equally fast; {a} comes first"
