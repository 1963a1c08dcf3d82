"""The training loop of heads and of fine-tuning: one skorch net, its data and its callbacks.

Importing the package is cheap: skorch, which takes a moment to import, is loaded by the first fit.
"""
