"""The page at ``/``, and the reference at ``/docs``: files that need no internet connection and no build step."""
