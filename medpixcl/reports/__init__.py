"""Results for people: figures, tables and one self-contained HTML page."""
