"""The declared network and the seam between the frameworks; one folder per framework, the only code that imports it.

May import `core`, `config`, `data`. Offers `architecture` (layers, shapes, parameters, initial weights), `backend` (the
seam: `Classifier`, and functions that create, save and load one), `manifest` (settings and machine of an arm),
`augmentation` and `dropout` (the arithmetic that all frameworks share).
"""
