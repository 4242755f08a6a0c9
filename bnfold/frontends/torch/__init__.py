"""Programs that PyTorch exported: read as JSON and plain numbers first, and never unpickled."""
