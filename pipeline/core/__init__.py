"""What every command needs and no machine learning: errors, exit codes, paths, signals, progress, machine, files.

Imports no other room. Offers `errors` and `exits` (one message and one exit code for each mistake), `paths` (fixed
folders), `files` (atomic writes), `fingerprint` (digests of values, code and versions), `frameworks` (the registry),
`machine`, `provenance` and `working_tree` (the hardware and the code of a run), `claim` and `turns` (who owns a folder,
who waits for whom), `redaction` (no secret in a text), `progress`, `signals`, `quiet`.
"""
