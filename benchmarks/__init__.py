"""Runnable measurements: ``python -m benchmarks STAGE`` compares a plain baseline with the product in one process.

``harness`` times, counts and reports; ``baselines`` holds the method as a plain reading of its description computes it;
``stages`` has one module a measurement. The scripts beside them measure the app and the models of cost, each by itself.
"""
