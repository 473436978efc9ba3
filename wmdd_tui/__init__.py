"""The cockpit: a Textual dashboard and Typer commands; never imports torch."""
