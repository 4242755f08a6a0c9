"""The kept models: integer versions of names, and the files that belong to them."""
