"""The configuration: its schema, the composition of `conf/`, and its snapshot `params.yaml`.

May import `core`. Offers `compose` (conf/ and the snapshot to a checked `Config`), `call` (a command's arguments to the
sections that it may read) and `schema` (a module per section). `python -m pipeline.config` is the DVC stage `config`.
"""
