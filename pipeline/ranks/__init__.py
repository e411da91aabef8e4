"""One training in several processes: each computes its share of every batch, and rank 0 leads.

Rank 0 runs the command as any other process does: it tracks, saves and evaluates. The other ranks take its calls of
`models.backend.Classifier`, one by one, over a connection, and compute the same steps; what they exchange within a step
goes through the framework's own collectives (`models.<framework>.peers`).
"""
