"""Figures: what a person looks at. Colour-blind safe, one colour per side everywhere."""
