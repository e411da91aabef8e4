"""What any command needs, and no machine learning: errors and exit codes, paths, signals, progress, machine, files.

Imports nothing of this package. Offers `errors` and `exits` (one message for a mistake, and its exit code), `paths`
(where things lie), `files` (whole or not at all), `fingerprint` (every "is it the same?"), `frameworks` (the registry),
`machine` and `provenance` (what a run happened on, and of which commit), `progress`, `signals`, `quiet`.
"""
