"""`python -m pipeline.config [overrides]` composes `conf/` into `params.yaml`; `--sync` is the DVC stage `config`.

`--sync` keeps a `params.yaml` that was composed from this very `conf/` (so `dvc exp run -S`, overrides given by hand
and hand edits survive), recomposes a stale one, and never drops the overrides of a `dvc exp run` silently.
"""

import os
import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from ..entry import user_errors
from ..errors import UserError
from .compose import PARAMS, compose, conf_digest, load, write


def sync() -> str:
    """Bring `params.yaml` and `conf/` together; returns what was done. Raises `UserError`; the file stays then."""
    wanted, found = conf_digest(), None
    if PARAMS.exists():
        try:
            snapshot = OmegaConf.load(PARAMS)
        except Exception:  # unreadable: load() below says how
            load(PARAMS)
            raise
        if isinstance(snapshot, DictConfig):
            found = OmegaConf.to_container(snapshot).get("conf_digest")  # type: ignore[union-attr]
    if found == wanted:
        load(PARAMS)
        return "params.yaml was composed from this conf/: kept"
    if os.environ.get("DVC_EXP_NAME"):
        raise UserError(
            "params.yaml was not composed from this conf/ (an untracked file in conf/, or --no-hydra?): "
            "`git add conf/` and try again"
        )
    write(compose())
    return f"params.yaml was {'missing' if found is None else 'stale'}: composed from conf/"


@user_errors
def main(arguments: Sequence[str]) -> None:
    """Entry point of the stage `config`."""
    if list(arguments) == ["--sync"]:
        print(sync())
    elif set(arguments) & {"-h", "--help"}:
        print(__doc__)
    else:
        write(compose(arguments))
        print("params.yaml composed", *arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
