"""Figures, drawn with matplotlib: every framework has one colour, which colour-blind people can tell apart."""
