"""Figures: matplotlib, one colour for each framework everywhere, told apart by colour-blind people as well."""
