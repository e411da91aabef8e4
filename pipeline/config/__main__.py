"""Compose conf/ into params.yaml, which the stages of DVC read (stage `config`).

  python -m pipeline.config [key=value ...]   compose, with overrides
  python -m pipeline.config --sync            the stage: bring params.yaml and conf/ together

`--sync` keeps a params.yaml that was composed from the present conf/: `dvc exp run -S`, overrides and edits by hand
survive. It fills in the schema's defaults, which DVC's own composition leaves out, so that DVC reruns only what an
override changes. It composes a stale one anew, but fails in a `dvc exp run`, whose overrides would be lost.
"""

import os
import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from ..core.errors import UserError
from ..core.exits import command
from .call import OVERRIDES, parser_of
from .compose import PARAMS, compose, conf_digest, load, text_of, write


def sync() -> str:
    """Compose `params.yaml` if it is missing or was composed from another `conf/`, else bring it to the schema's form.

    Return a message on what was done.

    Raises `UserError` if either is invalid, or in a `dvc exp run` with a stale file; the file is unchanged then.
    """
    digest, composed_from = conf_digest(), None
    if PARAMS.exists():
        try:
            snapshot = OmegaConf.load(PARAMS)
        except Exception:  # unreadable: load() raises the message for users
            load(PARAMS)
            raise
        if isinstance(snapshot, DictConfig):
            composed_from = OmegaConf.to_container(snapshot).get("conf_digest")  # type: ignore[union-attr]
    if composed_from == digest:
        config = load(PARAMS)
        if PARAMS.read_text(encoding="utf-8") != text_of(config):  # written by DVC or by hand
            write(config)
        return "params.yaml was composed from this conf/: kept"
    if os.environ.get("DVC_EXP_NAME"):
        raise UserError(
            "params.yaml was not composed from this conf/ (an untracked file in conf/, or --no-hydra?): "
            "`git add conf/` and try again"
        )
    write(compose())
    return f"params.yaml was {'missing' if composed_from is None else 'stale'}: composed from conf/"


@command
def main(arguments: Sequence[str]) -> None:
    """Compose `params.yaml`, or bring it up to date."""
    parser = parser_of("config", __doc__)
    parser.epilog = OVERRIDES
    parser.add_argument("--sync", action="store_true", help="keep a params.yaml that fits conf/, renew a stale one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    options = parser.parse_intermixed_args(arguments)
    if options.sync and options.overrides:
        raise UserError(f"--sync {' '.join(options.overrides)}: --sync takes no overrides; allowed: one of the two")
    if options.sync:
        print(sync())
    else:
        write(compose(options.overrides))
        print("params.yaml composed", *options.overrides)


if __name__ == "__main__":
    main(sys.argv[1:])
