"""Charts as pure functions of numbers: scale → raster → text. numpy only."""
