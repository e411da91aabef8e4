"""What people look at: figures, pages, tables, and the runs in MLflow that hold them.

May import every room but `sweeps` and `diagnosis`. Offers `publish` (a comparison), `evaluation` (evaluated networks),
`parity` (the proof of equality), `data_page` (the data). Inside: `html`, `table`, the templates and `figures`.
"""
