"""Prepare arrays from upstream files, and draw the plan of every epoch.

May import `core`, `config`. Offers `downloader` and `providers` (fetch and read upstream files), `build` (prepare a
data set), `dataset` and `array_file` (read prepared data piece by piece), `cache` (prepared data outside of DVC),
`plan` (draw an epoch in NumPy), `loader` (hand the training split to a backend), `pixels` (statistics of a split).
Inside: `images` (decoded images to uint8 arrays), `decoding` (all images of a source), `remarks` (what was left
out), `idx` (the format of the MNIST files), `sample` (the bundled digits).
"""
