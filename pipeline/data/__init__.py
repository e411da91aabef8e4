"""Upstream files to prepared arrays, and the plan of every epoch.

May import `core`, `config`. Offers `downloader` and `providers` (files and the libraries that know them), `build` (a
source to a prepared data set), `dataset` and `array_file` (what is prepared, read piece by piece), `cache` (prepared
data outside of DVC), `plan` (what an epoch consists of, drawn in NumPy), `loader` (the training split to a backend).
"""
