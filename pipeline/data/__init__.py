"""The examples: where they come from, how they are stored, in which order they are trained on."""
