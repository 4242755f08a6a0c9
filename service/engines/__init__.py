"""Engines: what brings a job to a worker. The row is the truth, an engine is only the doorbell."""
