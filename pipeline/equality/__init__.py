"""The proof that two frameworks compute the same function, and were asked the same.

May import `core`, `config`, `data`, `models`. Offers `trace` (what one framework computes, step by step), `levels` (two
traces compared, level by level), `fairness` (what two arms must have in common).
"""
