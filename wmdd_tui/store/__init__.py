"""What the cockpit knows of runs, read from their directories: torch-free and Textual-free."""
