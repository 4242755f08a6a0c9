"""Tests of the TensorFlow frontends."""
