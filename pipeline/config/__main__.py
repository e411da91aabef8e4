"""Compose conf/ into params.yaml, which the stages of DVC read (stage `config`).

  python -m pipeline.config [key=value ...]   compose, with overrides
  python -m pipeline.config --sync            the stage: bring params.yaml and conf/ together

`--sync` keeps a params.yaml that was composed from this very conf/ (so `dvc exp run -S`, overrides given by hand and
hand edits survive), composes a stale one anew, and never drops the overrides of a `dvc exp run` silently.
"""

import os
import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from ..core.errors import UserError
from ..core.exits import command
from .call import OVERRIDES, parser_of
from .compose import PARAMS, compose, conf_digest, load, write


def sync() -> str:
    """Bring `params.yaml` and `conf/` together; return what was done. Raises `UserError`; the file stays then."""
    wanted, stamped = conf_digest(), None
    if PARAMS.exists():
        try:
            snapshot = OmegaConf.load(PARAMS)
        except Exception:  # unreadable: load() below says how
            load(PARAMS)
            raise
        if isinstance(snapshot, DictConfig):
            stamped = OmegaConf.to_container(snapshot).get("conf_digest")  # type: ignore[union-attr]
    if stamped == wanted:
        load(PARAMS)
        return "params.yaml was composed from this conf/: kept"
    if os.environ.get("DVC_EXP_NAME"):
        raise UserError(
            "params.yaml was not composed from this conf/ (an untracked file in conf/, or --no-hydra?): "
            "`git add conf/` and try again"
        )
    write(compose())
    return f"params.yaml was {'missing' if stamped is None else 'stale'}: composed from conf/"


@command
def main(arguments: Sequence[str]) -> None:
    """Compose, or bring together."""
    parser = parser_of("config", __doc__)
    parser.epilog = OVERRIDES
    parser.add_argument("--sync", action="store_true", help="keep a params.yaml that fits conf/, renew a stale one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    options = parser.parse_intermixed_args(arguments)
    if options.sync and options.overrides:
        raise UserError(f"--sync with {' '.join(options.overrides)}: allowed: one of the two")
    if options.sync:
        print(sync())
    else:
        write(compose(options.overrides))
        print("params.yaml composed", *options.overrides)


if __name__ == "__main__":
    main(sys.argv[1:])
