"""Proof that what bnfold writes computes what the original computed."""
