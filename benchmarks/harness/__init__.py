"""What every measurement needs: options, data to work on, a stopwatch, peaks of the machine, the report."""
