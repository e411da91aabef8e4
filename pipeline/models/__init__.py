"""The declared network and the seam between the frameworks; a folder for each framework, which alone imports it.

May import `core`, `config`, `data`. Offers `architecture` (layers, shapes, parameters, initial weights), `backend` (the
seam: `Classifier`, and how one is opened, saved and loaded), `manifest` (what an arm was asked, and on what),
`augmentation` and `dropout` (the arithmetic that all frameworks share).
"""
