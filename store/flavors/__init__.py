"""Saving and loading models in the layout of MLflow.

Runs in training, serving and test processes only: loading a model may run code that came with it. The screen, its worker,
the server and importers never import this package. It needs the standard library and the model's own libraries, nothing
else of ours, so that it also runs inside a model's own environment.
"""
