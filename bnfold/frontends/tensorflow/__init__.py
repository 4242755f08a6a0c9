"""TensorFlow graphs, checkpoints and SavedModels."""
