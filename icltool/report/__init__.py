"""Results for people: tables, figures, and text formats."""
