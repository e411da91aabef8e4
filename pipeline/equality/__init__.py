"""The proof that two frameworks compute the same function under the same settings.

May import `core`, `config`, `data`, `models`. Offers `trace` (what one framework computes, step by step), `levels` (two
traces compared, level by level), `fairness` (the settings and machine facts that two arms must have in common).
"""
