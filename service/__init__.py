"""The service: a model file in, the folded model out, kept and served. An application: ``python -m service``."""
