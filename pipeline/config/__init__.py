"""The configuration: its schema, the composition of `conf/`, and its snapshot `params.yaml`.

May import `core`. Offers `compose` (read conf/ or the snapshot into a checked `Config`), `call` (parse a command's
arguments into the sections that it may read) and `schema` (a module per section). `python -m pipeline.config` is the
DVC stage `config`.
"""
