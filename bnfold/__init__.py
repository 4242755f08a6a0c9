"""Fold batch normalization into the weights around it, and prove that the model still computes the same thing."""
