"""Serving kept models: the Open Inference Protocol, and the processes that the models run in."""
