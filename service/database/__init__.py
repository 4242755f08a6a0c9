"""What the service remembers: jobs and kept models, in SQLite or PostgreSQL."""
