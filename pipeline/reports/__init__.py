"""What people look at: figures, pages and tables, written to files and logged to MLflow.

May import every room but `sweeps` and `diagnosis`. Offers `publish` (a comparison), `table` (the same on the terminal),
`evaluation` (evaluated networks), `parity` (the proof of equality), `data_page` (the data). Inside: `html`, the
templates and `figures`.
"""
